"""Walk through a JSON Schema, look up the schemas of a value, tidy a generated schema."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agentkit.messages import JsonObject, is_array, is_object

_ONE = (
    *("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties", "additionalItems", "contentSchema"),
)
_LIST = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_MAP = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


def mapped(schema: Any, change: Callable[[JsonObject], JsonObject]) -> Any:
    """Return a copy with `change` applied to every schema in it, the innermost first.

    Values that only look like schemas, as in `default` or `enum`, are left alone.
    """
    if not is_object(schema):
        return schema
    copy = dict(schema)
    for key in _ONE:
        if is_object(inner := copy.get(key)):
            copy[key] = mapped(inner, change)
    for key in _LIST:
        if is_array(inner := copy.get(key)):
            copy[key] = [mapped(one, change) for one in inner]
    for key in _MAP:
        if is_object(inner := copy.get(key)):
            copy[key] = {name: mapped(one, change) for name, one in inner.items()}
    return change(copy)


def subschemas(schema: JsonObject) -> Iterator[JsonObject]:
    """Iterate over the schema and every schema in it, the innermost first."""
    found: list[JsonObject] = []

    def see(one: JsonObject) -> JsonObject:
        found.append(one)
        return one

    mapped(schema, see)
    return iter(found)


def definitions(schema: JsonObject) -> JsonObject:
    """Return the definitions of a root schema, under either of their two keywords."""
    return {**schema.get("definitions", {}), **schema.get("$defs", {})}


def ref_name(schema: JsonObject) -> str | None:
    """Return the name of the definition in the schema's `$ref`, or None."""
    match = re.fullmatch(r"#/(?:\$defs|definitions)/([^/]*)", str(schema.get("$ref")))
    return match and match[1].replace("~1", "/").replace("~0", "~")


def at(schema: JsonObject, path: Sequence[str | int]) -> list[JsonObject]:
    """Return the schemas that may apply to a value at `path`: several in a union."""
    defs = {**definitions(schema), "#": schema}
    schemas = _alternatives(schema, defs)
    for step in path:
        inner = [_child(outer, step) for outer in schemas]
        schemas = [one for schema in inner for one in _alternatives(schema, defs)]
    return schemas


def _alternatives(
    schema: Any, defs: JsonObject, seen: frozenset[str] = frozenset()
) -> list[JsonObject]:
    if not is_object(schema):
        return []
    name = "#" if schema.get("$ref") == "#" else ref_name(schema)
    if name in defs and name not in seen:
        return _alternatives(defs[name], defs, seen | {name})
    branches = [one for key in ("anyOf", "oneOf", "allOf") for one in schema.get(key, ())]
    return [schema, *(one for branch in branches for one in _alternatives(branch, defs, seen))]


def _child(schema: JsonObject, step: str | int) -> Any:
    if isinstance(step, str):
        return schema.get("properties", {}).get(step, schema.get("additionalProperties"))
    prefix = schema.get("prefixItems", ())
    return prefix[step] if step < len(prefix) else schema.get("items")


def tidied(schema: JsonObject) -> JsonObject:
    """Return the schema without what nobody writes by hand.

    Definitions that are used once are inlined, titles made of class names and
    OpenAPI's `discriminator` are dropped, and the type comes first.
    """
    defs = definitions(schema)
    uses = Counter(map(ref_name, subschemas(schema)))

    def change(one: JsonObject) -> JsonObject:
        one.pop("discriminator", None)
        name = ref_name(one)
        if name is None or uses[name] > 1 or name not in defs:
            return {key: one[key] for key in ("type", "description") if key in one} | one
        siblings = {key: value for key, value in one.items() if key != "$ref"}
        return {**mapped(_untitled(name, defs[name]), change), **siblings}

    kept = {name: _untitled(name, one) for name, one in defs.items() if uses[name] > 1}
    root = {key: value for key, value in schema.items() if key != "$defs"}
    return mapped(root | ({"$defs": kept} if kept else {}), change)


def _untitled(name: str, schema: JsonObject) -> JsonObject:
    title = re.sub(r"\W", "_", str(schema.get("title")))
    if not re.search(rf"(?:^|_){title}(?:_|$)", name):
        return schema
    return {key: value for key, value in schema.items() if key != "title"}
