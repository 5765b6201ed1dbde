"""A JSON Schema as one short line of text, for models that read it in a prompt.

`{"type": "object", "properties": {"city": {"type": "string"}}}` is
`{city?: string}`. A tool's schema costs a few tokens in this form, and small
models follow it better than the schema itself. Ranges and patterns have no short form;
they are left to the code that enforces the schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from agentkit.messages import JsonObject
from agentkit.schema.walk import definitions, ref_name

_DEEPEST = 4
"""Levels of objects that are written out; deeper ones are `object`. This also ends recursion."""


def shape_of(schema: Any) -> str:
    """Return the schema as one line in the style of TypeScript, with references resolved."""
    return _shape(schema, schema, 0)


def fields_of(schema: JsonObject) -> str:
    """Return the properties of an object schema without braces, as in a signature."""
    return _fields(schema, schema, 0)


def _shape(schema: Any, root: Any, depth: int) -> str:
    match schema:
        case {"$ref": _}:
            name = ref_name(schema)
            body = definitions(root).get(name) if name else None
            return "any" if body is None or depth > _DEEPEST else _shape(body, root, depth + 1)
        case {"const": value}:
            return _json(value)
        case {"enum": [*values]}:
            return _union(_json(value) for value in values)
        case {"anyOf": [*options]} | {"oneOf": [*options]}:
            return _union(_shape(option, root, depth) for option in options)
        case {"type": [*types]}:
            untyped = {key: value for key, value in schema.items() if key != "type"}
            return _union(_shape({**untyped, "type": one}, root, depth) for one in types)
        case {"type": "array"}:
            items = _shape(schema.get("items"), root, depth)
            return f"({items})[]" if " | " in items else f"{items}[]"
        case {"properties": {**properties}} if properties and depth < _DEEPEST:
            return "{" + _fields(schema, root, depth + 1) + "}"
        case {"type": "object", "additionalProperties": {**values}} if depth < _DEEPEST:
            return "{[name]: " + _shape(values, root, depth + 1) + "}"
        case {"type": str(name)}:
            return name
        case _:
            return "any"


def _fields(schema: JsonObject, root: Any, depth: int) -> str:
    required: list[str] = schema.get("required") or []
    properties: dict[str, Any] = schema.get("properties") or {}
    return ", ".join(
        f"{name}{'' if name in required else '?'}: {_shape(one, root, depth)}"
        for name, one in properties.items()
    )


def _union(shapes: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(shapes))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
