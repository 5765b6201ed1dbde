"""The example with two workers, followed as its README says: one is killed, all runs end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.durable.temporal.conftest import Server
from tests.support import ROOT, child_environment

PROGRAM = str(ROOT / "examples" / "durable" / "trips.py")


def program(*args: str) -> list[str]:
    """Return the command line of the example."""
    return [sys.executable, PROGRAM, *args]


@contextmanager
def running(folder: Path, server: Server) -> Generator[subprocess.Popen[str], None, None]:
    """Run a worker of the example."""
    command = program("work", "--seconds", "1", "--server", server.address)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, stdout=pipe, text=True, env=child_environment()
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.storm_only
def test_ten_runs_end_although_a_worker_is_killed(server: Server, tmp_path: Path) -> None:
    """Each has booked once, whatever was in flight."""
    with running(tmp_path, server) as first, running(tmp_path, server) as second:
        for one in (first, second):
            assert one.stdout is not None
            assert one.stdout.readline() == f"Worker {one.pid} is ready.\n"
        command = program("start", "10", "--server", server.address)
        runs = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=child_environment()
        )
        assert runs.stdout is not None
        assert runs.stdout.readline() == "10 runs have been started.\n"
        time.sleep(0.5)
        os.kill(first.pid, signal.SIGKILL)
        ends, _ = runs.communicate(timeout=60)
    assert len(ends.splitlines()) == 10
    assert ends.count(" is booked.\n") == 10
    assert len([*(tmp_path / "bookings").iterdir()]) == 10


def test_what_is_missing_is_said(server: Server, tmp_path: Path) -> None:
    """A server that is not there, and a worker that was never started."""
    nowhere = program("start", "1", "--server", "127.0.0.1:1")
    done = subprocess.run(
        nowhere, cwd=tmp_path, capture_output=True, text=True, env=child_environment(), check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no Temporal server at 127.0.0.1:1; start it" in done.stderr
    early = program("start", "1", "--server", server.address)
    done = subprocess.run(
        early, cwd=tmp_path, capture_output=True, text=True, env=child_environment(), check=False
    )
    assert done.returncode == 1
    assert "Start a worker first" in done.stderr
