"""The output type: how to ask for it, how to check it, what to say when it is wrong.

An `OutputSpec` is built once per agent. Everything in it is pure, so the loop
uses it directly.
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

__all__ = [
    "OUTPUT_TOOL",
    "JsonSchema",
    "output_spec",
    "spec_of_schema",
]

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
        name: What the server is told it is called.

    Raises:
        InvalidTool: The schema is not valid.
    """

    def __init__(self, schema: JsonObject, name: str = "output") -> None:
        self.schema = schema
        self.name = name
        self._validator = compiled(name, schema)

    def check(self, text: str) -> Any:
        """The value of a JSON text that fits.

        Raises:
            ValueError: It does not fit; the text says where and why.
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
        profile: What the model's server supports.
        mode: How to ask; `auto` takes the profile's best.

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
        bare = schema.get("type") != "object"
        if bare:
            # Servers want an object at the root: another type becomes its one property.
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
        return value.value if bare else value

    spec = spec_of_schema(_name(output), schema, check, profile, mode)
    return replace(spec, partial=lambda: PartialOutput(output, bare=bare))


def spec_of_schema(
    name: str,
    schema: JsonObject,
    check: Callable[[str], Any],
    profile: Profile,
    asked: Mode = "auto",
) -> OutputSpec[Any]:
    """The spec of an output that a JSON Schema of an object describes."""
    mode = profile.output_modes[0] if asked == "auto" else asked
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
    told = (
        "Answer with one JSON object and nothing else. It must fit this JSON Schema:\n"
        + json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    )
    form = OutputFormat(kind="json_object") if mode == "json" else None
    return OutputSpec(check=check, schema=schema, format=form, instructions=told)


def _name(output: Any) -> str:
    """The schema's name on the wire: letters, digits, _ and -, at most 64 of them."""
    name = getattr(output, "__name__", "output")
    return re.sub("[^a-zA-Z0-9_-]", "_", name)[:64] or "output"
