"""Annotations that Python allows and pydantic needs in another form."""

from __future__ import annotations

import collections.abc
import sys
import typing
from types import UnionType
from typing import Any, cast

import typing_extensions

_TYPED_DICT = type(typing.TypedDict("_", {}))  # type: ignore[operator]
_CALLABLE = cast("Any", collections.abc.Callable)


def accepted(hint: Any) -> Any:
    """Return the type to pass to pydantic for `hint`: nearly always `hint` itself.

    Three are replaced: `typing.TypedDict` before Python 3.12; `LiteralString`;
    and `Iterable[T]`, whose items would be checked only while the function runs.
    """
    if hint is typing.LiteralString:
        return str
    if sys.version_info < (3, 12) and type(hint) is _TYPED_DICT:
        return _typed_dict(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if not args or origin in (typing.Literal, typing.Unpack, _CALLABLE):
        return hint
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
    if typing.get_origin(hint) is typing.Unpack:
        return accepted(typing.get_args(hint)[0])
    if getattr(hint, "__unpacked__", False):
        return tuple[typing.get_args(hint)]
    return None
