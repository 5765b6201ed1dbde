"""Adds up what a stream sends in pieces: tool calls, and fields nobody knows.

Pure. Which fragment belongs to which call has to be found out: indexes are
missing, always 0 or counted in some other way; ids are null, empty or the same
on two calls; names are repeated or cut.
"""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic_core import from_json

from agentkit.messages import JsonObject

__all__ = ["CallFold", "merged"]

_JOINED = {"text", "summary", "data", "transcript", "thinking", "arguments", "content"}


def merged(old: Any, new: Any, key: str) -> Any:
    """An unknown field, added up over the chunks it comes in: `old` so far, `new` now."""
    if old is None or new is None:
        return old if new is None else new
    if isinstance(old, str) and isinstance(new, str):
        return old + new if key in _JOINED else new
    if isinstance(old, dict) and isinstance(new, dict):
        both = dict(cast(JsonObject, old))
        for name, value in cast(JsonObject, new).items():
            both[name] = merged(both.get(name), value, name)
        return both
    if isinstance(old, list) and isinstance(new, list):
        return _merged_lists(cast(list[Any], old), cast(list[Any], new))
    return new


def _merged_lists(old: list[Any], new: list[Any]) -> list[Any]:
    """Append, but put items of one index together: so do reasoning_details come in pieces."""
    items = list(old)
    for item in new:
        match items[-1:], item:
            case [{"index": was, **last}], {"index": index, **rest} if was == index and last.get(
                "type"
            ) == rest.get("type"):
                items[-1] = merged(items[-1], item, "")
            case _:
                items.append(item)
    return items


class CallFold:
    """The tool calls of one answer as far as they have come."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, fragments: list[JsonObject]) -> list[tuple[int, str, str]]:
        """Take the fragments of one chunk.

        Returns:
            For each, the index of its call, the call's name so far and the new
            piece of its arguments.
        """
        shown: list[tuple[int, str, str]] = []
        touched: set[int] = set()
        for position, data in enumerate(fragments):
            new = _Fragment(data)
            found = self._find(new, position if len(fragments) > 1 else -1)
            again = found is not None and found.place in touched and bool(new.name)
            if found is None or again or not found.goes_on(new):
                found = _Call(len(self._calls), new.index)
                self._calls.append(found)
            touched.add(found.place)
            text = found.add(new, data)
            shown.append((found.place, found.name, text))
        return shown

    def bodies(self) -> list[JsonObject]:
        """The calls as an answer in one piece would hold them."""
        return [call.body() for call in self._calls]

    def _find(self, new: _Fragment, position: int) -> _Call | None:
        """The call a fragment seems to continue: by index and id, else by name, else by order."""
        if not self._calls:
            return None
        indexed = identified = None
        for call in self._calls:
            if new.index is not None and call.index == new.index:
                indexed = call
            if new.id and call.id == new.id:
                identified = call
        if indexed is not None:
            contradicted = new.id and indexed.id and indexed.id != new.id
            return identified if contradicted else indexed
        if identified is not None:
            moved = new.index is not None
            return identified if identified.goes_on(new, moved=moved) else None
        if new.id:
            return None
        if not new.name:
            return self._calls[position if position < len(self._calls) else -1]
        return self._calls[-1] if new.index is None else None


class _Fragment:
    """What a piece of a tool call says about which call it belongs to."""

    def __init__(self, data: JsonObject) -> None:
        function: Any = data.get("function")
        function = cast(JsonObject, function) if isinstance(function, dict) else {}
        index, id_, name = data.get("index"), data.get("id"), function.get("name")
        self.index = index if isinstance(index, int) else None
        self.id = id_ if isinstance(id_, str) else ""
        self.name = name if isinstance(name, str) else ""
        arguments: Any = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        self.arguments: str = arguments or ""


class _Call:
    """One tool call as far as it has come."""

    def __init__(self, place: int, index: int | None) -> None:
        self.place = place
        self.index = index
        self.id = ""
        self.name = ""
        self._arguments: list[str] = []
        self._extra: JsonObject = {}

    def goes_on(self, new: _Fragment, *, moved: bool = False) -> bool:
        """Whether a fragment that seems to belong here continues this call.

        Args:
            new: The fragment.
            moved: Whether it comes under another index than this call's.
        """
        if not new.name or not self.name:
            return True
        if new.name != self.name:
            return not self._arguments  # Before its arguments, a name may come in pieces.
        if not self._arguments:
            return not moved
        last = self._arguments[-1].rstrip()
        unfinished = bool(last) and last[-1] != "}"  # Said without reading all of it again.
        return not new.arguments or unfinished or not _is_object("".join(self._arguments))

    def add(self, new: _Fragment, data: JsonObject) -> str:
        """Take a fragment; returns the new piece of the arguments."""
        self.id = self.id or new.id
        if new.name != self.name:
            # In pieces, or each time the whole of it so far.
            self.name = new.name if new.name.startswith(self.name) else self.name + new.name
        for key, value in data.items():
            if key not in ("index", "id", "type", "function") and value is not None:
                self._extra[key] = merged(self._extra.get(key), value, key)
        if new.arguments:
            self._arguments.append(new.arguments)
        return new.arguments

    def body(self) -> JsonObject:
        """The call as an answer in one piece would hold it."""
        function = {"name": self.name, "arguments": "".join(self._arguments)}
        return {**self._extra, "id": self.id, "function": function}


def _is_object(text: str) -> bool:
    try:
        return isinstance(from_json(text), dict)
    except ValueError:
        return False
