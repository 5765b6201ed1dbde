"""`agentkit view`: where the page goes, and what is refused."""

from __future__ import annotations

import stat
import webbrowser
from pathlib import Path

import pytest

from agentkit.errors import ConfigurationError, TraceError
from tests.cli.support import agentkit, here


def test_the_page_stands_beside_its_trace(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its path is printed; only its owner may read it; it is made anew each time."""
    for _ in range(2):
        here("view", str(runs / "count.jsonl"))
        page = runs / "count.html"
        assert capsys.readouterr().out == f"{page}\n"
        assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    here("view", str(runs / "count.jsonl"), str(runs / "hello.jsonl"))
    assert capsys.readouterr().out == f"{runs / 'count-hello.html'}\n"


def test_the_page_goes_where_it_is_to_go(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-o` names the file, and `--open` opens it."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    page = tmp_path / "a page.html"
    here("view", str(runs / "count.jsonl"), "-o", str(page), "--open")
    assert page.is_file()
    assert opened == [page.as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    with pytest.raises(ConfigurationError, match="No browser could be opened"):
        here("view", str(runs / "count.jsonl"), "-o", str(page), "--open")


def test_nothing_but_a_page_is_overwritten(runs: Path, tmp_path: Path) -> None:
    """Neither a file of another kind, a trace among them, nor a folder."""
    other = tmp_path / "notes.html"
    other.write_text("my notes")
    for place in (other, runs / "count.jsonl", tmp_path):
        with pytest.raises(TraceError, match="is not overwritten"):
            here("view", str(runs / "count.jsonl"), "-o", str(place))
    assert other.read_text() == "my notes"


def test_what_cannot_be_shown_is_said_in_one_line(runs: Path, tmp_path: Path) -> None:
    """No trace, a damaged one, a place that cannot be written, an agent that is not there."""
    (tmp_path / "no.jsonl").write_text("{}\n")
    lines = (runs / "count.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "bad.jsonl").write_bytes(b"".join(lines[:3]) + b"{damaged\n" + lines[-1])
    calls = {
        ("nowhere.jsonl",): "cannot be read",
        ("no.jsonl",): "There is no trace",
        ("bad.jsonl",): "damaged",
        (str(runs / "count.jsonl"), "-o", "no/such/place.html"): "cannot be written",
        (str(runs / "count.jsonl"), "--app", "nothing.py:agent"): "nothing.py",
    }
    for arguments, message in calls.items():
        done = agentkit("view", *arguments, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_the_page_has_the_code_of_the_tools(travel: Path) -> None:
    """With `--app`, and the commands of the page name the agent."""
    done = agentkit("view", "run.jsonl", "--app", "app.py:agent", cwd=travel)
    assert done.returncode == 0, done.stderr
    assert (travel / "run.html").is_file()
