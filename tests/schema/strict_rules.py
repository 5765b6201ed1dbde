"""The published rules of strict schemas, checked without the code that makes them.

https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

KEYWORDS = {
    *("type", "properties", "required", "additionalProperties", "items", "anyOf", "$ref", "$defs"),
    *("enum", "const", "description", "pattern", "format", "multipleOf", "minimum", "maximum"),
    *("exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"),
}
TYPES = {"string", "number", "boolean", "integer", "object", "array", "null"}
FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}


def faults(form: dict[str, Any]) -> list[str]:
    """Return what a server would refuse in a strict schema."""
    found: list[str] = []
    if form.get("type") != "object" or "anyOf" in form or "$ref" in form:
        found.append("the root is not an object")
    schemas = [*_schemas(form, "#")]
    for place, schema in schemas:
        found += [f"{place}: {fault}" for fault in _faults(schema, form)]
    enums = [schema["enum"] for _, schema in schemas if "enum" in schema]
    constants = [schema["const"] for _, schema in schemas if "const" in schema]
    names = [name for _, schema in schemas for name in schema.get("properties", ())]
    found += ["too many properties"] * (len(names) > 5_000)
    found += ["too many enum values"] * (sum(map(len, enums)) > 1_000)
    values = [value for enum in enums for value in enum] + constants
    everything = [*names, *form.get("$defs", ()), *map(_text, values)]
    found += ["too many characters"] * (sum(map(len, everything)) > 120_000)
    long = [enum for enum in enums if len(enum) > 250 and sum(map(len, map(_text, enum))) > 15_000]
    found += ["too long an enum"] * len(long)
    found += ["too deep"] * (_depth(form, form, ()) > 10)
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _schemas(schema: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield place, schema
    for key in ("properties", "$defs"):
        for name, one in schema.get(key, {}).items():
            yield from _schemas(one, f"{place}/{key}/{name}")
    if "items" in schema:
        yield from _schemas(schema["items"], f"{place}/items")
    for index, one in enumerate(schema.get("anyOf", ())):
        yield from _schemas(one, f"{place}/anyOf/{index}")


def _target(ref: str, root: dict[str, Any]) -> dict[str, Any] | None:
    name = ref.removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")
    return root if ref == "#" else root.get("$defs", {}).get(name)


def _faults(schema: dict[str, Any], root: dict[str, Any]) -> list[str]:
    found = [f"keyword {key}" for key in schema.keys() - KEYWORDS]
    if "$ref" in schema:
        found += ["reference to nothing"] * (_target(schema["$ref"], root) is None)
        return found + ["beside a reference"] * (schema.keys() != {"$ref"})
    if "anyOf" in schema:
        return found + ["beside anyOf"] * (not schema.keys() <= {"anyOf", "description", "$defs"})
    types = schema.get("type")
    types = types if isinstance(types, list) else [types]
    if not types or not TYPES.issuperset(types) or len(set(types)) < len(types):
        found.append("no type")
    if "object" in types:
        found += ["open"] * (schema.get("additionalProperties") is not False)
        found += ["not required"] * (list(schema.get("properties", ())) != schema.get("required"))
    elif schema.keys() & {"properties", "required", "additionalProperties"}:
        found.append("properties of what is no object")
    found += ["items"] * (("array" in types) != ("items" in schema))
    for bound in ("exclusiveMinimum", "exclusiveMaximum"):
        found += [f"{bound} is a flag"] * isinstance(schema.get(bound), bool)
    for value in schema.get("enum", [schema["const"]] if "const" in schema else []):
        found += [f"{value!r} is none of {types}"] * (not any(_is(value, one) for one in types))
    found += ["unknown format"] * (schema.get("format", "date") not in FORMATS)
    return found


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    whole = isinstance(value, (int, float)) and float(value).is_integer()
    classes: dict[str, Any] = {"string": str, "null": type(None), "number": (int, float)}
    return whole if kind == "integer" else isinstance(value, classes.get(kind, ()))


def _depth(schema: dict[str, Any], root: dict[str, Any], above: tuple[str, ...]) -> int:
    if (ref := schema.get("$ref")) is not None:
        return 0 if ref in above else _depth(_target(ref, root) or {}, root, (*above, ref))
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    inner += [schema["items"]] if "items" in schema else []
    here = "properties" in schema or "items" in schema
    return here + max((_depth(one, root, above) for one in inner), default=0)
