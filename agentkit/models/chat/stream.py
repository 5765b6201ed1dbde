"""A streamed answer: bytes to events, events to deltas and one complete response.

Pure. `EventDecoder` finds the data of server-sent events in bytes that are cut
anywhere; `StreamFold` adds parsed chunks up. What comes out at the end is read
by the same code as an answer in one piece, so both give the same response.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentkit.core.effects import Address
from agentkit.errors import InvalidResponse, OutputTruncated
from agentkit.events import Event, ReasoningDelta, TextDelta
from agentkit.messages import JsonObject, ModelResponse
from agentkit.models.base import DIRECT
from agentkit.models.chat.decode import response_from_body, thinking_of
from agentkit.models.chat.errors import error_inside
from agentkit.models.chat.lenient import as_list, as_object, clean, parse_json
from agentkit.models.chat.pieces import CallFold, merge_into

__all__ = ["EventDecoder", "StreamFold"]

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
        """The data of the events that `piece` completes."""
        if self._after_cr and piece:  # CR and LF of one line end may come apart.
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        if b"\n" not in piece and b"\r" not in piece:
            self._line.append(piece)
            return []
        self._after_cr = piece.endswith(b"\r")
        lines = (b"".join(self._line) + piece).splitlines(keepends=True)
        self._line = [] if lines[-1].endswith((b"\n", b"\r")) else [lines.pop()]
        return [data for line in lines if (data := self._take(line.rstrip(b"\r\n"))) is not None]

    def finish(self) -> list[bytes]:
        """The data of an event that the end of the stream cut short of its blank line."""
        self._take(b"".join(self._line))
        last = self._take(b"")
        return [] if last is None else [last]

    def _take(self, line: bytes) -> bytes | None:
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
    """Adds the chunks of a streamed answer up.

    fold = StreamFold()
    for data in decoder.feed(piece):
        for delta in fold.feed(data):
            show(delta)
    response = fold.finish()

    Args:
        at: The address of the model call, for the deltas.
        model: The model's name, for errors.
    """

    def __init__(self, *, at: Address = DIRECT, model: str | None = None) -> None:
        self._at = at
        self._model = model
        self._body: JsonObject = {}
        self._choices: dict[int, _Choice] = {}
        self.done = False
        """Whether the server has said [DONE]."""

    @property
    def complete(self) -> bool:
        """Whether the answer ended properly: with [DONE], or with a reason in every choice."""
        ended = self._choices and all(one.finish for one in self._choices.values())
        return self.done or bool(ended)

    def feed(self, data: bytes) -> list[Event]:
        """Take the data of one event; returns the deltas to show.

        Raises:
            ModelError: The server reports an error, or sends something that is not a chunk.
        """
        if not data.strip():
            return []
        if data.strip() == b"[DONE]":
            self.done = True
            return []
        try:
            chunk = parse_json(data)
        except ValueError:
            raise InvalidResponse(
                f"{self._model or 'The model'} sent a chunk that is not JSON: "
                f"{data[:200].decode('utf-8', 'replace')!r}.",
                model=self._model,
            ) from None
        if (failed := error_inside(chunk, model=self._model)) is not None:
            raise failed
        body = as_object(chunk)
        merge_into(self._body, body, skipped=("choices",))
        return [
            event for one in as_list(body.get("choices")) for event in self._add(as_object(one))
        ]

    def finish(self, *, taken: Iterable[str] = ()) -> ModelResponse:
        """The complete response, no call of which has an id that is `taken`.

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
        return response_from_body(body, model=self._model, seed=self._at, taken=taken)

    def _add(self, choice: JsonObject) -> list[Event]:
        """Add one choice; the deltas are those of the first."""
        index = choice.get("index")
        index = index if isinstance(index, int) else 0
        fold = self._choices.get(index)
        if fold is None:
            fold = self._choices[index] = _Choice(self._at)
        shown = fold.add(choice)
        if fold.blanks > BLANK_LIMIT:
            raise OutputTruncated(
                f"{self._model or 'The model'} sends nothing but white space, so the stream was "
                "ended. In json_object mode, say in the instructions that the answer is JSON.",
                model=self._model,
                text=fold.text.rstrip(),
            )
        return shown if index == min(self._choices) else []


_CHOICE_KEYS = frozenset({"index", "delta", "message", "finish_reason"})
_DELTA_KEYS = frozenset({"role", "content", "tool_calls", "function_call"})


class _Choice:
    """One choice of the answer as far as it has come."""

    def __init__(self, at: Address) -> None:
        self.finish: str | None = None
        self.blanks = 0
        self._at = at
        self._content: list[Any] | None = None
        self._reasoning: list[str] = []
        self._calls = CallFold()
        self._extra: JsonObject = {}
        self._message: JsonObject = {}

    @property
    def text(self) -> str:
        return "".join(piece for piece in self._content or () if isinstance(piece, str))

    def add(self, choice: JsonObject) -> list[Event]:
        """Take one choice of a chunk; returns the deltas."""
        shown: list[Event] = []
        if choice.get("finish_reason"):
            self.finish = str(choice["finish_reason"])
        # A last chunk may repeat the whole message; deltas have said it all already.
        delta = as_object(choice.get("delta"))
        if not delta and self._content is None and not self._calls:
            delta = as_object(choice.get("message"))
        merge_into(self._extra, choice, skipped=_CHOICE_KEYS)
        if delta:
            self._add_delta(delta, shown)
        return shown

    def _add_delta(self, delta: JsonObject, shown: list[Event]) -> None:
        self._add_content(delta.get("content"), shown)
        if function := delta.get("function_call"):
            self._add_calls([{"index": 0, "function": function}], shown)
        if calls := delta.get("tool_calls"):
            self._add_calls([as_object(one) for one in as_list(calls)], shown)
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str):
            self._think(thought, shown)
            delta = {**delta, "reasoning_content": None, "reasoning": None}
        merge_into(self._message, delta, skipped=_DELTA_KEYS)

    def _add_content(self, content: Any, shown: list[Event]) -> None:
        if content is None:
            return
        if self._content is None:
            self._content = []
        for piece in as_list(content) if isinstance(content, list) else [content]:
            match piece:
                case str(text) | {"type": "text", "text": str(text)}:
                    self._content.append(text)
                    self._count_blanks(text)
                    if text:
                        shown.append(TextDelta(at=self._at, text=clean(text)))
                case _ if (thought := thinking_of(piece)) is not None:
                    self._think(thought, shown)
                case _:
                    self._content.append(piece)

    def _think(self, text: str, shown: list[Event]) -> None:
        if text:
            self._reasoning.append(text)
            shown.append(ReasoningDelta(at=self._at, text=clean(text)))

    def _add_calls(self, fragments: list[JsonObject], shown: list[Event]) -> None:
        for delta in self._calls.add(fragments, self._at):
            self._count_blanks(delta.arguments)
            shown.append(delta)

    def _count_blanks(self, text: str) -> None:
        ending = len(text) - len(text.rstrip())
        self.blanks = self.blanks + ending if ending == len(text) else ending

    def body(self) -> JsonObject:
        """The choice as an answer in one piece would hold it."""
        message: JsonObject = {**self._message, "content": None}
        if self._content is not None:
            whole = all(isinstance(piece, str) for piece in self._content)
            message["content"] = self.text if whole else self._content
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = self._calls.bodies()
        return {**self._extra, "message": message, "finish_reason": self.finish}
