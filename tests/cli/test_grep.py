"""`agentkit grep`, as a user runs it: real processes, real files."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.support import agentkit


def test_grep_prints_file_address_and_line(runs: Path) -> None:
    """In messages, arguments, results and errors; each text once, where it first stood."""
    done = agentkit("grep", "unlucky|number.:1}|^Two", "count.jsonl", cwd=runs)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    kinds = [line.split()[1:3] for line in lines]
    assert kinds[0] == ["/agent/m0/t0", "arguments:"]
    assert kinds[1:-1] == [["/agent/m0/t1", "result:"]]  # not also the warning and the error
    assert r"count.jsonl /agent/m0/t1 result: ValueError: an unlucky\x1b[31m number" in lines
    assert lines[-1] == r"count.jsonl /agent/m1 assistant: Two \u202eand no luck."


def test_grep_looks_through_folders_and_ignores_case(runs: Path) -> None:
    """Prompts belong to the agent's address; files that are no traces are said and skipped."""
    (runs / "other.jsonl").write_text("CLEAN\n")
    try:
        done = agentkit("grep", "-i", "CLEAN UP", ".", "count.jsonl", cwd=runs)
    finally:
        (runs / "other.jsonl").unlink()
    assert (done.returncode, done.stdout) == (0, "clean.jsonl /cleaner user: Clean up\n")
    assert "'other.jsonl'" in done.stderr


def test_grep_as_json_and_without_a_match(runs: Path) -> None:
    """Status 1 where nothing is found."""
    done = agentkit("grep", "Clean", ".", "--json", cwd=runs)
    hit = {"file": "clean.jsonl", "at": "/cleaner", "kind": "user", "line": "Clean up"}
    assert json.loads(done.stdout) == [hit]
    done = agentkit("grep", "nowhere", ".", cwd=runs)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
