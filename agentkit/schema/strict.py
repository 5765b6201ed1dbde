"""The strict form of a JSON Schema: the subset that servers enforce while decoding.

Rules: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
Every property is required, optional ones may be null, and objects are closed.
A keyword outside the subset moves into the description if the answer is validated
against it anyway; otherwise the schema has no strict form.
"""

from __future__ import annotations

import json
from typing import Any

from agentkit.messages import JsonObject, is_array, is_object
from agentkit.schema.walk import definitions, ref_name, subschemas

_DEPTH, _PROPERTIES, _VALUES = 10, 5_000, 1_000
_KEPT = frozenset(
    "type enum const description pattern format multipleOf minimum maximum exclusiveMinimum "
    "exclusiveMaximum minItems maxItems".split()
)
_TRANSLATED = frozenset(
    "properties required additionalProperties items anyOf oneOf allOf $ref $defs "
    "definitions".split()
)
_NOTED = frozenset(
    "default examples minLength maxLength uniqueItems minProperties maxProperties contentEncoding "
    "contentMediaType contentSchema".split()
)
_DROPPED = frozenset(
    "title $schema $id $comment $anchor discriminator deprecated readOnly writeOnly".split()
)
_KNOWN = _KEPT | _TRANSLATED | _NOTED | _DROPPED
_ANNOTATIONS = _NOTED | _DROPPED | {"description"}
_FORMATS = frozenset("date-time time date duration email hostname ipv4 ipv6 uuid".split())
_TYPES = frozenset("string number boolean integer object array null".split())
_NULL: JsonObject = {"type": "null"}


class NotStrict(ValueError):
    """The reason why a schema has no strict form."""


def strict_form(schema: JsonObject) -> JsonObject:
    """Return the strict form of an object schema, in which null means "left out".

    Raises:
        NotStrict: The schema has no strict form. The message names the place and the reason.
    """
    try:
        return _Strict(schema).form()
    except RecursionError:
        raise NotStrict(f"it is nested more than {_DEPTH} levels deep") from None


class _Strict:
    """One conversion: a root schema, its definitions, and the size of each."""

    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._defs = definitions(root)
        self._sizes: dict[str, tuple[int, int]] = {}

    def form(self) -> JsonObject:
        root = self._resolved(self._root)
        if root.get("type") != "object":
            raise NotStrict("the root is not an object")
        self._size(root)
        result = self._schema(root, "")
        used: JsonObject = {}
        pending = [result]
        while pending:
            for one in subschemas(pending.pop()):
                name = ref_name(one)
                if name is not None and name not in used:
                    used[name] = self._schema(self._defs[name], f"$defs.{name}")
                    pending.append(used[name])
        if used:
            result["$defs"] = {name: used[name] for name in self._defs if name in used}
        return result

    def _resolved(self, root: JsonObject) -> JsonObject:
        """Resolve a root that is only a reference: a strict root must not be one."""
        seen: set[Any] = set()
        while (ref := root.get("$ref")) is not None:
            if ref in seen or ref == "#":
                raise NotStrict("the root refers to itself")
            seen.add(ref)
            described = {"description": root["description"]} if "description" in root else {}
            root = self._target(root, "the root") | described
        return root

    def _target(self, schema: JsonObject, where: str) -> JsonObject:
        """Return the schema that the `$ref` refers to."""
        if schema["$ref"] == "#":
            return self._root
        name = ref_name(schema)
        if name not in self._defs:
            raise NotStrict(f"{where} refers to {schema['$ref']!r}, which is not a definition")
        if not is_object(target := self._defs[name]):
            raise NotStrict(f"{where} may be anything")
        return target

    def _size(self, schema: Any, above: tuple[str, ...] = ()) -> tuple[int, int]:
        """Return depth and number of properties, following each reference once."""
        if not is_object(schema):
            return 0, 0
        if (ref := schema.get("$ref")) is not None:
            if ref not in self._sizes and ref not in above:
                target = self._root if ref == "#" else self._defs.get(ref_name(schema) or "")
                self._sizes[ref] = self._size(target, (*above, ref))
            return self._sizes.get(ref, (0, 0))
        properties = schema.get("properties", {})
        inner = [*properties.values(), schema.get("items"), schema.get("additionalProperties")]
        for key in ("anyOf", "oneOf", "allOf"):
            inner += schema.get(key, ())
        sizes = [self._size(one, above) for one in inner]
        depth = max(depth for depth, _ in sizes) + ("properties" in schema or "items" in schema)
        count = sum(count for _, count in sizes) + len(properties)
        if depth > _DEPTH:
            raise NotStrict(f"it is nested more than {_DEPTH} levels deep")
        if count > _PROPERTIES:
            raise NotStrict(f"it has more than {_PROPERTIES:,} properties")
        return depth, count

    def _schema(self, schema: Any, where: str) -> JsonObject:
        shown = where or "the root"
        if not is_object(schema) or not schema.keys() - _ANNOTATIONS:
            raise NotStrict(f"{shown} may be anything")
        if unknown := {key for key in schema.keys() - _KNOWN if not key.startswith("x-")}:
            raise NotStrict(f"{shown} uses {', '.join(sorted(unknown))}")
        schema = _merged(schema, shown)
        notes = _notes(schema)
        result = {key: schema[key] for key in schema if key in _KEPT and key not in notes}
        if notes:
            text = ", ".join(f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in notes.items())
            result["description"] = f"{schema.get('description', '')} ({text})".strip()
        if "$ref" in schema:
            self._target(schema, shown)
            ref = {"$ref": schema["$ref"].replace("#/definitions/", "#/$defs/")}
            return {**result, "anyOf": [ref]} if result else ref  # a $ref may have no siblings
        if is_array(options := schema.get("anyOf", schema.get("oneOf"))):
            return {**result, "anyOf": [self._schema(one, where) for one in options]}
        return self._typed(schema, result, where)

    def _typed(self, schema: JsonObject, result: JsonObject, where: str) -> JsonObject:
        shown = where or "the root"
        values = result.get("enum", [result["const"]] if "const" in result else None)
        if values is not None:
            if len(values) > _VALUES:
                raise NotStrict(f"{shown} has more than {_VALUES:,} allowed values")
            types = list(dict.fromkeys(map(_type, values)))
            result.setdefault("type", types[0] if len(types) == 1 else types)
        types = _types(result)
        if not types or not _TYPES.issuperset(types):
            raise NotStrict(f"{shown} has no type")
        if "object" in types:
            result |= self._object(schema, where)
        if "array" in types:
            if "items" not in schema:
                raise NotStrict(f"{shown} has items of any type")
            result["items"] = self._schema(schema["items"], f"{where}[]")
        return result

    def _object(self, schema: JsonObject, where: str) -> JsonObject:
        properties = schema.get("properties")
        closed = schema.get("additionalProperties", False) is False
        if not is_object(properties) or not closed:
            raise NotStrict(f"{where or 'the root'} takes keys of any name")
        shaped: JsonObject = {}
        for name, one in properties.items():
            inner = self._schema(one, f"{where}.{name}".lstrip("."))
            shaped[name] = inner if name in schema.get("required", ()) else _nullable(inner)
        return {"properties": shaped, "required": list(shaped), "additionalProperties": False}


def _merged(schema: JsonObject, where: str) -> JsonObject:
    """Unwrap an `allOf` of a single schema."""
    if "allOf" not in schema:
        return schema
    parts, rest = schema["allOf"], {key: schema[key] for key in schema if key != "allOf"}
    if len(parts) != 1 or not is_object(parts[0]) or parts[0].keys() & rest.keys() - _ANNOTATIONS:
        raise NotStrict(f"{where} combines schemas with allOf")
    return parts[0] | rest


def _notes(schema: JsonObject) -> JsonObject:
    """Return the keywords that only the description can carry, but for a default of null."""
    notes = {key: schema[key] for key in schema if key in _NOTED}
    if notes.get("default", ...) is None:
        del notes["default"]
    if schema.get("format", "date") not in _FORMATS:
        notes["format"] = schema["format"]
    if any(look_around in schema.get("pattern", "") for look_around in ("(?=", "(?!", "(?<")):
        notes["pattern"] = schema["pattern"]
    return notes


def _nullable(schema: JsonObject) -> JsonObject:
    if "anyOf" in schema:
        options = schema["anyOf"]
        return schema if _NULL in options else {**schema, "anyOf": [*options, _NULL]}
    types = _types(schema)
    if "null" in types:
        return schema
    if not types or "const" in schema:
        described = {key: schema[key] for key in schema if key == "description"}
        undescribed = {key: schema[key] for key in schema if key != "description"}
        return {**described, "anyOf": [undescribed, _NULL]}
    values = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [*types, "null"], **values}


def _types(schema: JsonObject) -> list[Any]:
    types = schema.get("type", [])
    return types if is_array(types) else [types]


def _type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return names.get(value.__class__, "array" if is_array(value) else "object")
