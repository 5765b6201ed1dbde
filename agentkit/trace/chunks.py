"""The pieces of a streamed answer on their way into the trace.

They are kept for a moment: about 25 of them, or 50 ms, make one line, and a piece
that may be the beginning of a secret waits for the piece that ends it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from agentkit.effects import Address
from agentkit.events import ReasoningDelta, Restarted, TextDelta, ToolCallDelta
from agentkit.redaction import Redactor
from agentkit.trace.blobs import packed, whole_text

__all__ = ["Chunks", "Delta", "model_of"]

Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta | Restarted
_Piece: TypeAlias = tuple[int, str, str, Delta]
"""Microseconds since the delta before; which text it goes on with, and how; the delta."""
_PIECES, _MICROSECONDS = 25, 50_000


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
        self._kept: list[_Piece] = []
        self._since = 0
        self._enough = _PIECES

    def take(self, delta: Delta) -> list[list[Any]]:
        """Take one delta; returns what is to be written now."""
        now = self._clock() // 1000
        after, self._last = now - self._last, now
        if self.first is None:
            self.first = after
        kept = self._kept
        if not kept:
            self._since = now
        kept.append((after, *_told(delta), delta))
        count = len(kept)
        if count < self._enough and (count > _PIECES or now - self._since < _MICROSECONDS):
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
        count, texts = len(self._kept), {of for _, of, _, _ in self._kept}
        while count:
            cut = min(self._cut(of, count) for of in texts)
            if cut == count:
                break
            count = cut
        return count

    def _cut(self, of: str, count: int) -> int:
        """The piece, of the first `count`, in which what may be a secret of this text begins."""
        texts = [text if other == of else "" for _, other, text, _ in self._kept]
        text = "".join(texts[:count])
        follows = next((one for one in texts[count:] if one), "")
        begins = self._redact.open_end(text + follows[:1])
        if begins >= len(text):
            return count
        ends = itertools.accumulate(map(len, texts))
        return next(number for number, end in enumerate(ends) if end > begins)

    def _written(self, count: int) -> list[list[Any]]:
        pieces, self._kept = self._kept[:count], self._kept[count:]
        texts: dict[str, list[str]] = {}
        for _, of, text, _ in pieces:
            texts.setdefault(of, []).append(text)
        for of, parts in texts.items():
            text = "".join(parts)
            if (hidden := self._redact(text)) != text:
                # A secret may be spread over pieces: the first gets the text, the others none.
                texts[of] = [hidden, *[""] * (len(parts) - 1)]
        rest = {of: iter(parts) for of, parts in texts.items()}
        return [
            [after, _item(delta, whole_text(next(rest[of])), self._redact)]
            for after, of, _, delta in pieces
        ]


def model_of(delta: Delta) -> Address:
    """The address of the model call whose answer this is a piece of."""
    return delta.at.parent if isinstance(delta, ToolCallDelta) else delta.at


def _told(delta: Delta) -> tuple[str, str]:
    """Which text a delta goes on with, and how."""
    if isinstance(delta, TextDelta):
        return "text", delta.text
    if isinstance(delta, ReasoningDelta):
        return "reasoning", delta.text
    if isinstance(delta, ToolCallDelta):
        return delta.at, delta.arguments
    return "restarted", delta.reason


def _item(delta: Delta, text: Any, redact: Redactor) -> Any:
    """What stands for a delta in a line; `text` is redacted."""
    if isinstance(delta, TextDelta):
        return text
    if isinstance(delta, ReasoningDelta):
        return {"reasoning": text}
    if isinstance(delta, ToolCallDelta):
        index = int(delta.at.rpartition("/t")[2])
        return {"tool": packed(delta.name, redact), "arguments": text, "index": index}
    return {"restarted": text}
