"""`agentkit export`: to a real OpenTelemetry receiver and to a file; and what is refused."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from agentkit import Trace
from agentkit.errors import TraceError
from tests.cli.support import agentkit, here
from tests.support import run_python
from tests.trace.receiver import attributes, receiver


def test_a_run_is_sent(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twice it is the same; contents are sent if they are asked for."""
    file = runs / "count.jsonl"
    for options in ([], ["--content"]):
        with receiver() as got:
            for _ in range(2):
                here("export", "otel", str(file), "--endpoint", got.url, *options)
        where = f"{got.url}/v1/traces"
        line = f"Sent 5 spans of run {Trace.load(file).run} to {where}\n"
        assert capsys.readouterr().out == line * 2
        first, second = got.bodies["/v1/traces"]
        assert first == second
        assert (b"Double these" in first) is bool(options)
    places = ("/agent", "/agent/m0", "/agent/m0/t0", "/agent/m0/t1", "/agent/m1")
    assert {attributes(span)["agentkit.at"] for span in got.spans} == set(places)


def test_the_receiver_is_the_one_of_the_environment(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables of the specification count: address, headers, names."""
    with receiver() as got:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", got.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "counting")
        here("export", "otel", str(runs / "hello.jsonl"))
        # A base URL with its path is one, too.
        here("export", "otel", str(runs / "hello.jsonl"), "--endpoint", f"{got.url}/v1/traces/")
    assert len(got.bodies["/v1/traces"]) == 2
    assert b"counting" in got.bodies["/v1/traces"][0]


def test_a_file_for_perfetto(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It stands beside the trace, is made anew each time, and only its owner may read it."""
    for _ in range(2):
        here("export", "perfetto", str(runs / "count.jsonl"))
        file = runs / "count.perfetto.json"
        assert capsys.readouterr().out == f"{file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["otherData"]["status"] == "ok"
    other = runs / "other.json"
    here("export", "perfetto", str(runs / "count.jsonl"), "-o", str(other), "--content")
    assert "Double these" in other.read_text()
    assert "Double these" not in file.read_text()


def test_nothing_else_is_overwritten(runs: Path, tmp_path: Path) -> None:
    """Neither a file of another kind, the trace among them, nor a folder."""
    before = (runs / "count.jsonl").read_bytes()
    for place in (runs / "count.jsonl", tmp_path):
        with pytest.raises(TraceError, match="is not overwritten"):
            here("export", "perfetto", str(runs / "count.jsonl"), "-o", str(place))
    assert (runs / "count.jsonl").read_bytes() == before


def test_what_cannot_be_exported_is_one_line(runs: Path, tmp_path: Path) -> None:
    """No trace, a damaged one, no receiver, a place that cannot be written: with its status."""
    (tmp_path / "no.jsonl").write_text("{}\n")
    lines = (runs / "count.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "bad.jsonl").write_bytes(b"".join(lines[:3]) + b"{damaged\n" + lines[-1])
    lacking = [line.replace(b'"agent":"agent",', b"") for line in lines]
    (tmp_path / "lacks.jsonl").write_bytes(b"".join(lacking))
    trace = str(runs / "count.jsonl")
    calls = {
        ("otel", "nowhere.jsonl"): (2, "cannot be read"),
        ("otel", "no.jsonl"): (2, "There is no trace"),
        ("otel", "bad.jsonl"): (2, "damaged"),
        ("perfetto", "lacks.jsonl"): (2, "has no 'agent'"),
        ("otel", trace, "--endpoint", "http://127.0.0.1:1"): (1, "No receiver can be reached"),
        ("otel", trace, "--endpoint", "collector:4318"): (2, "is not a valid URL"),
        ("perfetto", "no.jsonl"): (2, "There is no trace"),
        ("perfetto", trace, "-o", "no/such/place.json"): (2, "cannot be written"),
    }
    for arguments, (status, message) in calls.items():
        done = agentkit("export", *arguments, cwd=tmp_path, columns=None)
        assert done.returncode == status, done.stderr
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""


def test_without_the_extra(runs: Path) -> None:
    """Only `otel` needs it, and says so."""
    trace = str(runs / "hello.jsonl")
    code = f"""
import sys
sys.modules["opentelemetry"] = None
from tests.cli.support import here
here("export", "perfetto", {trace!r})
try:
    here("export", "otel", {trace!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    file, refused = run_python("-c", code).stdout.splitlines()
    assert file == str(runs / "hello.perfetto.json")
    assert refused == (
        "ConfigurationError OpenTelemetry needs an extra that is not installed. "
        'Run: pip install "agentkit-replay[otel]"'
    )
