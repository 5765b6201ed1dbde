"""Patterns for paths and lines, in time that grows with the text and never explodes.

Python's `re` can take years for a line that a hostile pattern is made for, holding up the
whole process. pydantic has the `regex` crate of Rust, which cannot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic_core import SchemaError, SchemaValidator, core_schema

from agentkit import ToolError


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a regular expression occurs in a text.

    Raises:
        ToolError: The expression is not valid, or too large.
    """
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError as error:
        reason = str(error).partition("SchemaError: ")[2] or str(error)
        raise ToolError(f"{pattern!r} is not a valid regular expression: {reason}") from error
    return validator.isinstance_python


def glob(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a path matches: "*.py", "src/**/*.{ts,tsx}".

    As in .gitignore, a pattern without "/" matches names in every folder.

    Raises:
        ToolError: The pattern is not valid.
    """
    return matcher(_regex(pattern.strip("/"), anchored="/" in pattern.rstrip("/"), braces=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    matches: Callable[[str], bool]
    ignored: bool  # False for a line with "!"
    folders: bool  # only these


class Ignored:
    """What the lines of a .gitignore say about the paths below its folder."""

    def __init__(self, text: str) -> None:
        self._rules = [rule for line in text.split("\n") if (rule := _rule(line)) is not None]

    def verdict(self, path: str, *, folder: bool) -> bool | None:
        """Tell whether a path is ignored; None if no line matches it.

        Args:
            path: Relative to the folder of the .gitignore.
            folder: Whether it is a folder.
        """
        for rule in reversed(self._rules):
            if (folder or not rule.folders) and rule.matches(path):
                return rule.ignored
        return None


def is_ignored(levels: Sequence[tuple[str, Ignored]], path: str, *, folder: bool) -> bool:
    """Tell whether a path is ignored; the .gitignore that is nearest to it has the last word.

    Args:
        levels: The folders above the path, each with its .gitignore, from the top.
        path: Relative to the root, as those are.
        folder: Whether it is a folder.
    """
    for above, ignored in reversed(levels):
        verdict = ignored.verdict(path[len(above) + 1 if above else 0 :], folder=folder)
        if verdict is not None:
            return verdict
    return False


def _rule(line: str) -> _Rule | None:
    """Read a line as gitignore(5) has it."""
    line = re.sub(r"(?<!\\)((?:\\\\)*) +$", r"\1", line.removesuffix("\r"))
    ignored = not line.startswith("!")
    line = line.removeprefix("!")
    if not line or line.startswith("#"):
        return None
    pattern = line.removesuffix("/")
    try:
        regex = _regex(pattern.removeprefix("/"), anchored="/" in pattern)
        return _Rule(matches=matcher(regex), ignored=ignored, folders=line.endswith("/"))
    except ToolError:
        return None


_TOKEN = re.compile(r"\*\*/|/\*\*$|\*+|\?|\\.|\[[!^]?\]?(?:\[:\w+:\]|\\.|[^\]])*\]|.", re.DOTALL)


def _regex(pattern: str, *, anchored: bool, braces: bool = False) -> str:
    """Translate a pattern of gitignore(5) to the syntax of Rust's regular expressions."""
    parts: list[str] = []
    depth = 0  # of braces
    for token in _TOKEN.findall(pattern):
        if token == "**/" and (not parts or parts[-1] == "/"):
            parts.append("(?:.*/)?")
        elif token == "/**":
            parts.append("/.+")
        elif token == "**/":
            parts += ["[^/]*", "/"]
        elif token.startswith("*"):
            parts.append(".*" if token == pattern == "**" else "[^/]*")
        elif token == "?":
            parts.append("[^/]")
        elif len(token) > 2 and token.startswith("["):
            parts.append(_class(token[1:-1]))
        elif braces and (token == "{" or (token in ",}" and depth)):
            depth += {"{": 1, "}": -1}.get(token, 0)
            parts.append({"{": "(?:", "}": ")", ",": "|"}[token])
        else:
            parts.append(re.escape(token[-1]))
    return rf"(?s)\A{'' if anchored else '(?:.*/)?'}(?:{''.join(parts)})\z"


def _class(inner: str) -> str:
    negated = inner[0] in "!^"
    items = re.findall(r"\[:\w+:\]|\\.|.", inner[1:] if negated else inner, re.DOTALL)
    ends = (0, len(items) - 1)  # where "-" stands for itself
    plain = "".join(
        item if (item == "-" and at not in ends) or len(item) > 2 else rf"\x{{{ord(item[-1]):x}}}"
        for at, item in enumerate(items)
    )
    return f"[^/{plain}]" if negated else f"[{plain}&&[^/]]"
