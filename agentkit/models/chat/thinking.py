"""Thinking that a server leaves in the text: `<think>…</think>` at its beginning.

Pure; used by `decode`, and by `stream` for the deltas.
"""

from __future__ import annotations

_TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "[THINK]": "[/THINK]",  # Mistral's
}


class ThinkingSplitter:
    """Separates the thinking from the text that follows, however the pieces are cut.

    Without a closing tag, all of it is thinking. White space between thinking and
    text belongs to neither. Tags further on in the text are text.
    """

    def __init__(self) -> None:
        self._held = ""
        """What may become a tag."""
        self._closing = ""
        """The tag that ends the thinking; empty outside of it."""
        self._found = False
        self._in_text = False

    def feed(self, piece: str) -> tuple[str, str]:
        """Return the thinking and the text that `piece` completes."""
        if self._in_text:
            return "", piece
        self._held += piece
        thinking: list[str] = []
        while True:
            if self._closing:
                inside, closing, rest = self._held.partition(self._closing)
                if not closing:
                    end = _start_of_tag(self._held, self._closing)
                    thinking.append(self._held[:end])
                    self._held = self._held[end:]
                    return "".join(thinking), ""
                thinking.append(inside)
                self._held, self._closing = rest, ""
            start = self._held.lstrip()
            opening = next((tag for tag in _TAGS if start.startswith(tag)), None)
            if opening is None:
                if any(tag.startswith(start) for tag in _TAGS):  # The tag may still come.
                    return "".join(thinking), ""
                self._in_text = True
                return "".join(thinking), start if self._found else self._held
            self._found = True
            self._held, self._closing = start.removeprefix(opening), _TAGS[opening]

    def finish(self) -> tuple[str, str]:
        """Return what was held back, when no more pieces come."""
        held, self._held = "" if self._in_text else self._held, ""
        if self._closing:
            return held, ""
        return "", held.lstrip() if self._found else held


def split_thinking(text: str) -> tuple[str, str]:
    """Return the thinking at the beginning of a text, and the text."""
    if not text.lstrip().startswith((*_TAGS,)):
        return "", text
    splitter = ThinkingSplitter()
    (thinking, rest), (thinking_held, rest_held) = splitter.feed(text), splitter.finish()
    return thinking + thinking_held, rest + rest_held


def _start_of_tag(text: str, tag: str) -> int:
    """Return the index in `text` at which a tag begins that its end cuts off."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return len(text) - size
    return len(text)
