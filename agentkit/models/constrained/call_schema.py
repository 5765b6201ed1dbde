"""The one JSON Schema for tool calls or an answer, in a constrained request.

{"calls": [{"tool": "get_weather", "arguments": {…}}, …]}   or   {"answer": …}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentkit.messages import JsonObject, ToolDefinition
from agentkit.schema.walk import definitions, mapped


def call_schema(
    tools: Sequence[ToolDefinition], answer: JsonObject | None, most: int
) -> JsonObject:
    """Describe an object with up to `most` calls or, unless `answer` is None, an answer."""
    defs: JsonObject = {}
    calls = [
        _closed(
            tool={"type": "string", "const": tool.name},
            arguments=_part(tool.parameters, f"t{index}", defs),
        )
        for index, tool in enumerate(tools)
    ]
    items = calls[0] if len(calls) == 1 else {"anyOf": calls}
    schema = _closed(calls={"type": "array", "minItems": 1, "maxItems": most, "items": items})
    if answer is not None:
        schema = {"anyOf": [schema, _closed(answer=_part(answer, "answer", defs))]}
    return schema | {"$defs": defs} if defs else schema


def _closed(**properties: JsonObject) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _part(schema: JsonObject, scope: str, defs: JsonObject) -> JsonObject:
    """Return the schema as part of a larger one, with its definitions moved into `defs`.

    `#/$defs/City` becomes `#/$defs/t0_City`. A reference to another place in the
    schema makes the schema itself a definition, `#/$defs/t0`, and starts from there.
    """
    own = {key: value for key, value in schema.items() if key not in ("$defs", "definitions")}
    own_definitions = {f"{scope}_{name}": body for name, body in definitions(schema).items()}
    root = f"#/$defs/{scope}"
    refers_to_root = False

    def move(one: JsonObject) -> JsonObject:
        nonlocal refers_to_root
        match one.get("$ref"):
            case str(ref) if ref.startswith(("#/$defs/", "#/definitions/")):
                return one | {"$ref": f"{root}_{ref.split('/', 2)[2]}"}
            case str(ref) if ref == "#" or ref.startswith("#/"):
                refers_to_root = True
                return one | {"$ref": root + ref[1:]}
            case _:
                return one

    moved: Any = mapped(own, move)
    defs |= {name: mapped(body, move) for name, body in own_definitions.items()}
    if refers_to_root:
        defs[scope] = moved
        return {"$ref": root}
    return moved
