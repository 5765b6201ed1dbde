"""A folder that no path leaves, whatever happens to it meanwhile.

A path is followed name by name, each opened relative to the descriptor of the folder before
it and never through a symbolic link. Links are read and followed here, so one that is swapped
in between two steps is refused by the system and leads nowhere.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import secrets
import stat
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from agentkit import ToolError
from agentkit.errors import ConfigurationError

MAX_BYTES = 10_000_000
"""Files over this size are neither read nor written."""
MAX_DEPTH = 64
_MAX_LINKS = 40
_FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
# Not blocking: opening a pipe would wait for its other end.
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a path leads.

    Attributes:
        folder: The descriptor of the folder that holds it.
        name: Its name there; "." for the root.
        path: Its path below the root, with "/" between names.
        status: Its lstat; None if nothing has that name.
    """

    folder: int
    name: str
    path: str
    status: os.stat_result | None


class Root:
    """A folder, and safe ways to what is in it.

    Raises:
        ConfigurationError: There is no such folder, or the system cannot open files relative
            to a folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW"):
            raise ConfigurationError(
                "This system cannot open files relative to a folder (openat), so a folder "
                "cannot be kept closed here. Run on Linux or macOS."
            )
        self.path = Path(os.path.realpath(path))
        if not self.path.is_dir():
            raise ConfigurationError(f"{os.fspath(path)!r} is not a folder. Create it first.")

    @contextlib.contextmanager
    def find(self, path: str, *, make: bool = False) -> Generator[Place]:
        """Follow a path to its end and keep the folder that holds it open.

        Args:
            path: Relative to the root.
            make: Create the folders that are missing on the way.

        Raises:
            ToolError: The path leads out of the root, into `.git`, or through something that
                is no folder; or the system refuses it.
        """
        with _explained(path), contextlib.ExitStack() as stack:
            yield _Way(self.path, path, stack, make=make).end()

    @contextlib.contextmanager
    def folder(self, path: str) -> Generator[tuple[int, str]]:
        """Open a folder; yield its descriptor and its path below the root.

        Raises:
            ToolError: See `find`; or it is no folder.
        """
        with self.find(path) as place, contextlib.ExitStack() as stack:
            if place.status is None:
                raise ToolError(_missing(path, place.name, place.folder, []))
            if not stat.S_ISDIR(place.status.st_mode):
                raise ToolError(f"{path!r} is no folder; read it as a file.")
            yield _opened(stack, place.name, place.folder), place.path

    def read(self, path: str) -> tuple[str, bytes]:
        """Read a file and return its path below the root, and what it holds.

        Raises:
            ToolError: See `find`; or it is no ordinary file, or too large.
        """
        with self.find(path) as place:
            if place.status is None:
                raise ToolError(_missing(path, place.name, place.folder, []))
            return place.path, read_at(place.folder, place.name, path)

    def create(self, path: str, data: bytes) -> str:
        """Write a new file and return its path below the root; never replace one.

        Raises:
            ToolError: See `find`; or something has that name already.
        """
        with self.find(path, make=True) as place:
            if place.status is not None:
                raise ToolError(f"{path!r} exists. Edit it, or pass overwrite=true.")
            _write(place.folder, place.name, data)
            return place.path

    def replace(self, path: str, data: bytes, *, old: bytes | None = None) -> str:
        """Replace a file by a new one in one step and return its path below the root.

        A hard link of the old file elsewhere keeps what it has, and a reader sees the old or
        the new text, never half of one.

        Args:
            path: Relative to the root.
            data: What the new file holds.
            old: What the file must hold until then, if anything.

        Raises:
            ToolError: See `find`; or it is no ordinary file, or holds something else by now.
        """
        with self.find(path) as place:
            if place.status is None:
                raise ToolError(_missing(path, place.name, place.folder, []))
            current = read_at(place.folder, place.name, path)
            if old is not None and current != old:
                raise ToolError(f"{path!r} changed meanwhile. Read it again.")
            temporary = f".{secrets.token_hex(8)}.tmp"
            try:
                _write(place.folder, temporary, data, place.status.st_mode & 0o777)
                os.replace(temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=place.folder)
                raise
            return place.path


class _Way:
    """The way to the end of a path, with all folders on it open."""

    def __init__(self, root: Path, path: str, stack: contextlib.ExitStack, *, make: bool) -> None:
        self._root = root
        self._path = path
        self._stack = stack
        self._make = make
        self._todo = deque(_names(path))
        self._opened = [_opened(stack, str(root))]
        self._walked: list[str] = []
        self._links = 0

    def end(self) -> Place:
        """Go on to the end."""
        while self._todo:
            name = self._todo.popleft()
            if name == "..":
                self._up()
                continue
            if name.casefold() == ".git":
                raise ToolError(f"{self._path!r} is in .git, which is out of reach.")
            status = _status(name, self._opened[-1])
            if status is not None and stat.S_ISLNK(status.st_mode):
                self._follow(name)
            elif self._todo:
                self._down(name, status)
            else:
                path = "/".join([*self._walked, name])
                return Place(folder=self._opened[-1], name=name, path=path, status=status)
        path = "/".join(self._walked) or "."
        status = os.stat(".", dir_fd=self._opened[-1])
        return Place(folder=self._opened[-1], name=".", path=path, status=status)

    def _up(self) -> None:
        if not self._walked:
            raise ToolError(f"{self._path!r} leads out of the folder. Stay inside it.")
        self._opened.pop()
        self._walked.pop()

    def _down(self, name: str, status: os.stat_result | None) -> None:
        if status is None and not self._make:
            raise ToolError(_missing(self._path, name, self._opened[-1], self._walked))
        if len(self._walked) >= MAX_DEPTH:
            raise ToolError(f"{self._path!r} is more than {MAX_DEPTH} folders deep.")
        if status is None:
            os.mkdir(name, dir_fd=self._opened[-1])
        self._opened.append(_opened(self._stack, name, self._opened[-1]))
        self._walked.append(name)

    def _follow(self, name: str) -> None:
        self._links += 1
        if self._links > _MAX_LINKS:
            raise ToolError(f"{self._path!r} is a symbolic link that leads nowhere.")
        target = os.readlink(name, dir_fd=self._opened[-1])
        if os.path.isabs(target):
            try:
                target = str(Path(target).relative_to(self._root))
            except ValueError:
                raise ToolError(f"{self._path!r} is a symbolic link out of the folder.") from None
            del self._opened[1:], self._walked[:]
        names = [one for one in target.split("/") if one not in ("", ".")]
        self._todo.extendleft(reversed(names))


def read_at(folder: int, name: str, path: str) -> bytes:
    """Read an ordinary file in an open folder.

    Raises:
        ToolError: It is something else, has a second name, or is too large.
        OSError: The system refuses it; a symbolic link, among others.
    """
    # Before it is opened, because opening a device may do something.
    _check(os.stat(name, dir_fd=folder, follow_symlinks=False), path)
    with open(os.open(name, _READ, dir_fd=folder), "rb") as file:
        _check(os.fstat(file.fileno()), path)
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ToolError(f"{path!r} is over {MAX_BYTES:,} bytes, which is too large.")
    return data


def _check(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ToolError(f"{path!r} is a folder; list it.")
    if not stat.S_ISREG(status.st_mode):
        raise ToolError(f"{path!r} is no ordinary file.")
    if status.st_nlink > 1:
        raise ToolError(
            f"{path!r} has a second name (a hard link), which may be outside the folder."
        )
    if status.st_size > MAX_BYTES:
        raise ToolError(
            f"{path!r} has {status.st_size:,} bytes; more than {MAX_BYTES:,} is too large."
        )


def _write(folder: int, name: str, data: bytes, mode: int | None = None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL  # neither a file nor a link may be there
    with open(os.open(name, flags, 0o666, dir_fd=folder), "wb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.write(data)


def _opened(stack: contextlib.ExitStack, name: str, folder: int | None = None) -> int:
    descriptor = os.open(name, os.O_RDONLY | _FOLDER, dir_fd=folder)
    stack.callback(os.close, descriptor)
    return descriptor


def _status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _names(path: str) -> list[str]:
    """Return the names in a path that a model sent."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise ToolError("The path is not valid Unicode.") from None
    if b"\0" in encoded or len(encoded) > 4096:
        raise ToolError("A path has at most 4,096 bytes, and none of them is NUL.")
    if path.startswith("/"):
        raise ToolError(
            f"{path!r} is absolute. Paths are relative to the folder, as in 'src/app.py'; "
            "the folder itself is '.'."
        )
    return [name for name in path.split("/") if name not in ("", ".")]


def _missing(path: str, name: str, folder: int, walked: list[str]) -> str:
    names = [other for other in os.listdir(folder) if other.isprintable()]
    near = difflib.get_close_matches(name, names[:10_000], n=3)
    where = f" in {'/'.join(walked)!r}" if walked else ""
    hint = f" Similar names{where}: {', '.join(map(repr, near))}." if near else ""
    return f"There is no {path!r}.{hint}"


@contextlib.contextmanager
def _explained(path: str) -> Generator[None]:
    """Turn the system's errors into a text for the model, without a path of the host's."""
    try:
        yield
    except OSError as error:
        raise ToolError(f"{path!r} cannot be opened: {error.strerror}.") from error
