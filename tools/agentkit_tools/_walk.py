"""Walks through a folder that end in any case, and skip what git ignores."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from agentkit import ToolError
from agentkit_tools._globs import Ignored, is_ignored
from agentkit_tools._root import MAX_DEPTH, Root, read_at

_VISITED = 100_000
_SECONDS = 10.0
_IGNORE_BYTES = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What stands in a folder."""

    folder: int  # its descriptor
    name: str
    path: str
    status: os.stat_result

    def __str__(self) -> str:
        path = self.path if self.path.isprintable() else ascii(self.path)
        if stat.S_ISDIR(self.status.st_mode):
            return f"{path}/"
        if stat.S_ISREG(self.status.st_mode):
            return f"{path} ({self.status.st_size:,} bytes)"
        return f"{path} ({'link' if stat.S_ISLNK(self.status.st_mode) else 'no ordinary file'})"


class Walk:
    """A walk through a folder, which ends in any case.

    Attributes:
        path: Where it starts, below the root.
        end: Why it ended early, if it did.
        skipped: How many files could not be read.
    """

    def __init__(self, root: Root, *, ignored: bool, deep: bool = True) -> None:
        self.path = "."
        self.end = ""
        self.skipped = 0
        self._root = root
        self._ignored = ignored
        self._deep = deep
        self._visited = 0
        self._deadline = time.monotonic() + _SECONDS

    def entries(self, path: str) -> Iterator[Entry]:
        """Yield what stands below a path, in order; a file is itself all that does.

        Raises:
            ToolError: There is no such file or folder in the root.
        """
        with self._root.find(path) as place:
            status = place.status
            if status is not None and not stat.S_ISDIR(status.st_mode):
                yield Entry(folder=place.folder, name=place.name, path=place.path, status=status)
                return
        with self._root.folder(path) as (folder, self.path):
            names = [] if self.path == "." else self.path.split("/")
            levels: list[tuple[str, Ignored]] = []
            for count in range(len(names)):
                above = "/".join(names[:count])
                with self._root.folder(above) as (upper, _):
                    levels += self._level(upper, above)
            yield from self._below(folder, "/".join(names), levels)

    def is_over(self) -> bool:
        """Tell whether the walk has to end, for a reason that `end` names."""
        if not self.end and self._visited > _VISITED:
            self.end = f"not all was visited: there are over {_VISITED:,} files"
        if not self.end and time.monotonic() > self._deadline:
            self.end = f"not all was visited in {_SECONDS:g} seconds"
        return bool(self.end)

    def _below(self, folder: int, path: str, levels: list[tuple[str, Ignored]]) -> Iterator[Entry]:
        levels = [*levels, *self._level(folder, path)]
        for name in sorted(os.listdir(folder)):
            self._visited += 1
            if self.is_over():
                return
            entry = self._entry(folder, name, f"{path}/{name}" if path else name, levels)
            if entry is None:
                continue
            yield entry
            if self._deep and stat.S_ISDIR(entry.status.st_mode) and path.count("/") < MAX_DEPTH:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                try:
                    inner = os.open(name, flags, dir_fd=folder)
                except OSError:  # not ours to read, or replaced by something else
                    continue
                try:
                    yield from self._below(inner, entry.path, levels)
                finally:
                    os.close(inner)

    def _entry(
        self, folder: int, name: str, path: str, levels: list[tuple[str, Ignored]]
    ) -> Entry | None:
        if name.casefold() == ".git":
            return None
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:  # gone meanwhile
            return None
        if is_ignored(levels, path, folder=stat.S_ISDIR(status.st_mode)):
            return None
        return Entry(folder=folder, name=name, path=path, status=status)

    def _level(self, folder: int, path: str) -> list[tuple[str, Ignored]]:
        if self._ignored:
            return []
        try:
            data = read_at(folder, ".gitignore", ".gitignore")
        except (OSError, ToolError):
            return []
        return [(path, Ignored(data[:_IGNORE_BYTES].decode("utf-8", "replace")))]
