"""The strict form of a JSON Schema: the subset that servers enforce while decoding.

Rules: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
Every property is required, what was optional may be null, objects are closed.
What the subset cannot say is either checked afterwards anyway, and moves into
the description, or is a reason not to be strict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agentkit.messages import JsonObject

__all__ = ["NotStrict", "strict_form"]


class NotStrict(ValueError):
    """A schema that has no strict form. The message is the reason."""


_DEPTH, _PROPERTIES, _ENUM = 10, 5_000, 1_000
_KEPT = frozenset(
    "type enum const description pattern format multipleOf minimum maximum exclusiveMinimum "
    "exclusiveMaximum minItems maxItems".split()
)
_DROPPED = frozenset("title $schema $id $comment $anchor discriminator deprecated readOnly writeOnly".split())
_HANDLED = frozenset(
    "properties required additionalProperties items anyOf oneOf allOf $ref $defs definitions".split()
)
_NOTED = frozenset(
    "default examples minLength maxLength uniqueItems minProperties maxProperties "
    "contentEncoding contentMediaType contentSchema".split()
)
_FORMATS = frozenset("date-time time date duration email hostname ipv4 ipv6 uuid".split())
_TYPES = frozenset("string number boolean integer object array null".split())


def strict_form(schema: Mapping[str, Any]) -> JsonObject:
    """The strict form of an object schema.

    Null stands for "not given" where a property was optional.

    Raises:
        NotStrict: There is none. The message says where and why.
    """
    return _Strict(schema).form()


class _Strict:
    """One conversion: the definitions of a schema, and how deep and large they are."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._root = schema
        self._defs: dict[str, Any] = {**schema.get("definitions", {}), **schema.get("$defs", {})}
        self._sizes: dict[str, tuple[int, int]] = {}

    def form(self) -> JsonObject:
        root = dict(self._root)
        if "$ref" in root:
            target, seen = root, set[str]()
            while (ref := target.get("$ref")) is not None:
                if ref in seen:
                    raise NotStrict("the root refers to itself")
                seen.add(ref)
                target = self._target(ref, "the root")
            root = target | {k: v for k, v in root.items() if k == "description"}
        if root.get("type") != "object":
            raise NotStrict("the root is not an object")
        self._measure(root, "the root", ())
        result = self._schema(root, "")
        used: dict[str, Any] = {}
        pending = _refs(result)
        while pending:
            name = pending.pop()
            if name not in used and name != "#":
                used[name] = self._schema(self._defs[name], f"$defs.{name}")
                pending |= _refs(used[name])
        if used:
            result["$defs"] = {name: used[name] for name in self._defs if name in used}
        return result

    def _target(self, ref: str, where: str) -> JsonObject:
        if ref == "#":
            return dict(self._root)
        prefix, _, name = ref.rpartition("/")
        name = name.replace("~1", "/").replace("~0", "~")
        if prefix not in ("#/$defs", "#/definitions") or name not in self._defs:
            raise NotStrict(f"{where} refers to {ref}, which is not among its definitions")
        if not isinstance(self._defs[name], Mapping):
            raise NotStrict(f"{where} may be anything")
        return self._defs[name]

    def _measure(self, schema: Any, where: str, above: tuple[str, ...]) -> tuple[int, int]:
        """Depth and number of properties with every reference followed (once, if recursive)."""
        if not isinstance(schema, Mapping):
            return 0, 0
        if (ref := schema.get("$ref")) is not None:
            if ref in above:
                return 0, 0
            if ref not in self._sizes:
                target = self._target(ref, where)
                self._sizes[ref] = self._measure(target, where, (*above, ref))
            return self._sizes[ref]
        properties = schema.get("properties", {})
        inner = [*properties.values(), schema.get("items"), schema.get("additionalProperties")]
        for key in ("anyOf", "oneOf", "allOf"):
            inner += schema.get(key, ())
        sizes = [self._measure(item, where, above) for item in inner]
        level = schema.get("type") in ("object", "array")
        depth = max((d for d, _ in sizes), default=0) + level
        count = sum(n for _, n in sizes) + len(properties)
        if depth > _DEPTH:
            raise NotStrict(f"it is nested more than {_DEPTH} levels deep")
        if count > _PROPERTIES:
            raise NotStrict(f"it has more than {_PROPERTIES:,} properties")
        return depth, count

    def _schema(self, schema: Any, where: str) -> JsonObject:
        shown = where or "the root"
        if not isinstance(schema, Mapping) or not schema.keys() - _DROPPED - _NOTED - {"description"}:
            raise NotStrict(f"{shown} may be anything")
        unknown = schema.keys() - _KEPT - _DROPPED - _HANDLED - _NOTED
        if unknown := {key for key in unknown if not key.startswith("x-")}:
            raise NotStrict(f"{shown} uses {', '.join(sorted(unknown))}")
        schema, notes = self._plain(dict(schema), shown), {}
        for key in (*sorted(_NOTED), "format", "pattern"):
            if key in schema and not _allowed(key, schema[key]):
                notes[key] = schema[key]
        result = {k: v for k, v in schema.items() if k in _KEPT and k not in notes}
        if "$ref" in schema:
            self._target(schema["$ref"], shown)
            ref = {"$ref": schema["$ref"].replace("#/definitions/", "#/$defs/")}
            result = {**result, "anyOf": [ref]} if result or notes else ref
        elif (options := schema.get("anyOf", schema.get("oneOf"))) is not None:
            result["anyOf"] = [self._schema(one, where) for one in options]
        else:
            self._typed(schema, result, where)
        if notes:
            said = ", ".join(f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in notes.items())
            result["description"] = f"{result.get('description', '')} ({said})".strip()
        return result

    def _plain(self, schema: JsonObject, where: str) -> JsonObject:
        """Without `allOf`, which may only wrap one schema."""
        parts = schema.pop("allOf", None)
        if parts is None:
            return schema
        if len(parts) != 1 or (parts[0].keys() & schema.keys() - {"description", "title", "default"}):
            raise NotStrict(f"{where} combines schemas with allOf")
        return {**parts[0], **schema}

    def _typed(self, schema: JsonObject, result: JsonObject, where: str) -> None:
        shown = where or "the root"
        if "enum" in result:
            result["enum"] = list({json.dumps(v): v for v in result["enum"]}.values())
            if len(result["enum"]) > _ENUM:
                raise NotStrict(f"{shown} has more than {_ENUM:,} allowed values")
            result.setdefault("type", _types(result["enum"]))
        elif "const" in result:
            result.setdefault("type", _types([result["const"]]))
        types = result.get("type")
        names = types if isinstance(types, list) else [types]
        if not names or not set(names) <= _TYPES:
            raise NotStrict(f"{shown} has no type")
        if "object" in names and "enum" not in result:
            self._object(schema, result, where)
        if "array" in names and "enum" not in result:
            if "items" not in schema:
                raise NotStrict(f"{shown} has items of any type")
            result["items"] = self._schema(schema["items"], f"{where}[]")

    def _object(self, schema: JsonObject, result: JsonObject, where: str) -> None:
        properties = schema.get("properties")
        if schema.get("additionalProperties") or properties is None:
            raise NotStrict(f"{where or 'the root'} takes keys of any name")
        required = schema.get("required", ())
        shaped: JsonObject = {}
        for name, one in properties.items():
            inner = self._schema(one, f"{where}.{name}".lstrip("."))
            shaped[name] = inner if name in required else _nullable(inner)
        result["properties"] = shaped
        result["required"] = list(shaped)
        result["additionalProperties"] = False


def _allowed(key: str, value: Any) -> bool:
    if key == "format":
        return value in _FORMATS
    return key == "pattern" and not any(look in value for look in ("(?=", "(?!", "(?<"))


def _nullable(schema: JsonObject) -> JsonObject:
    null = {"type": "null"}
    if "anyOf" in schema:
        if null in schema["anyOf"]:
            return schema
        return {**schema, "anyOf": [*schema["anyOf"], null]}
    if "type" not in schema or "const" in schema:
        described = {k: v for k, v in schema.items() if k == "description"}
        bare = {k: v for k, v in schema.items() if k != "description"}
        return {**described, "anyOf": [bare, null]}
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "null" in types:
        return schema
    result = {**schema, "type": [*types, "null"]}
    if "enum" in schema:
        result["enum"] = [*schema["enum"], None]
    return result


def _types(values: list[Any]) -> Any:
    names = list(dict.fromkeys(_type(value) for value in values))
    return names[0] if len(names) == 1 else names


def _type(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case str():
            return "string"
        case int():
            return "integer"
        case float():
            return "number"
        case None:
            return "null"
        case list():
            return "array"
        case _:
            return "object"


def _refs(schema: Any) -> set[str]:
    """The names of the definitions that a strict schema refers to."""
    if isinstance(schema, list):
        return set[str]().union(*(_refs(item) for item in schema))
    if not isinstance(schema, Mapping):
        return set()
    found = set[str]().union(*(_refs(item) for item in schema.values()))
    ref = schema.get("$ref")
    if isinstance(ref, str):
        found.add(ref.rpartition("/")[2].replace("~1", "/").replace("~0", "~"))
    return found
