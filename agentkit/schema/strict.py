"""The strict form of a JSON Schema: the subset that servers enforce while decoding.

Rules: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
Every property is required, optional ones may be null, and objects are closed.
A keyword outside the subset moves into the description if the answer is validated
against it anyway; otherwise the schema has no strict form.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from agentkit.messages import JsonObject, is_array, is_object
from agentkit.schema.walk import definitions, ref_name, subschemas

_DEPTH, _PROPERTIES, _VALUES, _NAMES = 10, 5_000, 1_000, 120_000
_LONG_ENUM, _LONG_ENUM_TEXT = 250, 15_000  # more values than that may have so much text
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
    "title $schema $comment $anchor discriminator deprecated readOnly writeOnly".split()
)
_KNOWN = _KEPT | _TRANSLATED | _NOTED | _DROPPED
_ANNOTATIONS = _NOTED | _DROPPED | {"description", "$defs", "definitions"}
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

    def form(self) -> JsonObject:
        # Its own `$id` changes nothing; one further down changes what references below it mean.
        root = {key: value for key, value in self._root.items() if key not in ("$id", "id")}
        result = self._schema(self._resolved(root), "")
        if result.get("type") != "object":
            union = result.get("anyOf") and self._root.get("type") == "object"
            raise NotStrict(f"the root is {'a union' if union else 'not an object'}")
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
        _Size(result).check()
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
        """Return the schema that a `$ref` refers to, and that nothing beside it narrows."""
        name = ref_name(schema) or ""
        if schema["$ref"] != "#" and name not in self._defs:
            raise NotStrict(f"{where} refers to {schema['$ref']!r}, which is not a definition")
        if all(name in self._root.get(key, ()) for key in ("$defs", "definitions")):
            raise NotStrict(f"{where} refers to {name!r}, which is defined twice")
        target = self._root if schema["$ref"] == "#" else self._defs[name]
        if not is_object(target):
            raise NotStrict(f"{where} may be anything")
        beside = schema.keys() - _ANNOTATIONS - {"$ref"}
        same = beside == {"type"} and schema["type"] == target.get("type")
        if beside and not same:
            raise NotStrict(f"{where} combines $ref with {', '.join(sorted(beside))}")
        return target

    def _schema(self, schema: Any, where: str) -> JsonObject:
        shown = where or "the root"
        schema = _merged(schema, shown)
        if not is_object(schema) or not schema.keys() - _ANNOTATIONS:
            raise NotStrict(f"{shown} may be anything")
        if unknown := {key for key in schema.keys() - _KNOWN if not key.startswith("x-")}:
            raise NotStrict(f"{shown} uses {', '.join(sorted(unknown))}")
        schema = _bounded(schema)
        notes = _notes(schema)
        result = {key: schema[key] for key in schema if key in _KEPT and key not in notes}
        if notes:
            text = ", ".join(f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in notes.items())
            result["description"] = f"{schema.get('description', '')} ({text})".strip()
        if "$ref" in schema:
            self._target(schema, shown)
            ref = {"$ref": schema["$ref"].replace("#/definitions/", "#/$defs/")}
            described = {key: result[key] for key in result if key == "description"}
            return {**described, "anyOf": [ref]} if described else ref  # it may have no siblings
        for key in ("anyOf", "oneOf"):
            if is_array(schema.get(key)):
                return self._union(schema, key, result, where)
        return self._typed(schema, result, where)

    def _union(self, schema: JsonObject, key: str, result: JsonObject, where: str) -> JsonObject:
        """Return the union; what stands beside it goes into each of its members."""
        shown, options = where or "the root", schema[key]
        if beside := (_TRANSLATED - {key, "$defs", "definitions"}) & schema.keys():
            raise NotStrict(f"{shown} combines {key} with {', '.join(sorted(beside))}")
        pairs = itertools.combinations(options, 2)
        if key == "oneOf" and not all(self._differ(one, other) for one, other in pairs):
            raise NotStrict(f"{shown} uses oneOf for schemas that may match the same value")
        described = {key: result.pop(key) for key in ("description",) if key in result}
        members = [_joined(result, one, shown) for one in options]
        return {**described, "anyOf": [self._schema(one, where) for one in members]}

    def _differ(self, one: Any, other: Any, depth: int = _DEPTH) -> bool:
        """Tell whether no value matches both schemas, as far as types and constants say so."""
        pair: list[JsonObject] = []
        for schema in (one, other):
            while is_object(schema) and "$ref" in schema and depth:
                schema, depth = self._target(schema, "oneOf"), depth - 1
            pair.append(schema if is_object(schema) else {})
        if not depth:
            return False
        values, others = map(_values, pair)
        if values is not None and others is not None:
            return not any(_same(a, b) for a in values for b in others)
        types, more = ({t if t != "integer" else "number" for t in _types(one)} for one in pair)
        if types and more and not types & more:
            return True
        if types != {"object"} or more != types:
            return False
        first, second = map(_always, pair)
        shared = first.keys() & second.keys()
        return any(self._differ(first[name], second[name], depth - 1) for name in shared)

    def _typed(self, schema: JsonObject, result: JsonObject, where: str) -> JsonObject:
        shown = where or "the root"
        values = _values(result)
        if values is not None:
            types = list(dict.fromkeys(map(_type, values)))
            result.setdefault("type", types[0] if len(types) == 1 else types)
            result |= _consistent(result, values, shown)
        types = _types(result)
        if not types or not _TYPES.issuperset(types):
            raise NotStrict(f"{shown} has no type")
        if values is not None and not {"object", "array"}.isdisjoint(types):
            raise NotStrict(f"{shown} allows only certain objects or arrays")
        if "object" in types:
            result |= self._object(schema, where)
        if "array" in types:
            if "items" not in schema:
                raise NotStrict(f"{shown} has items of any type")
            result["items"] = self._schema(schema["items"], f"{where}[]")
        return result

    def _object(self, schema: JsonObject, where: str) -> JsonObject:
        shown = where or "the root"
        properties = schema.get("properties")
        closed = schema.get("additionalProperties", False) is False
        if not is_object(properties) or not closed:
            raise NotStrict(f"{shown} takes keys of any name")
        if undeclared := [name for name in schema.get("required", ()) if name not in properties]:
            listed = ", ".join(map(repr, undeclared))
            raise NotStrict(f"{shown} requires {listed} without describing it")
        shaped: JsonObject = {}
        always = _always(schema)
        for name, one in properties.items():
            inner = self._schema(one, f"{where}.{name}".lstrip("."))
            shaped[name] = inner if name in always else _nullable(inner)
        return {"properties": shaped, "required": list(shaped), "additionalProperties": False}


class _Size:
    """The size of a strict form, over the whole of which servers count."""

    def __init__(self, form: JsonObject) -> None:
        self._form = form
        self._defs = definitions(form)
        self._sizes: dict[str, tuple[int, int]] = {}

    def check(self) -> None:
        """Raise NotStrict if the form exceeds a limit."""
        self._size(self._form)
        values = names = 0
        for one in subschemas(self._form):
            names += sum(map(len, [*one.get("properties", ()), *one.get("$defs", ())]))
            texts = [v if isinstance(v, str) else json.dumps(v) for v in _values(one) or ()]
            length = sum(map(len, texts))
            names += length
            values += len(texts) if "enum" in one else 0
            if len(texts) > _LONG_ENUM and length > _LONG_ENUM_TEXT:
                raise NotStrict(
                    f"it has an enum of more than {_LONG_ENUM} values with more than "
                    f"{_LONG_ENUM_TEXT:,} characters"
                )
        if values > _VALUES:
            raise NotStrict(f"it has more than {_VALUES:,} allowed values")
        if names > _NAMES:
            raise NotStrict(f"it has more than {_NAMES:,} characters of names and allowed values")

    def _size(self, schema: Any, above: tuple[str, ...] = ()) -> tuple[int, int]:
        """Return depth and number of properties, following each reference once."""
        if not is_object(schema):
            return 0, 0
        if (ref := schema.get("$ref")) is not None:
            if ref not in self._sizes and ref not in above:
                target = self._form if ref == "#" else self._defs.get(ref_name(schema) or "")
                self._sizes[ref] = self._size(target, (*above, ref))
            return self._sizes.get(ref, (0, 0))
        properties = schema.get("properties", {})
        inner = [*properties.values(), schema.get("items"), *schema.get("anyOf", ())]
        sizes = [self._size(one, above) for one in inner]
        depth = max(depth for depth, _ in sizes) + ("properties" in schema or "items" in schema)
        count = sum(count for _, count in sizes) + len(properties)
        if depth > _DEPTH:
            raise NotStrict(f"it is nested more than {_DEPTH} levels deep")
        if count > _PROPERTIES:
            raise NotStrict(f"it has more than {_PROPERTIES:,} properties")
        return depth, count


def _merged(schema: Any, where: str) -> Any:
    """Unwrap an `allOf` of a single schema."""
    while is_object(schema) and "allOf" in schema:
        parts, rest = schema["allOf"], {key: schema[key] for key in schema if key != "allOf"}
        if len(parts) != 1 or not is_object(parts[0]):
            raise NotStrict(f"{where} combines schemas with allOf")
        both = (_KEYS & parts[0].keys(), _KEYS & rest.keys())
        if all(both) and "additionalProperties" in both[0] | both[1]:
            raise NotStrict(f"{where} combines schemas with allOf")
        schema = _joined(rest, parts[0], where, "combines schemas with allOf")
    return schema


_KEYS = {"properties", "additionalProperties"}


def _joined(
    outer: JsonObject, inner: Any, where: str, conflict: str = "combines conflicting schemas"
) -> Any:
    """Return one schema for both, of which the outer one describes it."""
    if not is_object(inner) or not outer:
        return inner
    both = inner.keys() & outer.keys() - _ANNOTATIONS
    if both == {"type"} and set(_types(inner)) <= set(_types(outer)):
        outer = {key: value for key, value in outer.items() if key != "type"}
    elif both:
        raise NotStrict(f"{where} {conflict}")
    return inner | outer


def _bounded(schema: JsonObject) -> JsonObject:
    """Rewrite the exclusive bounds of draft 4, which are flags of the bounds beside them."""
    for key, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(key), bool):
            rest = {name: value for name, value in schema.items() if name not in (key, bound)}
            exclusive = key if schema[key] else bound
            schema = {**rest, exclusive: schema[bound]} if bound in schema else rest
    return schema


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


def _values(schema: JsonObject) -> list[Any] | None:
    """Return the only values that the schema allows, or None."""
    return schema.get("enum", [schema["const"]] if "const" in schema else None)


def _consistent(schema: JsonObject, values: list[Any], where: str) -> JsonObject:
    """Return type and values without those that exclude each other: servers refuse them."""
    types = _types(schema)
    kept = [value for value in values if not _fitting(value).isdisjoint(types)]
    if not kept:
        raise NotStrict(f"{where} allows no value")
    used = [one for one in types if any(one in _fitting(value) for value in kept)]
    allowed = {"enum": kept} if "enum" in schema else {}
    return {"type": used[0] if len(used) == 1 else used, **allowed}


def _fitting(value: Any) -> set[str]:
    """Return the types of which a value is: 1 and 1.0 are numbers and integers."""
    whole = isinstance(value, float) and value.is_integer()
    kind = _type(value)
    return {"integer", "number"} if whole or kind == "integer" else {kind}


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) is isinstance(other, bool)


def _always(schema: JsonObject) -> JsonObject:
    """Return the properties that are never left out: required ones, and defaults without a choice.

    pydantic has such a default in members of a union that a field tells apart, and wants it sent.
    """
    return {
        name: one
        for name, one in schema.get("properties", {}).items()
        if name in schema.get("required", ())
        or (is_object(one) and "const" in one and _same(one["const"], one.get("default", ...)))
    }
