"""Tools for the files of one folder: list, read and search; edit and write where allowed."""

from __future__ import annotations

import codecs
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from agentkit import Tool, ToolError, Toolset
from agentkit.tools import FunctionToolset
from agentkit_tools._globs import glob as globbed
from agentkit_tools._globs import matcher
from agentkit_tools._root import MAX_BYTES, Root, read_at
from agentkit_tools._walk import Entry, Walk

_READ_BYTES = 60_000
_LINE_CHARACTERS = 15_000  # of a line that has more bytes than that
_LISTED = 500
_MATCHES = 200
_MATCH_CHARACTERS = 300
_MATCHED_CHARACTERS = 10_000  # of a line that is searched
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_writing = threading.Lock()  # between reading a file and replacing it, in any run


def files_tools(
    root: str | os.PathLike[str],
    *,
    write: bool = False,
    approval: bool | Callable[..., Any] = True,
) -> Toolset:
    """Return tools for the files in one folder: `list_files`, `read_file`, `search_files`.

    They reach nothing outside the folder: absolute paths, `..` and symbolic links that lead out
    of it are refused, and so is a link that is swapped in while a path is followed. Also out
    of reach: `.git`, whose hooks would run programs; files with a second name (hard links);
    pipes, devices and sockets; files over 10 MB. A file system mounted in the folder is part of
    it, and everything else in it can be read, `.env` files included.

    Args:
        root: The folder. Its path on this machine is not shown to the model.
        write: Whether there are `edit_file` and `write_file`, too.
        approval: Whether these two wait for a person's approval; see `Tool`.

    Raises:
        ConfigurationError: There is no such folder, or the system has no `openat`.

    Example:
        >>> agent = Agent("openai:gpt-4o", tools=[files_tools("src", write=True)])
    """
    files = _Files(Root(root))
    tools: list[Tool[..., Any]] = [
        Tool(files.list_files, effect="read"),
        Tool(files.read_file, effect="read"),
        Tool(files.search_files, effect="read"),
    ]
    if write:  # one after the other, so that calls of one response act in their order
        tools += [
            Tool(files.edit_file, approval=approval, sequential=True),
            Tool(files.write_file, approval=approval, sequential=True),
        ]
    return FunctionToolset(tools)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Text:
    """A file's text, and how it is written."""

    text: str
    encoding: str
    bom: bytes = b""
    crlf: bool = False  # at the end of every line

    def encode(self, text: str) -> bytes:
        """Return the bytes of another text in the same form.

        Raises:
            ToolError: The encoding has not all of its characters.
        """
        text = text.replace("\n", "\r\n") if self.crlf else text
        try:
            return self.bom + text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise ToolError(
                f"{text[error.start : error.end]!r} cannot be written in the file's encoding, "
                f"{self.encoding}."
            ) from error


@dataclass(frozen=True, slots=True)
class _Files:
    """The functions behind the tools."""

    root: Root

    def list_files(self, path: str = ".", glob: str | None = None, ignored: bool = False) -> str:
        """List the files of a folder, with their sizes. Folders end with "/".

        Args:
            path: The folder, relative to the top folder.
            glob: List what matches in all folders below, as in "*.py" or "src/**/*.{ts,tsx}".
                Without it, only the folder itself is listed.
            ignored: Whether to list what .gitignore excludes, too.
        """
        matches = None if glob is None else globbed(glob)
        walk = Walk(self.root, ignored=ignored, deep=matches is not None)
        shown: list[str] = []
        for entry in walk.entries(path):
            if matches is None or matches(entry.path.removeprefix(f"{walk.path}/")):
                shown.append(str(entry))
            if len(shown) > _LISTED:
                walk.end = f"only the first {_LISTED} are listed; narrow it down with path and glob"
                shown.pop()
                break
        return _joined(shown or ["Nothing."], walk.end)

    def read_file(
        self,
        path: str,
        start: Annotated[int, Field(ge=1)] = 1,
        lines: Annotated[int, Field(ge=1)] = 1000,
    ) -> str:
        """Read a text file, or some of its lines.

        Args:
            path: The file, relative to the top folder.
            start: The first line to read; lines count from 1.
            lines: How many lines to read.
        """
        path, data = self.root.read(path)
        text = _decoded(path, data)
        rows = text.text.split("\n")
        if rows[-1] == "":
            rows.pop()
        if not rows:
            return f"[{path} is empty]"
        if start > len(rows):
            raise ToolError(f"{path!r} has {len(rows):,} lines; line {start:,} is behind its end.")
        taken: list[str] = []
        room = _READ_BYTES
        for row in rows[start - 1 : start - 1 + lines]:
            room -= len(row.encode()) + 1
            if room < 0:
                break
            taken.append(row)
        last = start + len(taken) - 1
        form = f"{text.encoding}{', CRLF' if text.crlf else ''}"
        if not taken:
            row = rows[start - 1]
            head = f"the first {_LINE_CHARACTERS:,} of {len(row):,} characters of line {start:,}"
            return f"[{path}, {head}, {form}]\n{row[:_LINE_CHARACTERS]}"
        more = f"\n[more from line {last + 1:,}]" if last < len(rows) else ""
        head = f"[{path}, lines {start:,} to {last:,} of {len(rows):,}, {form}]"
        return "\n".join([head, *taken]) + more

    def search_files(
        self,
        pattern: Annotated[str, Field(min_length=1, max_length=1000)],
        path: str = ".",
        glob: str | None = None,
        ignore_case: bool = False,
        ignored: bool = False,
    ) -> str:
        r"""Search the lines of text files for a regular expression (Rust syntax: no look-around).

        Args:
            pattern: The regular expression, as in "def \w+_tools" or "TODO|FIXME".
            path: The folder or file to search, relative to the top folder.
            glob: Search only files that match, as in "*.py" or "src/**/*.{ts,tsx}".
            ignore_case: Whether upper and lower case are the same.
            ignored: Whether to search what .gitignore excludes, too.
        """
        is_match = matcher(f"(?i){pattern}" if ignore_case else pattern)
        in_glob = None if glob is None else globbed(glob)
        walk = Walk(self.root, ignored=ignored)
        found: list[str] = []
        for entry in walk.entries(path):
            if in_glob is not None and not in_glob(entry.path.removeprefix(f"{walk.path}/")):
                continue
            for number, line in enumerate(_lines(entry, walk), 1):
                if walk.is_over():
                    break
                if is_match(line[:_MATCHED_CHARACTERS]):
                    found.append(f"{entry.path}:{number}: {line[:_MATCH_CHARACTERS]}")
                if len(found) == _MATCHES:
                    walk.end = f"only the first {_MATCHES} are shown; narrow the search down"
                    break
        if walk.skipped:
            found.append(f"[{walk.skipped} files could not be read, or are too large]")
        return _joined(found or ["No line matches."], walk.end)

    def edit_file(
        self, path: str, old: Annotated[str, Field(min_length=1)], new: str, all: bool = False
    ) -> str:
        """Replace a piece of a text file by another one, exactly.

        Args:
            path: The file, relative to the top folder.
            old: What is replaced: exactly as it stands in the file, spaces and line ends
                included, and long enough to occur once.
            new: What replaces it.
            all: Whether to replace every occurrence.
        """
        with _writing:
            path, data = self.root.read(path)
            text = _decoded(path, data)
            count = text.text.count(old)
            if not count:
                raise ToolError(
                    f"{path!r} does not contain that text. Read the file, and copy it exactly."
                )
            line = text.text[: text.text.index(old)].count("\n") + 1
            if count > 1 and not all:
                raise ToolError(
                    f"The text occurs {count} times in {path!r}, first in line {line}. Make `old` "
                    "longer, or pass all=true."
                )
            self.root.replace(path, _sized(text.encode(text.text.replace(old, new))), old=data)
        return (
            f"{path}: replaced {count} times." if count > 1 else f"{path}: replaced in line {line}."
        )

    def write_file(self, path: str, text: str, overwrite: bool = False) -> str:
        """Write a text file, in UTF-8; folders that are missing are created.

        Args:
            path: The file, relative to the top folder.
            text: All that it will hold.
            overwrite: Whether an existing file is replaced.
        """
        data = _sized(_Text(text="", encoding="utf-8").encode(text))
        with _writing:
            if overwrite:
                with self.root.find(path, make=True) as place:
                    overwrite = place.status is not None
            path = self.root.replace(path, data) if overwrite else self.root.create(path, data)
        return f"{path}: {len(data):,} bytes {'replaced it' if overwrite else 'written'}."


def _lines(entry: Entry, walk: Walk) -> list[str]:
    """Return the lines of a text file, and none of anything else."""
    if not stat.S_ISREG(entry.status.st_mode):
        return []
    try:
        data = read_at(entry.folder, entry.name, entry.path)
    except (OSError, ToolError):
        walk.skipped += 1
        return []
    try:
        return _decoded(entry.path, data).text.removesuffix("\n").split("\n")
    except ToolError:
        return []  # a binary file


def _decoded(path: str, data: bytes) -> _Text:
    """Decode a file; CRLF becomes one character if all line ends are CRLF.

    Raises:
        ToolError: It is not text.
    """
    bom, encoding = next((one for one in _BOMS if data.startswith(one[0])), (b"", "utf-8"))
    if b"\0" in data and not encoding.startswith("utf-16"):
        raise ToolError(f"{path!r} is a binary file of {len(data):,} bytes, not text.")
    encoding = encoding.removesuffix("-sig")
    try:
        text = data[len(bom) :].decode(encoding)
    except UnicodeDecodeError:
        if bom:
            raise ToolError(f"{path!r} begins like {encoding}, but is not valid.") from None
        encoding = "latin-1"  # every byte is a character, and stays that byte in an edit
        text = data.decode(encoding)
    crlf = 0 < text.count("\r\n") == text.count("\n") == text.count("\r")
    text = text.replace("\r\n", "\n") if crlf else text
    return _Text(text=text, encoding=encoding, bom=bom, crlf=crlf)


def _sized(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise ToolError(f"The file would have {len(data):,} bytes; {MAX_BYTES:,} are allowed.")
    return data


def _joined(lines: list[str], end: str) -> str:
    return "\n".join([*lines, *([f"[{end}]"] if end else [])])
