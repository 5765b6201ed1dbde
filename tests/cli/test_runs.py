"""`agentkit runs`, as a user runs it: real processes, real files."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.cli.support import agentkit


def test_runs_lists_the_newest_first(runs: Path) -> None:
    """When, run, agent, status, steps, tokens, duration and prompt; the width is enough."""
    done = agentkit("runs", ".", cwd=runs, columns=None)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == "when run agent status steps tokens cost seconds prompt".split()
    names = [row.split()[2] for row in rows]
    assert names == ["fail", "clean", "hello", "count"]
    assert re.search(r"hello +polite +✓ ok +1 +10 → 5 .* word word word", rows[2])
    assert re.search(r"fail +agent +✗ error +1 ", rows[0])


def test_runs_as_json(runs: Path) -> None:
    """The same as data."""
    listed = json.loads(agentkit("runs", ".", "--json", cwd=runs).stdout)
    assert [one["status"] for one in listed] == ["error", "paused", "ok", "ok"]
    assert listed[2]["usage"] == {"requests": 1, "input_tokens": 10, "output_tokens": 5}
    assert listed[0]["error"]["type"] == "AgentKitError"


def test_runs_lists_what_cannot_be_read(runs: Path, tmp_path: Path) -> None:
    """A damaged file and one that is no trace are rows like the others, not the end."""
    content = (runs / "count.jsonl").read_bytes()
    (tmp_path / "good.jsonl").write_bytes(content)
    (tmp_path / "damaged.jsonl").write_bytes(content.replace(b'{"event":"tool.start"', b"{", 1))
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)))
    (tmp_path / "empty.jsonl").touch()
    done = agentkit("runs", ".", cwd=tmp_path, columns=None)
    assert done.returncode == 0, done.stderr
    assert re.search(r"good +agent +✓ ok", done.stdout)
    assert re.search(r"damaged\.jsonl +unreadable .*Line \d+ of the trace", done.stdout)
    assert len(re.findall(r"unreadable .*does not begin with", done.stdout)) == 2


def test_runs_and_show_know_where_traces_go(runs: Path, tmp_path: Path) -> None:
    """Without a folder it is AGENTKIT_TRACE_DIR, or the state folder's; there a run has a name."""
    done = agentkit("runs", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "There are no runs in" in done.stderr
    run = "01" * 12 + "abcd1234"
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / f"{run}.jsonl").write_bytes((runs / "count.jsonl").read_bytes())
    place = {"AGENTKIT_TRACE_DIR": str(tmp_path / "traces")}
    assert " abcd1234 " in agentkit("runs", cwd=tmp_path, **place).stdout
    assert "Double these" in agentkit("show", "abcd1234", cwd=tmp_path, **place).stdout
    done = agentkit("show", "dead", cwd=tmp_path, **place)
    assert done.returncode == 2
    assert "There is no file 'dead', and no run with this name" in done.stderr
