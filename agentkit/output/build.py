"""Build the `OutputSpec` of an output type: how to request it, and how to check it.

It is built once per agent. Everything in it is pure, so the loop uses it directly.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter, create_model
from pydantic_core import CoreSchema, SchemaValidator, to_json

from agentkit.core.spec import OutputSpec, Place
from agentkit.errors import ConfigurationError, safe_repr
from agentkit.messages import JsonObject, OutputFormat, ToolDefinition
from agentkit.models.profiles import OutputMode, Profile
from agentkit.output.partial import PartialOutput
from agentkit.schema.repair import is_simple, load, load_value
from agentkit.schema.strict import NotStrict, strict_form
from agentkit.tools.annotations import OfferedSchema, accepted, validator_of
from agentkit.tools.raw import RawChecker, compiled
from agentkit.tools.validation import TypeChecker, fit

OUTPUT_TOOL = "final_output"
Mode: TypeAlias = Literal["auto"] | OutputMode


class JsonSchema:
    """An output type that is a raw JSON Schema; the output is the JSON value.

    Example:
        >>> from agentkit import JsonSchema
        >>> counts = JsonSchema({"type": "object", "properties": {"n": {"type": "integer"}}})
        >>> counts.check('{"n": 1}')
        {'n': 1}

    Args:
        schema: JSON Schema of an object, checked here; draft 2020-12, 2019-09, 7, 6 or 4.
        name: Its name in requests.

    Raises:
        InvalidTool: The schema is not valid.
    """

    def __init__(self, schema: JsonObject, name: str = "output") -> None:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # not everybody checks types
            raise TypeError(f"JsonSchema: name={safe_repr(name)}: expected text.")
        self.schema = schema
        self.name = name
        self._checker = RawChecker(compiled(name, schema), schema)

    def check(self, text: str) -> Any:
        """Parse, repair and check a JSON text, as arguments of a tool are.

        Raises:
            InvalidArguments: The value does not match the schema; the text says where and why.
        """
        of_object = self.schema.get("type", "object") == "object"
        return fit(self._checker, (load(text, blank=False) if of_object else load_value(text))[0])[
            0
        ]


def output_spec(output: Any, profile: Profile, mode: Mode = "auto") -> OutputSpec[Any]:
    """Build the spec for an output type, for a model of this profile.

    Args:
        output: `str`, or any type that pydantic can validate.
        profile: The profile of the model's server.
        mode: How to request it; `auto` takes the profile's best.

    Raises:
        ConfigurationError: The type has no JSON Schema.
    """
    if output is str:
        return OutputSpec(check=lambda text: (text, None))
    if isinstance(output, JsonSchema):
        name, schema, of_text = output.name, output.schema, output.check
        spec = spec_of_schema(name, schema, lambda text: (of_text(text), None), profile, mode)
        partial = output.schema.get("type", "object") == "object"
        return replace(spec, partial=lambda: PartialOutput(Any, wrapped=False)) if partial else spec
    try:
        output = accepted(output)
        adapter: TypeAdapter[Any] = TypeAdapter(
            Annotated[Any, _Closed(output)], config=ConfigDict(extra="forbid")
        )
        schema = adapter.json_schema(schema_generator=OfferedSchema)
        wrapped = schema.get("type") != "object"
        if wrapped:
            # Servers require an object at the root: another type becomes its one property.
            config = ConfigDict(extra="forbid")
            adapter = TypeAdapter(create_model("Output", __config__=config, value=(output, ...)))
            schema = adapter.json_schema(schema_generator=OfferedSchema)
    except Exception as error:  # a type is arbitrary code
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConfigurationError(
            f"output={safe_repr(output)} has no JSON Schema: {reason}. Use a pydantic model, a "
            "dataclass, a TypedDict or another type that pydantic can describe."
        ) from error

    check = _Check(validator_of(adapter), schema, wrapped=wrapped)
    spec = spec_of_schema(_name(output), schema, check, profile, mode)
    return replace(spec, partial=lambda: PartialOutput(output, wrapped=wrapped))


class _Check:
    """Reads an output of a type from a model's text.

    Valid text is read by the validator alone. Where the output as JSON is again that text, or
    its value, there was nothing else in it: no key twice, no date made of digits, no repair.
    """

    def __init__(self, validator: SchemaValidator, schema: JsonObject, *, wrapped: bool) -> None:
        self._validator = validator
        self._checker = TypeChecker(validator, schema)
        self._place = ("value",) if wrapped else ()

    def __call__(self, text: str) -> tuple[Any, Place]:
        """Return the output in a text, and its place there; see `OutputSpec`."""
        value, own = None, b""
        with contextlib.suppress(Exception):  # the second look finds what is wrong
            value = self._output(self._validator.validate_json(text, strict=True))
            own = to_json(value, bytes_mode="base64")  # as a trace has it
        if self._place:
            own = b'{"value":%b}' % own
        if own == text.encode(errors="replace") and is_simple(text):
            return value, self._place
        data, repairs = load(text, blank=False)
        if not repairs and own == to_json(data):
            return value, self._place
        return self._output(fit(self._checker, data)[0]), None

    def _output(self, value: Any) -> Any:
        return value.value if self._place else value


class _Closed:
    """A type whose dataclasses and TypedDicts refuse unknown keys, unless they say otherwise.

    A misspelt key would be dropped silently. pydantic takes no config for a bare one of those.
    """

    def __init__(self, output: Any) -> None:
        self._output = output

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self._output)


def spec_of_schema(
    name: str,
    schema: JsonObject,
    check: Callable[[str], tuple[Any, Place]],
    profile: Profile,
    requested: Mode = "auto",
) -> OutputSpec[Any]:
    """Build the spec of an output that a JSON Schema of an object describes."""
    mode = profile.output_modes[0] if requested == "auto" else requested
    try:
        sent, strict = strict_form(schema), True
    except NotStrict:
        sent, strict = schema, False
    if mode == "native":
        form = OutputFormat(kind="json_schema", name=name, schema=sent, strict=strict)
        return OutputSpec(check=check, schema=schema, format=form)
    if mode == "tool":
        tool = ToolDefinition(
            name=OUTPUT_TOOL,
            description="Give the final answer. Call this once, when you are done.",
            parameters=sent,
            strict=strict,
        )
        return OutputSpec(check=check, schema=schema, tool=tool)
    instructions = (
        "Answer with one JSON object and nothing else. It must match this JSON Schema:\n"
        + json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    )
    form = OutputFormat(kind="json_object") if mode == "json" else None
    return OutputSpec(check=check, schema=schema, format=form, instructions=instructions)


def _name(output: Any) -> str:
    """Return the schema's name on the wire: letters, digits, _ and -, at most 64."""
    name = getattr(output, "__name__", "output")
    return re.sub("[^a-zA-Z0-9_-]", "_", name)[:64] or "output"
