"""Adds up what a stream sends in pieces: tool calls, and fields nobody knows.

Pure. Which fragment belongs to which call has to be found out: indexes are
missing, always 0 or counted in some other way; ids are null, empty or the same
on two calls; names are repeated or cut.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from agentkit.core.effects import Address
from agentkit.events import ToolCallDelta
from agentkit.messages import JsonObject, is_array, is_object
from agentkit.models.chat.lenient import as_object, clean, json_or, json_text

__all__ = ["CallFold", "merge_into"]

_JOINED = {"text", "summary", "data", "transcript", "thinking", "arguments", "content", "refusal"}


def merge_into(whole: JsonObject, piece: JsonObject, skipped: Collection[str]) -> None:
    """Add the fields of `piece` up in `whole`: those that are not `skipped`, and not null."""
    for key, value in piece.items():
        if value is not None and key not in skipped:
            whole[key] = _merged(whole.get(key), value, key)


def _merged(old: Any, new: Any, key: str) -> Any:
    if old is None or new is None:
        return old if new is None else new
    if isinstance(old, str) and isinstance(new, str):
        return old + new if key in _JOINED else new
    if is_object(old) and is_object(new):
        return old | {name: _merged(old.get(name), value, name) for name, value in new.items()}
    if is_array(old) and is_array(new):
        return _merged_lists(old, new)
    return new


def _merged_lists(old: list[Any], new: list[Any]) -> list[Any]:
    """Append, but put items of one index together: so do reasoning_details come in pieces."""
    items = list(old)
    for item in new:
        match items[-1:], item:
            case [{"index": was, **last}], {"index": index, **rest} if was == index and last.get(
                "type"
            ) == rest.get("type"):
                items[-1] = _merged(items[-1], item, "")
            case _:
                items.append(item)
    return items


class CallFold:
    """The tool calls of one answer as far as they have come."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, fragments: list[JsonObject], at: Address) -> list[ToolCallDelta]:
        """Take the fragments of one chunk of the answer at `at`; returns a delta for each."""
        shown: list[ToolCallDelta] = []
        touched: set[int] = set()
        for position, data in enumerate(fragments):
            new = _Fragment(data)
            found = self._find(new, position if len(fragments) > 1 else -1)
            again = found is not None and found.place in touched and bool(new.name)
            if found is None or again or not found.goes_on(new):
                found = _Call(len(self._calls), new.index)
                self._calls.append(found)
            touched.add(found.place)
            found.add(new, data)
            arguments = clean(new.arguments)
            delta = ToolCallDelta(at=at.call(found.place), name=found.name, arguments=arguments)
            shown.append(delta)
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
        function = as_object(data.get("function"))
        index, id_, name = data.get("index"), data.get("id"), function.get("name")
        self.index = index if isinstance(index, int) else None
        self.id = id_ if isinstance(id_, str) else ""
        self.name = name if isinstance(name, str) else ""
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = json_text(arguments)
        self.arguments = arguments or ""


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
        """Whether a fragment continues this call, or one that has `moved` to another index."""
        if not new.name or not self.name:
            return True
        if new.name != self.name:
            return not self._arguments  # Before its arguments, a name may come in pieces.
        if not self._arguments:
            return not moved
        last = self._arguments[-1].rstrip()
        unfinished = bool(last) and last[-1] != "}"  # Said without reading all of it again.
        return (
            not new.arguments
            or unfinished
            or not is_object(json_or(None, "".join(self._arguments)))
        )

    def add(self, new: _Fragment, data: JsonObject) -> None:
        """Take a fragment, and what else `data` says beside it."""
        self.id = self.id or new.id
        if new.name != self.name:
            # In pieces, or each time the whole of it so far.
            self.name = new.name if new.name.startswith(self.name) else self.name + new.name
        merge_into(self._extra, data, skipped=("index", "id", "type", "function"))
        if new.arguments:
            self._arguments.append(new.arguments)

    def body(self) -> JsonObject:
        """The call as an answer in one piece would hold it."""
        function = {"name": self.name, "arguments": "".join(self._arguments)}
        return {**self._extra, "id": self.id, "function": function}
