"""The pieces of a streamed answer on their way into the trace.

They are kept for a moment: about 25 of them, or 50 ms, make one line, and a piece
that may be the beginning of a secret waits for the piece that ends it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

from agentkit.effects import Address
from agentkit.events import ReasoningDelta, Restarted, TextDelta, ToolCallDelta
from agentkit.redaction import Redactor
from agentkit.trace.blobs import packed, whole_text

__all__ = ["Chunks", "Delta", "model_of"]

Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta | Restarted
_PIECES, _MICROSECONDS = 25, 50_000


class Chunks:
    """The deltas of one model call.

    Attributes:
        first: Microseconds from the call to its first delta; None before that.
    """

    def __init__(self, redact: Redactor) -> None:
        self.first: int | None = None
        self._redact = redact
        self._last = time.monotonic_ns() // 1000
        self._kept: list[tuple[int, Delta]] = []
        self._since = 0
        self._enough = _PIECES

    def take(self, delta: Delta) -> list[list[Any]]:
        """Take one delta; returns what is to be written now."""
        now = time.monotonic_ns() // 1000
        after, self._last = now - self._last, now
        if self.first is None:
            self.first = after
        kept = self._kept
        if not kept:
            self._since = now
        kept.append((after, delta))
        late = now - self._since >= _MICROSECONDS and len(kept) <= _PIECES
        if len(kept) < self._enough and not late:
            return []
        whole = self._whole()
        # What waits for the end of a long word is not looked at again with each letter.
        self._enough = _PIECES if whole else 2 * len(kept)
        self._since = now
        return self._written(whole)

    def rest(self) -> list[list[Any]]:
        """What is to be written at the end."""
        return self._written(len(self._kept))

    def _whole(self) -> int:
        """How many of the kept pieces end where no secret can be going on."""
        pieces = [_piece(delta) for _, delta in self._kept]
        count = len(pieces)
        while count:
            cut = min(self._cut(of, pieces, count) for of in {of for of, _ in pieces[:count]})
            if cut == count:
                break
            count = cut
        return count

    def _cut(self, of: str, pieces: Sequence[tuple[str, str]], count: int) -> int:
        """The piece, of the first `count`, in which what may be a secret of this text begins."""
        texts = [text if other == of else "" for other, text in pieces]
        text = "".join(texts[:count])
        follows = next((one for one in texts[count:] if one), "")
        begins = self._redact.open_end(text + follows[:1])
        if begins >= len(text):
            return count
        ends = itertools.accumulate(map(len, texts))
        return next(number for number, end in enumerate(ends) if end > begins)

    def _written(self, count: int) -> list[list[Any]]:
        kept, self._kept = self._kept[:count], self._kept[count:]
        texts: dict[str, list[str]] = {}
        for _, delta in kept:
            of, text = _piece(delta)
            texts.setdefault(of, []).append(text)
        for of, pieces in texts.items():
            text = "".join(pieces)
            if (hidden := self._redact(text)) != text:
                # A secret may be spread over pieces: the first gets the text, the others none.
                texts[of] = [hidden, *[""] * (len(pieces) - 1)]
        rest = {of: iter(pieces) for of, pieces in texts.items()}
        return [
            [after, _item(delta, next(rest[_piece(delta)[0]]), self._redact)]
            for after, delta in kept
        ]


def model_of(delta: Delta) -> Address:
    """The address of the model call whose answer this is a piece of."""
    return delta.at.parent if isinstance(delta, ToolCallDelta) else delta.at


def _piece(delta: Delta) -> tuple[str, str]:
    """Whose text a delta goes on with, and its own."""
    if isinstance(delta, TextDelta):
        return "text", delta.text
    if isinstance(delta, ReasoningDelta):
        return "reasoning", delta.text
    if isinstance(delta, ToolCallDelta):
        return delta.at, delta.arguments
    return "restarted", delta.reason


def _item(delta: Delta, text: str, redact: Redactor) -> Any:
    """What stands for a delta in a line; `text` is redacted."""
    packed_text = whole_text(text)
    if isinstance(delta, TextDelta):
        return packed_text
    if isinstance(delta, ReasoningDelta):
        return {"reasoning": packed_text}
    if isinstance(delta, ToolCallDelta):
        index = int(delta.at.rpartition("/t")[2])
        return {"tool": packed(delta.name, redact), "arguments": packed_text, "index": index}
    return {"restarted": packed_text}
