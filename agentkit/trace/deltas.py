"""The pieces of a streamed answer on their way into the trace.

They are kept for a moment: about 25 of them, or 50 ms, make one line, and a piece
that may be the beginning of a secret waits for the piece that ends it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from agentkit.core.effects import Address
from agentkit.events import ReasoningDelta, Restarted, TextDelta, ToolCallDelta
from agentkit.redaction import Redactor
from agentkit.trace.naming import packed, unpacked, whole_text

Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta | Restarted
_Piece: TypeAlias = tuple[str, str]
"""Which text a delta goes on with, and how."""
_PIECES, _NANOSECONDS = 25, 50_000_000


def described(delta: Delta) -> Any:
    """Return a piece of an answer as JSON: its text, or what else it is a piece of."""
    match delta:
        case TextDelta(text=text):
            return text
        case ReasoningDelta(text=text):
            return {"reasoning": text}
        case ToolCallDelta(name=name, arguments=arguments):
            return {"tool": name, "arguments": arguments}
        case Restarted(reason=reason):
            return {"restarted": reason}


class Chunks:
    """The deltas of one model call.

    Attributes:
        first: Microseconds from the call to its first delta; None before that.
    """

    def __init__(self, redact: Redactor, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self.first: int | None = None
        self._redact = redact
        self._last = clock() // 1000
        self._kept: list[tuple[int, Delta]] = []
        self._due: float = 0  # 0: with the delta that comes first the time begins
        self._enough = _PIECES

    def take(self, delta: Delta) -> list[list[Any]]:
        """Take one delta; returns what is to be written now."""
        now = self._clock()
        kept = self._kept
        kept.append((now, delta))
        if now < self._due and len(kept) < self._enough:
            return []
        if len(kept) == 1:
            self._due = now + _NANOSECONDS
            if self.first is None:
                self.first = now // 1000 - self._last
            return []
        pieces = [_piece(delta) for _, delta in kept]
        whole = self._whole(pieces)
        if whole:
            self._enough, self._due = _PIECES, now + _NANOSECONDS if pieces[whole:] else 0
        else:  # what waits for the end of a long word is not looked at again with each letter
            self._enough, self._due = 2 * len(kept), math.inf
        return self._written(pieces[:whole])

    def rest(self) -> list[list[Any]]:
        """Return what is to be written at the end."""
        return self._written([_piece(delta) for _, delta in self._kept])

    def _whole(self, pieces: list[_Piece]) -> int:
        """How many of the pieces end where no secret can be going on."""
        count, texts = len(pieces), {of for of, _ in pieces}
        while count:
            cut = min(self._cut(pieces, of, count) for of in texts)
            if cut == count:
                break
            count = cut
        return count

    def _cut(self, pieces: list[_Piece], of: str, count: int) -> int:
        """Find the piece, of the first `count`, in which a possible secret of this text begins."""
        texts = [text if other == of else "" for other, text in pieces]
        text = "".join(texts[:count])
        follows = next((one for one in texts[count:] if one), "")
        begins = self._redact.open_end(text + follows[:1])
        if begins >= len(text):
            return count
        ends = itertools.accumulate(map(len, texts))
        return next(number for number, end in enumerate(ends) if end > begins)

    def _written(self, pieces: list[_Piece]) -> list[list[Any]]:
        """Render the first deltas that are held, whose texts these are, as they stand in a line."""
        kept, self._kept = self._kept[: len(pieces)], self._kept[len(pieces) :]
        texts: dict[str, list[Any]] = {}
        for of, text in pieces:
            texts.setdefault(of, []).append(text)
        for of, parts in texts.items():
            text = "".join(parts)
            if (hidden := self._redact(text)) != text:
                # A secret may be spread over pieces: the first gets the text, the others none.
                texts[of] = [whole_text(hidden), *[""] * (len(parts) - 1)]
            elif not text.isascii():
                texts[of] = [whole_text(part) for part in parts]
        rest = {of: iter(parts) for of, parts in texts.items()}
        written: list[list[Any]] = []
        last = self._last
        for (nanoseconds, delta), (of, _) in zip(kept, pieces, strict=True):
            text, now = next(rest[of]), nanoseconds // 1000
            item = text if isinstance(delta, TextDelta) else _item(delta, text, self._redact)
            written.append([now - last, item])
            last = now
        self._last = last
        return written


def delta_from_json(at: Address, item: Any) -> Delta:
    """Return the delta of a model call that stands in a line as `item`."""
    match unpacked(item):
        case {"reasoning": text}:
            return ReasoningDelta(at=at, text=text)
        case {"restarted": reason}:
            return Restarted(at=at, reason=reason)
        case {"tool": name, "arguments": arguments, "index": index}:
            return ToolCallDelta(at=at.call(index), name=name, arguments=arguments)
        case text:
            return TextDelta(at=at, text=text)


def model_of(delta: Delta) -> Address:
    """Return the address of the model call whose answer this is a piece of."""
    return delta.at.parent if isinstance(delta, ToolCallDelta) else delta.at


def _piece(delta: Delta) -> tuple[str, str]:
    """Which text a delta goes on with, and how."""
    if isinstance(delta, TextDelta):
        return "text", delta.text
    if isinstance(delta, ReasoningDelta):
        return "reasoning", delta.text
    if isinstance(delta, ToolCallDelta):
        return delta.at, delta.arguments
    return "restarted", delta.reason


def _item(delta: Delta, text: Any, redact: Redactor) -> Any:
    """Render a delta for a line; `text` is redacted."""
    if isinstance(delta, ReasoningDelta):
        return {"reasoning": text}
    if isinstance(delta, ToolCallDelta):
        index = int(delta.at.rpartition("/t")[2])
        return {"tool": packed(delta.name, redact), "arguments": text, "index": index}
    return {"restarted": text}
