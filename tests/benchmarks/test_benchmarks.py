"""The benchmarks work: the smallest sizes, and nothing that depends on time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as main
from tests.benchmarks import scale
from tests.benchmarks.__main__ import (
    HAND,
    OWN,
    ROWS,
    Bench,
    Process,
    get,
    result_of,
    server,
    table,
)
from tests.support import ROOT

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="they read a process's memory from /proc"
)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks."""
    return subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.storm_only
def test_the_table_and_its_json(tmp_path: Path) -> None:
    """Each row has a figure for each contender, as a table and as JSON with all samples."""
    file = tmp_path / "bench.json"
    rows = ["run", "steps", "c200", "partials", "growth"]
    done = bench("--smoke", "--only", "agentkit", "floor", "--json", str(file), "--rows", *rows)
    assert done.returncode == 0, done.stderr
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()]
    assert lines[0] == ["workload", "floor", "hand", "agentkit"]
    results = json.loads(file.read_text())["rows"]
    assert [one["row"] for one in results] == rows
    for one in results:
        assert {"hand", "agentkit"} <= set(one["contenders"])
        for figures in one["contenders"].values():
            assert figures["median"] > 0
            assert figures["all"] == [figures["median"]]
            assert figures["ratio"] > 0
            assert 0 <= figures["server"] < 2


@pytest.mark.storm_only
def test_all_contenders_send_the_same_and_return_the_same() -> None:
    """The hand-written loops and agentkit send the same JSON and return the same result."""
    jobs = ["run", "delta", "typed"]
    with server() as url:
        get(f"{url}/bodies")
        sent = {}
        for contender in OWN[1:4]:
            process = Process(contender, url)
            for job in jobs:
                sample = process.sample(job, 1, 0)
                bodies = [json.loads(one) for one in get(f"{url}/bodies")]
                sent[contender.name, job] = (sample["result"], bodies)
            process.close()
    for (_, job), found in sent.items():
        result, bodies = sent[HAND.name, job]
        assert len(bodies) == (6 if job == "run" else 1)
        assert found[0] == result
        assert found[1] == bodies


def test_a_sample_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up with its process, the table says so, and the next row has a new one."""
    row = next(one for one in ROWS if one.name == "fan")
    with server() as url, ExitStack() as stack:
        bench = Bench(url, [HAND], stack)
        bench.process(HAND)
        with monkeypatch.context() as patch:
            patch.setattr(main, "LONGEST", 0.01)
            result = result_of(row, bench.measure(row, 1, 1), 1)
            assert [*table([result], ["hand"])][-1].endswith("| > 0.01 s |")
        (sample,) = bench.measure(row, 1, 2)["hand"]
        assert sample["wall"] > 0


def test_an_unknown_contender() -> None:
    """The message names those that there are."""
    done = bench("--only", "nobody")
    assert done.returncode == 1
    assert done.stderr == (
        "There is no contender 'nobody'. There are: floor, hand, hand aiohttp, agentkit, "
        "no trace, aiohttp.\n"
    )


def test_what_many_runs_need() -> None:
    """Each figure of one run times their number; a run waits twelve seconds for its models."""
    one = scale.Figures(cpu=0.006, lasts=12, memory=50e3, descriptors=2, trace=24e3)
    assert list(scale.needs(one))[2:] == [
        "| runs ended in a second | 0.083 | 830 | 83,000 |",
        "| requests to models in a second | 0.5 | 5,000 | 500,000 |",
        "| cores | 0.0005 | 5 | 500 |",
        "| memory | 0.05 MB | 500 MB | 50,000 MB |",
        "| open files and sockets | 2 | 20,000 | 2,000,000 |",
        "| written to traces in a second | 0.002 MB | 20 MB | 2,000 MB |",
    ]
    assert "- 2,000 runs: one core, which is all that one event loop uses" in scale.saturates(one)
