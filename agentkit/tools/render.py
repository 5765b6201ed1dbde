"""Render a tool's value as what the model reads, and its arguments as what people read."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from pydantic import AliasChoices, BaseModel, RootModel
from pydantic.fields import FieldInfo
from pydantic_core import to_json, to_jsonable_python

from agentkit.errors import ToolError
from agentkit.messages import Content, Part, TextPart, is_array, is_object


def render(value: Any, max_output: int | None) -> Content:
    """Render text as it is, content parts as parts, everything else as JSON.

    Args:
        value: The tool's return value.
        max_output: Bytes of text to keep; None keeps all.

    Raises:
        ToolError: A part of the value has no JSON form; the text names it.
    """
    if isinstance(value, str):
        return cut(str(value), max_output)
    parts = _parts(value)
    if parts is None:
        return cut(_json(value), max_output)
    rendered: list[Part] = []
    for part in parts:
        if isinstance(part, TextPart):
            text = cut(part.text, max_output)
            if max_output is not None:
                max_output = max(0, max_output - len(part.text.encode("utf-8", "replace")))
            part = TextPart(text=text)
        rendered.append(part)
    return tuple(rendered)


def json_of(value: Any) -> Any:
    """Return an argument as JSON, in the form in which a model sends it.

    Read from the value itself: a serializer of its class may leave out or mask what it holds.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, RootModel):
        return json_of(cast("RootModel[Any]", value).root)
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        held = {**vars(value), **(value.__pydantic_extra__ or {})}
        return {
            (alias_of(fields[name]) if name in fields else None) or name: json_of(item)
            for name, item in held.items()
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: json_of(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {str(_plain(key)): json_of(item) for key, item in items}
    if isinstance(value, (list, tuple, deque)):
        return [json_of(item) for item in cast("Iterable[Any]", value)]
    if isinstance(value, (set, frozenset)):
        return sorted(map(json_of, cast("Iterable[Any]", value)), key=json.dumps)
    return _plain(value)


def _plain(value: Any) -> Any:
    try:
        return to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="strings")
    except Exception:  # a class of the application, made by a validator of its own
        return f"<{type(value).__qualname__}>"  # its repr may differ from process to process


def alias_of(field: FieldInfo) -> str | None:
    """Return the name by which a model sends a field, if that is not the field's own."""
    alias = field.validation_alias or field.alias
    if isinstance(alias, AliasChoices):
        alias = next((choice for choice in alias.choices if isinstance(choice, str)), None)
    return alias if isinstance(alias, str) else None


def cut(text: str, size: int | None) -> str:
    """Cut `text` to `size` bytes of whole characters, and note how much is missing."""
    data = text.encode("utf-8", "replace")
    if size is None or len(data) <= size:
        return data.decode()
    kept = data[:size].decode(errors="ignore")
    missing = len(data) - len(kept.encode())
    return f"{kept}\n[cut here: {missing:,} of {len(data):,} bytes are not shown]"


def _parts(value: Any) -> tuple[Part, ...] | None:
    """Return the parts of a part, or of a sequence of parts and text; None for other values."""
    if isinstance(value, Part):
        return (value,)
    items = _sequence(value)
    if not any(isinstance(item, Part) for item in items):
        return None
    if not all(isinstance(item, (str, Part)) for item in items):
        return None
    return tuple(TextPart(text=item) if isinstance(item, str) else item for item in items)


def _sequence(value: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else ()


def _json(value: Any) -> str:
    try:
        return _encoded(value)
    except Exception as error:  # a serializer of the application may raise anything
        where, reason = _culprit(value, "result", frozenset()) or ("result", str(error))
        raise ToolError(
            f"The tool ran, but its result cannot be encoded: {where} {reason}."
        ) from error


def _encoded(value: Any) -> str:
    if _may_hold_set(value):
        plain = to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="strings")
        with suppress(Exception):  # where a serializer of its own has made another shape of it
            plain = in_order(value, plain)
        value = plain
    return to_json(value, bytes_mode="base64", inf_nan_mode="strings").decode()


def _may_hold_set(value: Any) -> bool:
    kind = cast("type[Any]", type(value))
    if kind in (str, int, float, bool) or value is None:
        return False
    if kind is dict:
        return any(map(_may_hold_set, value.values()))
    return any(map(_may_hold_set, value)) if kind in (list, tuple) else True


def in_order(value: Any, plain: Any) -> Any:
    """Return a value's JSON with its sets sorted: their order differs in each process."""
    if is_array(plain) and isinstance(value, (list, tuple, set, frozenset)):
        items = cast("Iterable[Any]", value)
        parts = [in_order(item, part) for item, part in zip(items, plain, strict=True)]
        key = functools.partial(json.dumps, sort_keys=True)
        return sorted(parts, key=key) if isinstance(value, (set, frozenset)) else parts
    if not is_object(plain):
        return plain
    if isinstance(value, Mapping):
        values = cast("Mapping[Any, Any]", value).values()
        items = zip(plain.items(), values, strict=True)
        return {name: in_order(item, part) for (name, part), item in items}
    kind = cast("type[Any]", type(value))
    known = getattr(kind, "__pydantic_fields__", None) or getattr(kind, "__dataclass_fields__", {})
    names = {getattr(one, "serialization_alias", None) or name: name for name, one in known.items()}
    return {
        name: in_order(getattr(value, names[name]), part) if name in names else part
        for name, part in plain.items()
    }


def _culprit(value: Any, where: str, above: frozenset[int]) -> tuple[str, str] | None:
    """Return the innermost part of `value` that cannot be encoded: its place, and the reason."""
    if id(value) in above:
        return where, "contains itself"
    for name, item in _items(value):
        try:
            _encoded(item)
        except Exception:  # see _json
            culprit = _culprit(item, where + name, above | {id(value)})
            if culprit is not None:
                return culprit
    if isinstance(value, str):
        return where, "is text that is not valid Unicode"
    return where, f"is of type {type(value).__qualname__}, which has no JSON form"


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    if is_object(value):
        return [(f"[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, BaseModel):
        return [(f".{name}", item) for name, item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f".{f.name}", getattr(value, f.name)) for f in dataclasses.fields(value)]
    return [(f"[{index}]", item) for index, item in enumerate(_sequence(value))]
