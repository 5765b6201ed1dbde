"""Build the `OutputSpec` of an output type: how to request it, and how to check it.

It is built once per agent. Everything in it is pure, so the loop uses it directly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeAlias, cast

from pydantic import TypeAdapter, create_model
from pydantic.errors import PydanticUserError

from agentkit.core.spec import OutputSpec
from agentkit.errors import ConfigurationError
from agentkit.messages import JsonObject, OutputFormat, ToolDefinition
from agentkit.models.profiles import OutputMode, Profile
from agentkit.output.partial import PartialOutput
from agentkit.schema.repair import load
from agentkit.schema.strict import NotStrict, strict_form
from agentkit.tools.annotations import accepted
from agentkit.tools.raw import compiled, pointer
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
        self.schema = schema
        self.name = name
        self._validator = compiled(name, schema)

    def check(self, text: str) -> Any:
        """Parse and check a JSON text.

        Raises:
            ValueError: The value does not match the schema; the text says where and why.
        """
        value = json.loads(text)
        errors = [*self._validator.iter_errors(value)]
        if errors:
            lines = [f"- {pointer(one.instance_path)}: {one.message}" for one in errors[:10]]
            raise ValueError("\n".join(lines))
        return value


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
        return OutputSpec(check=str)
    if isinstance(output, JsonSchema):
        return spec_of_schema(output.name, output.schema, output.check, profile, mode)
    try:
        output = accepted(output)
        adapter: TypeAdapter[Any] = TypeAdapter(output)
        schema = adapter.json_schema()
        wrapped = schema.get("type") != "object"
        if wrapped:
            # Servers require an object at the root: another type becomes its one property.
            adapter = TypeAdapter(create_model("Output", value=(output, ...)))
            schema = adapter.json_schema()
    except PydanticUserError as error:
        raise ConfigurationError(
            f"output={output!r} has no JSON Schema: {error.message}. Use a pydantic model, a "
            "dataclass, a TypedDict or another type that pydantic can describe."
        ) from error

    checker = TypeChecker(cast("Any", adapter.validator), schema)

    def check(text: str) -> Any:
        data, repairs = load(text)
        value: Any = fit(checker, data, json.dumps(data) if repairs else text)[0]
        return value.value if wrapped else value

    spec = spec_of_schema(_name(output), schema, check, profile, mode)
    return replace(spec, partial=lambda: PartialOutput(output, wrapped=wrapped))


def spec_of_schema(
    name: str,
    schema: JsonObject,
    check: Callable[[str], Any],
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
