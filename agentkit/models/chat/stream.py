"""A streamed answer: bytes to events, events to deltas and one complete response.

Pure. `EventDecoder` finds the data of server-sent events in bytes that are cut
anywhere; `StreamFold` adds up the chunks. The folded body then goes through
`decode`, so that both forms of an answer give the same response.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from agentkit.core.effects import Address
from agentkit.errors import InvalidResponse, OutputTruncated
from agentkit.events import Event, ReasoningDelta, TextDelta, ToolCallDelta
from agentkit.messages import JsonObject, ModelResponse, is_array, is_object
from agentkit.models.base import DIRECT
from agentkit.models.chat.decode import REASONING_FIELDS, decode_response, thinking_of
from agentkit.models.chat.errors import error_inside
from agentkit.models.chat.parameters import Note
from agentkit.models.chat.thinking import ThinkingSplitter
from agentkit.models.lenient import as_list, as_object, clean, json_or, json_text, parse_json

BLANK_LIMIT = 4_000
"""Characters of white space in a row after which an answer is taken to be endless.
Servers produce them in json_object mode, for as long as the token limit allows."""


class EventDecoder:
    """Finds the data of server-sent events, however the bytes are cut.

    httpx2 has a parser too. It loses the first event after a byte order mark and
    a last event without its blank line, and it refuses events above 1 MB.
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._started = False
        self._after_cr = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of the events that `piece` completes."""
        if self._after_cr and piece:  # CR and LF of one line end may come apart.
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        if b"\n" not in piece and b"\r" not in piece:
            self._line.append(piece)
            return []
        self._after_cr = piece.endswith(b"\r")
        lines = (b"".join(self._line) + piece).splitlines(keepends=True)
        self._line = [] if lines[-1].endswith((b"\n", b"\r")) else [lines.pop()]
        return [
            data for line in lines if (data := self._read_line(line.rstrip(b"\r\n"))) is not None
        ]

    def finish(self) -> list[bytes]:
        """Return the data of a last event that has no blank line after it."""
        self._read_line(b"".join(self._line))
        last = self._read_line(b"")
        return [] if last is None else [last]

    def _read_line(self, line: bytes) -> bytes | None:
        if not self._started:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._started = True
        if not line:
            data, self._data = self._data, []
            return b"\n".join(data) if data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif name == b"error":  # llama.cpp's form of an error inside a stream
            self._data.append(b'{"error":%s}' % value)
        return None


class StreamFold:
    """Adds up the chunks of a streamed answer.

    fold = StreamFold()
    for data in decoder.feed(piece):
        for delta in fold.feed(data):
            show(delta)
    response = fold.finish()

    Args:
        at: The address of the model call, for the deltas.
        model: The model's name, for errors.
        joined: Whether several choices are one answer; see `decode_response`.
    """

    def __init__(
        self, *, at: Address = DIRECT, model: str | None = None, joined: bool = False
    ) -> None:
        self._at = at
        self._model = model
        self._joined = joined
        self._body: JsonObject = {}
        self._choices: dict[int, _ChoiceFold] = {}
        self.done = False
        """Whether the server has sent [DONE]."""

    @property
    def complete(self) -> bool:
        """Whether the answer ended properly: with [DONE], or with a reason in every choice."""
        ended = self._choices and all(choice.finish for choice in self._choices.values())
        return self.done or bool(ended)

    def feed(self, data: bytes) -> list[Event]:
        """Add the data of one event and return the deltas to show.

        What follows [DONE] is ignored, and so is a broken chunk behind a complete answer.

        Raises:
            ModelError: The server reports an error, or sends something that is not a chunk.
        """
        deltas: list[Event] = []
        text = data.strip()
        if self.done or not text:
            return deltas
        if text == b"[DONE]":
            return self._end()
        try:
            chunk = parse_json(data)
        except ValueError:
            if self.complete:  # What is lost is no more than the usage.
                return deltas
            raise InvalidResponse(
                f"{self._model or 'The model'} sent a chunk that is not JSON: "
                f"{data[:200].decode('utf-8', 'replace')!r}.",
                model=self._model,
            ) from None
        if (error := error_inside(chunk, model=self._model)) is not None:
            raise error
        body = as_object(chunk)
        for key, value in body.items():
            if isinstance(value, (str, int)):  # almost all that chunks repeat
                self._body[key] = value
            elif key != "choices" and value is not None:
                self._body[key] = _updated(self._body.get(key), value)
        for choice in as_list(body.get("choices")):
            self._add(as_object(choice), deltas)
        return deltas

    def _end(self) -> list[Event]:
        deltas: list[Event] = []
        for choice in self._choices.values():
            choice.flush(deltas)
        self.done = True
        return deltas

    def finish(
        self, *, taken: Iterable[str] = (), note: Callable[[Note], None] = lambda _: None
    ) -> ModelResponse:
        """Return the complete response; see `decode_response` for `taken` and `note`.

        Raises:
            InvalidResponse: The stream ended before the answer did.
        """
        if not self.complete:
            raise InvalidResponse(
                f"{self._model or 'The model'} ended its stream without a finish_reason and "
                "without [DONE]; nothing of the answer was executed.",
                model=self._model,
            )
        choices = [self._choices[index].body() for index in sorted(self._choices)]
        body = {**self._body, "choices": choices}
        return decode_response(
            body, model=self._model, seed=self._at, taken=taken, joined=self._joined, note=note
        )

    def _add(self, choice: JsonObject, deltas: list[Event]) -> None:
        """Add one choice; unless they are one answer, only the first one's deltas are shown."""
        index = choice.get("index")
        index = index if isinstance(index, int) else 0
        fold = self._choices.get(index)
        if fold is None:
            fold = self._choices[index] = _ChoiceFold(self._at)
        earlier = 0
        if self._joined and index:
            earlier = sum(one.calls for place, one in self._choices.items() if place < index)
        fold.add(choice, earlier, deltas if self._joined or index == min(self._choices) else [])
        if fold.blanks > BLANK_LIMIT:
            raise OutputTruncated(
                f"{self._model or 'The model'} sent nothing but white space, so the stream was "
                "closed. In json_object mode, ask for JSON in the instructions.",
                model=self._model,
                text=fold.text.rstrip(),
            )


_CHOICE_KEYS = frozenset({"index", "delta", "message", "finish_reason"})
_DELTA_KEYS = frozenset({"role", "content", "tool_calls", "function_call"})
_CALL_KEYS = frozenset({"index", "id", "type", "function"})


class _ChoiceFold:
    """One choice of the answer as far as it has arrived."""

    def __init__(self, at: Address) -> None:
        self.finish: str | None = None
        self.blanks = 0
        self._at = at
        self._content: list[Any] | None = None
        self._thinking = ThinkingSplitter()
        self._reasoning: list[str] = []
        self._reasoning_field = REASONING_FIELDS[0]
        self._calls = _CallFold()
        self._extra: JsonObject = {}
        self._message: JsonObject = {}

    @property
    def text(self) -> str:
        return "".join(piece for piece in self._content or () if isinstance(piece, str))

    @property
    def calls(self) -> int:
        return len(self._calls)

    def add(self, choice: JsonObject, earlier: int, deltas: list[Event]) -> None:
        """Add one choice of a chunk, and its deltas: those of calls after `earlier` ones."""
        # A last chunk may repeat the whole message that the deltas held.
        delta = as_object(choice.get("delta"))
        if not delta and self._content is None and not self._calls:
            delta = as_object(choice.get("message"))
        if not choice.keys() <= _CHOICE_KEYS:
            _merge_into(self._extra, choice, skipped=_CHOICE_KEYS)
        if delta:
            self._add_delta(delta, earlier, deltas)
        if reason := choice.get("finish_reason"):
            self.finish = str(reason)
            self.flush(deltas)

    def flush(self, deltas: list[Event]) -> None:
        """Add the deltas of text that was held back because a tag might have begun in it."""
        self._show(*self._thinking.finish(), deltas)

    def _add_delta(self, delta: JsonObject, earlier: int, deltas: list[Event]) -> None:
        plain = delta.keys() <= _DELTA_KEYS
        for field in () if plain else REASONING_FIELDS:
            if isinstance(thought := delta.get(field), str) and thought:
                self._reasoning.append(thought)
                self._reasoning_field = field
                self._show(thought, "", deltas)
                delta = {**delta, **dict.fromkeys(REASONING_FIELDS)}
        content = delta.get("content")
        if isinstance(content, str):
            self._add_text(content, deltas)
        elif content is not None:
            self._add_parts(content, deltas)
        if function := delta.get("function_call"):
            self._add_calls([{"index": 0, "function": function}], earlier, deltas)
        if calls := delta.get("tool_calls"):
            self._add_calls([as_object(call) for call in as_list(calls)], earlier, deltas)
        if not plain:
            _merge_into(self._message, delta, skipped=_DELTA_KEYS)

    def _add_text(self, text: str, deltas: list[Event]) -> None:
        if self._content is None:
            self._content = []
        self._content.append(text)
        self._count_blanks(text)
        self._show(*self._thinking.feed(text), deltas)

    def _add_parts(self, content: Any, deltas: list[Event]) -> None:
        if self._content is None:
            self._content = []
        for piece in as_list(content) if isinstance(content, list) else [content]:
            match piece:
                case str(text) | {"type": "text", "text": str(text)}:
                    self._add_text(text, deltas)
                case _:
                    self._content.append(piece)
                    self._show(thinking_of(piece) or "", "", deltas)

    def _show(self, thinking: str, text: str, deltas: list[Event]) -> None:
        if thinking:
            deltas.append(ReasoningDelta(at=self._at, text=clean(thinking)))
        if text:
            deltas.append(TextDelta(at=self._at, text=clean(text)))

    def _add_calls(self, fragments: list[JsonObject], earlier: int, deltas: list[Event]) -> None:
        for delta in self._calls.add(fragments, self._at, earlier):
            self._count_blanks(delta.arguments)
            deltas.append(delta)

    def _count_blanks(self, text: str) -> None:
        ending = len(text) - len(text.rstrip())
        self.blanks = self.blanks + ending if ending == len(text) else ending

    def body(self) -> JsonObject:
        """Return the choice as a complete answer would hold it."""
        message: JsonObject = {**self._message, "content": None}
        if self._content is not None:
            only_text = all(isinstance(piece, str) for piece in self._content)
            message["content"] = self.text if only_text else self._content
        if self._reasoning:
            message[self._reasoning_field] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = self._calls.bodies()
        return {**self._extra, "message": message, "finish_reason": self.finish}


# Tool calls


class _CallFold:
    """The tool calls of one answer as far as they have arrived.

    Which fragment belongs to which call has to be worked out: indexes are missing,
    always 0 or counted in some other way; ids are null, empty or the same on two
    calls; names are repeated or cut.
    """

    def __init__(self) -> None:
        self._calls: list[_PartialCall] = []

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, fragments: list[JsonObject], at: Address, earlier: int) -> list[ToolCallDelta]:
        """Add the fragments of one chunk of the answer at `at`; return a delta for each.

        The answer has `earlier` calls before these.
        """
        deltas: list[ToolCallDelta] = []
        touched: set[int] = set()
        for position, data in enumerate(fragments):
            fragment = _Fragment(data)
            call = self._find(fragment, position if len(fragments) > 1 else -1)
            if call is None and not (fragment.id or fragment.name or fragment.arguments):
                continue  # Not a call.
            again = call is not None and call.place in touched and bool(fragment.name)
            if call is None or again or not call.accepts(fragment):
                call = _PartialCall(len(self._calls), fragment.index)
                self._calls.append(call)
            touched.add(call.place)
            call.add(fragment, data)
            if call.name or fragment.arguments:
                place, arguments = call.address(at, earlier), clean(fragment.arguments)
                deltas.append(ToolCallDelta(at=place, name=call.name, arguments=arguments))
        return deltas

    def bodies(self) -> list[JsonObject]:
        """Return the calls as a complete answer would hold them."""
        return [call.body() for call in self._calls]

    def _find(self, fragment: _Fragment, position: int) -> _PartialCall | None:
        """Find the call a fragment continues: by index and id, else by name, else by order."""
        if not self._calls:
            return None
        by_index = by_id = None
        for call in self._calls:
            if fragment.index is not None and call.index == fragment.index:
                by_index = call
            if fragment.id and call.id == fragment.id:
                by_id = call
        if by_index is not None:
            contradicted = fragment.id and by_index.id and by_index.id != fragment.id
            return by_id if contradicted else by_index
        if by_id is not None:
            moved = fragment.index is not None
            return by_id if by_id.accepts(fragment, moved=moved) else None
        if fragment.id:
            return None
        if not fragment.name:
            return self._calls[position if position < len(self._calls) else -1]
        return self._calls[-1] if fragment.index is None else None


class _Fragment:
    """The fields of a tool-call fragment that identify its call, and its arguments."""

    __slots__ = ("arguments", "id", "index", "name")

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


class _PartialCall:
    """One tool call as far as it has arrived."""

    def __init__(self, place: int, index: int | None) -> None:
        self.place = place
        self.index = index
        self.id = ""
        self.name = ""
        self._arguments: list[str] = []
        self._extra: JsonObject = {}
        self._address: tuple[int, Address] | None = None

    def address(self, at: Address, earlier: int) -> Address:
        """Return the call's address in the answer at `at`, which has `earlier` calls before."""
        if self._address is None or self._address[0] != earlier:
            self._address = earlier, at.call(earlier + self.place)
        return self._address[1]

    def accepts(self, fragment: _Fragment, *, moved: bool = False) -> bool:
        """Return whether a fragment, perhaps `moved` to another index, continues this call."""
        if not fragment.name or not self.name:
            return True
        if fragment.name != self.name:
            return not self._arguments  # Before its arguments, a name may come in pieces.
        if not self._arguments:
            return not moved
        last = self._arguments[-1].rstrip()
        unfinished = bool(last) and last[-1] != "}"  # Saves parsing all of it again.
        return (
            not (fragment.arguments or moved)
            or unfinished
            or not is_object(json_or(None, "".join(self._arguments)))
        )

    def add(self, fragment: _Fragment, data: JsonObject) -> None:
        """Add a fragment, with the unknown fields of its `data`."""
        self.id = self.id or fragment.id
        if fragment.name and fragment.name != self.name:
            # In pieces, or each time the whole of it so far.
            longer = fragment.name.startswith(self.name)
            self.name = fragment.name if longer else self.name + fragment.name
        if not data.keys() <= _CALL_KEYS:
            _merge_into(self._extra, data, skipped=_CALL_KEYS)
        if fragment.arguments:
            self._arguments.append(fragment.arguments)

    def body(self) -> JsonObject:
        """Return the call as a complete answer would hold it."""
        function = {"name": self.name, "arguments": "".join(self._arguments)}
        return {**self._extra, "id": self.id, "function": function}


# Unknown fields

_JOINED = {"text", "summary", "data", "transcript", "thinking", "arguments", "content", "refusal"}
"""Fields whose text comes in pieces; of any other field the last value counts."""


def _updated(old: Any, new: Any) -> Any:
    """Return a field beside the choices, after a chunk that holds `new` of it.

    The last value counts, field by field in objects. A list goes on, unless it comes again
    from its beginning: Perplexity's citations are in each chunk.
    """
    if is_object(old) and is_object(new):
        old |= {key: _updated(old.get(key), v) for key, v in new.items() if v is not None}
        return old
    if is_array(old) and is_array(new) and new[: len(old)] != old:
        old += new
        return old
    return new


def _merge_into(whole: JsonObject, piece: JsonObject, skipped: Collection[str]) -> None:
    """Merge the fields of `piece` that are neither `skipped` nor null into `whole`."""
    for key, value in piece.items():
        if value is None or key in skipped:
            continue
        if isinstance(value, (str, int)) and key not in _JOINED:
            whole[key] = value  # as ids and models, which come again with each chunk
        else:
            whole[key] = _merged(whole.get(key), value, key)


def _merged(old: Any, new: Any, key: str) -> Any:
    if new is None:
        return old
    if isinstance(new, str):
        return old + new if key in _JOINED and isinstance(old, str) else new
    if is_object(new) and is_object(old):
        return old | {name: _merged(old.get(name), value, name) for name, value in new.items()}
    if is_array(new) and is_array(old):
        return _merged_lists(old, new)
    return new


def _merged_lists(old: list[Any], new: list[Any]) -> list[Any]:
    """Append, but merge items of one index: reasoning_details come in pieces like that."""
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
