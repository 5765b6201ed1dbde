"""What the model is told of a tool's value."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, cast

from pydantic import BaseModel
from pydantic_core import to_json

from agentkit.errors import ToolError
from agentkit.messages import Content, Part, TextPart, is_object


def render(value: Any, max_output: int | None) -> Content:
    """Text as it is, content parts as parts, everything else as JSON.

    Args:
        value: What a tool returned.
        max_output: Bytes of text that are shown; None shows all.

    Raises:
        ToolError: A part of the value has no JSON form; the text says which.
    """
    if isinstance(value, str):
        return cut(str(value), max_output)
    parts = _parts(value)
    if parts is None:
        return cut(_json(value), max_output)
    shown: list[Part] = []
    for part in parts:
        if isinstance(part, TextPart):
            text = cut(part.text, max_output)
            if max_output is not None:
                max_output = max(0, max_output - len(part.text.encode("utf-8", "replace")))
            part = TextPart(text=text)
        shown.append(part)
    return tuple(shown)


def cut(text: str, size: int | None) -> str:
    """At most `size` bytes of `text`, whole characters, and a note of what is missing."""
    data = text.encode("utf-8", "replace")
    if size is None or len(data) <= size:
        return data.decode()
    kept = data[:size].decode(errors="ignore")
    missing = len(data) - len(kept.encode())
    return f"{kept}\n[cut here: {missing:,} of {len(data):,} bytes are not shown]"


def _parts(value: Any) -> tuple[Part, ...] | None:
    """The parts of a value that is one, or a sequence of parts and text with at least one part."""
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
        where, what = _culprit(value, "result", frozenset()) or ("result", str(error))
        raise ToolError(f"The tool ran, but its result cannot be shown: {where} {what}.") from error


def _encoded(value: Any) -> str:
    return to_json(value, bytes_mode="base64", inf_nan_mode="strings").decode()


def _culprit(value: Any, where: str, above: frozenset[int]) -> tuple[str, str] | None:
    """The innermost part of `value` that cannot be encoded: its place, and what it is."""
    if id(value) in above:
        return where, "holds itself"
    for name, item in _items(value):
        try:
            _encoded(item)
        except Exception:  # see _json
            found = _culprit(item, where + name, above | {id(value)})
            if found is not None:
                return found
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
