"""Annotations that are legal in Python and need a hand before pydantic takes them."""

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
    """The type that pydantic is given for `hint`, the same in nearly every case.

    Three need a hand: `typing.TypedDict` before Python 3.12; `LiteralString`;
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
    """The same TypedDict, made by typing_extensions."""
    if cls in _converted:
        return _converted[cls]
    made: Any = cast("Any", typing_extensions).TypedDict(cls.__name__, {})
    _converted[cls] = made  # before its fields, which may refer to it
    made.__doc__, made.__module__, made.__qualname__ = cls.__doc__, cls.__module__, cls.__qualname__
    shown = fields(cls)
    made.__annotations__ = {name: hint for name, (hint, _) in shown.items()}
    made.__required_keys__ = frozenset(name for name, (_, required) in shown.items() if required)
    made.__optional_keys__ = frozenset(shown.keys() - made.__required_keys__)
    return made


def fields(typed_dict: Any) -> dict[str, tuple[Any, bool]]:
    """The type of each key of a TypedDict, and whether it is required."""
    found: dict[str, tuple[Any, bool]] = {}
    for name, hint in typing.get_type_hints(typed_dict, include_extras=True).items():
        mark = typing.get_origin(hint)
        if mark in (typing.Required, typing.NotRequired):
            # With annotations as text, Python 3.11 does not see the mark itself.
            found[name] = accepted(typing.get_args(hint)[0]), mark is typing.Required
        else:
            found[name] = accepted(hint), name in typed_dict.__required_keys__
    return found


def unpacked(hint: Any) -> Any:
    """What `*args: *tuple[…]` or `**kwargs: Unpack[…]` takes, None for any other annotation."""
    if typing.get_origin(hint) is typing.Unpack:
        return accepted(typing.get_args(hint)[0])
    if getattr(hint, "__unpacked__", False):
        return tuple[typing.get_args(hint)]
    return None
