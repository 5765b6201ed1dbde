"""JSON Schemas as values: walking through one, and tidying what a generator made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agentkit.messages import JsonObject

__all__ = ["at", "definitions", "mapped", "ref_name", "subschemas", "tidied"]

_ONE = (
    *("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties", "additionalItems", "contentSchema"),
)
_LIST = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_MAP = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


def subschemas(schema: Any) -> Iterator[Any]:
    """The schemas directly inside a schema (not what only looks like one, as in `default`)."""
    if not isinstance(schema, Mapping):
        return
    for key in _ONE:
        if isinstance(schema.get(key), Mapping):
            yield schema[key]
    for key in _LIST:
        if isinstance(schema.get(key), list):
            yield from schema[key]
    for key in _MAP:
        if isinstance(schema.get(key), Mapping):
            yield from schema[key].values()


def mapped(schema: Any, change: Callable[[JsonObject], JsonObject]) -> Any:
    """A copy with `change` made to every schema in it, the innermost first."""
    if not isinstance(schema, Mapping):
        return schema
    copy = dict(schema)
    for key in _ONE:
        if isinstance(copy.get(key), Mapping):
            copy[key] = mapped(copy[key], change)
    for key in _LIST:
        if isinstance(copy.get(key), list):
            copy[key] = [mapped(one, change) for one in copy[key]]
    for key in _MAP:
        if isinstance(copy.get(key), Mapping):
            copy[key] = {name: mapped(one, change) for name, one in copy[key].items()}
    return change(copy)


def definitions(schema: Mapping[str, Any]) -> JsonObject:
    """The definitions of a root schema, under either of their two names."""
    return {**schema.get("definitions", {}), **schema.get("$defs", {})}


def ref_name(ref: Any) -> str | None:
    """The definition that a `$ref` names, or None if it points elsewhere."""
    found = re.fullmatch(r"#/(\$defs|definitions)/([^/]*)", str(ref))
    return found and found[2].replace("~1", "/").replace("~0", "~")


def at(schema: Mapping[str, Any], path: Sequence[str | int]) -> list[Mapping[str, Any]]:
    """The schemas that a value at `path` may have to fit: several where there are unions."""
    defs = definitions(schema)
    found = _alternatives(schema, defs)
    for step in path:
        inner = [one for outer in found for one in _inside(outer, step)]
        found = [one for schema in inner for one in _alternatives(schema, defs)]
    return found


def _alternatives(
    schema: Any, defs: JsonObject, seen: frozenset[str] = frozenset()
) -> list[Mapping[str, Any]]:
    if not isinstance(schema, Mapping):
        return []
    name = ref_name(schema.get("$ref"))
    if name in defs and name not in seen:
        return _alternatives(defs[name], defs, seen | {name})
    branches = [one for key in ("anyOf", "oneOf", "allOf") for one in schema.get(key, ())]
    return [schema, *(one for branch in branches for one in _alternatives(branch, defs, seen))]


def _inside(schema: Mapping[str, Any], step: str | int) -> list[Any]:
    if isinstance(step, str):
        properties = schema.get("properties", {})
        return [properties[step] if step in properties else schema.get("additionalProperties")]
    prefix = schema.get("prefixItems", ())
    return [prefix[step] if step < len(prefix) else schema.get("items")]


def tidied(schema: JsonObject) -> JsonObject:
    """Without what nobody writes by hand.

    Definitions that are used once stand where they are used; titles made of
    class names, and OpenAPI's `discriminator`, are left out.
    """
    defs = definitions(schema)
    uses: Counter[str | None] = Counter()
    _count(schema, uses)

    def change(one: JsonObject) -> JsonObject:
        one.pop("discriminator", None)
        name = ref_name(one.get("$ref"))
        if name is None or uses[name] != 1 or name not in defs:
            first = {key: one[key] for key in ("type", "description") if key in one}
            return first | one
        siblings = {key: value for key, value in one.items() if key != "$ref"}
        return {**mapped(_untitled(name, defs[name]), change), **siblings}

    kept = {name: _untitled(name, one) for name, one in defs.items() if uses[name] > 1}
    root = {key: value for key, value in schema.items() if key != "$defs"}
    return mapped(root | ({"$defs": kept} if kept else {}), change)


def _count(schema: Any, uses: Counter[str | None]) -> None:
    if isinstance(schema, Mapping) and "$ref" in schema:
        uses[ref_name(schema["$ref"])] += 1
    for one in subschemas(schema):
        _count(one, uses)


def _untitled(name: str, schema: JsonObject) -> JsonObject:
    made_of_name = re.sub(r"\W", "_", str(schema.get("title")))
    if not name.endswith(made_of_name):
        return schema
    return {key: value for key, value in schema.items() if key != "title"}
