"""JSON as servers and models write it, read generously: `decode` and `stream` start here."""

from __future__ import annotations

import json
from typing import Any, overload

from pydantic_core import from_json

from agentkit.messages import JsonObject

MAX_DEPTH = 200


def parse_json(data: bytes) -> Any:
    """Parse JSON that may have a BOM, broken UTF-8 or half a surrogate pair in it.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return from_json(data)
    except ValueError:
        try:
            value = json.loads(data.decode("utf-8", "replace").removeprefix("\ufeff"))
        except RecursionError:
            raise ValueError("nested too deeply") from None
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Refuse what `from_json` would refuse, so that later readers cannot recurse too far."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for one in level for child in as_list(one) or as_object(one).values()]
        if not level:
            return
    raise ValueError("nested too deeply")


def json_or(default: Any, text: str | bytes) -> Any:
    """Return the value of a JSON text, or `default` if it is not JSON."""
    try:
        return from_json(text)
    except ValueError:
        return default


def json_text(value: Any) -> str:
    """Return a value as JSON without escaped letters, as models read and write it."""
    return json.dumps(value, ensure_ascii=False)


def as_object(value: Any) -> JsonObject:
    """Return the value if it is an object, otherwise an empty one."""
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]  # a cast takes longer


def as_list(value: Any) -> list[Any]:
    """Return the value if it is an array, otherwise an empty one."""
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]  # as above


@overload
def clean(text: str) -> str: ...
@overload
def clean(text: str | None) -> str | None: ...
def clean(text: str | None) -> str | None:
    """Join surrogate pairs that a stream has split, and replace the halves left over."""
    if text is None or text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
