"""Annotations that Python allows and pydantic needs in another form."""

from __future__ import annotations

import collections.abc
import functools
import sys
import typing
from collections.abc import Sequence
from enum import Enum
from types import UnionType
from typing import Any, cast

import typing_extensions
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError, SchemaValidator, core_schema, to_jsonable_python

from agentkit.messages import JsonObject, is_array, is_object

_TYPED_DICT = type(typing.TypedDict("_", {}))  # type: ignore[operator]
_CALLABLE = cast("Any", collections.abc.Callable)
_UNPACK = (typing.Unpack, typing_extensions.Unpack)  # two before Python 3.12


def accepted(hint: Any) -> Any:
    """Return the type to pass to pydantic for `hint`: nearly always `hint` itself.

    Four are replaced: `typing.TypedDict` before Python 3.12; `LiteralString`; `type[T]`, which
    pydantic describes as anything; and `Iterable[T]`, whose items would be checked only while
    the function runs.
    """
    if hint is typing.LiteralString:
        return str
    if sys.version_info < (3, 12) and type(hint) is _TYPED_DICT:
        return _typed_dict(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if not args or origin in (typing.Literal, *_UNPACK, _CALLABLE):
        return hint
    if origin is type:
        return type
    if origin is typing.Annotated:
        return typing.Annotated[(accepted(args[0]), *hint.__metadata__)]
    inner = tuple(map(accepted, args))
    if origin is collections.abc.Iterable:
        return list[inner[0]]
    if all(new is old for new, old in zip(inner, args, strict=True)):
        return hint
    if origin in (typing.Union, UnionType):
        return typing.Union[inner]  # noqa: UP007  there is no other way from a tuple
    return origin[inner]


_converted: dict[Any, Any] = {}


def _typed_dict(cls: Any) -> Any:
    """Return the same TypedDict, made by typing_extensions."""
    if cls in _converted:
        return _converted[cls]
    copy: Any = cast("Any", typing_extensions).TypedDict(cls.__name__, {})
    _converted[cls] = copy  # before its fields, which may refer to it
    copy.__doc__, copy.__module__, copy.__qualname__ = cls.__doc__, cls.__module__, cls.__qualname__
    keys = fields(cls)
    copy.__annotations__ = {name: hint for name, (hint, _) in keys.items()}
    copy.__required_keys__ = frozenset(name for name, (_, required) in keys.items() if required)
    copy.__optional_keys__ = frozenset(keys.keys() - copy.__required_keys__)
    return copy


def fields(typed_dict: Any) -> dict[str, tuple[Any, bool]]:
    """Return the type of each key of a TypedDict, and whether it is required."""
    keys: dict[str, tuple[Any, bool]] = {}
    for name, hint in typing.get_type_hints(typed_dict, include_extras=True).items():
        mark = typing.get_origin(hint)
        if mark in (typing.Required, typing.NotRequired):
            # With annotations as text, Python 3.11 does not see the mark itself.
            keys[name] = accepted(typing.get_args(hint)[0]), mark is typing.Required
        else:
            keys[name] = accepted(hint), name in typed_dict.__required_keys__
    return keys


def unpacked(hint: Any) -> Any:
    """Return the type in `*args: *tuple[…]` or `**kwargs: Unpack[…]`, None for any other hint."""
    if typing.get_origin(hint) in _UNPACK:
        return accepted(typing.get_args(hint)[0])
    if getattr(hint, "__unpacked__", False):
        return tuple[typing.get_args(hint)]
    return None


class OfferedSchema(GenerateJsonSchema):
    """A JSON Schema generator that shows nothing which the validator refuses."""

    def is_subclass_schema(self, schema: core_schema.IsSubclassSchema) -> JsonObject:
        """Refuse classes, which pydantic describes as anything."""
        return self.handle_invalid_for_json_schema(schema, f"type[{schema['cls'].__name__}]")

    def dataclass_args_schema(self, schema: core_schema.DataclassArgsSchema) -> JsonObject:
        """Leave out the fields that `__init__` does not take."""
        taken = [one for one in schema["fields"] if one.get("init", True)]
        return super().dataclass_args_schema({**schema, "fields": taken})


def validator_of(adapter: TypeAdapter[Any]) -> SchemaValidator:
    """Return a validator that takes the members of an enum by the JSON that its schema shows.

    pydantic's own refuses "red" for `Literal[Color.RED]`, and [1, 2] for a member `(1, 2)`.
    """
    schema = adapter.core_schema
    by_json = _by_json(schema)
    if by_json is schema:
        return cast("SchemaValidator", adapter.validator)
    return SchemaValidator(by_json, _use_prebuilt=False)  # else models keep their own


_DATA = frozenset({"default", "metadata", "serialization", "expected", "members"})


def _by_json(schema: Any) -> Any:
    """Return a core schema in which members are found by JSON; the same if it has none of them."""
    if isinstance(schema, (list, tuple)):
        items = cast("list[Any] | tuple[Any, ...]", schema)
        changed = [_by_json(one) for one in items]
        same = all(new is old for new, old in zip(changed, items, strict=True))
        return cast("Any", items if same else type(items)(changed))
    if not is_object(schema):
        return schema
    kind = schema.get("type")
    members = schema.get({"literal": "expected", "enum": "members"}.get(str(kind), ""), ())
    shown = [(to_jsonable_python(one, fallback=repr), one) for one in members]
    if kind == "literal" and any(isinstance(one, Enum) for one in members):
        return core_schema.no_info_plain_validator_function(functools.partial(_member, shown))
    if kind == "enum" and any(is_array(value) or is_object(value) for value, _ in shown):
        return core_schema.no_info_plain_validator_function(functools.partial(_member, shown))
    result = {key: one if key in _DATA else _by_json(one) for key, one in schema.items()}
    return schema if all(result[key] is schema[key] for key in schema) else result


def _member(members: Sequence[tuple[Any, Any]], value: Any) -> Any:
    """Return the member that is shown as this value."""
    for shown, member in members:
        if value == shown and isinstance(value, bool) is isinstance(shown, bool):
            return member
    expected = " or ".join(repr(shown) for shown, _ in members)
    raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
