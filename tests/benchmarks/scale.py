"""What many concurrent runs need, on paper: computed from what `make bench` has measured.

    make bench ARGS='--json bench.json'
    python -m tests.benchmarks.scale bench.json [--seconds 2] [--contender aiohttp]

It prints Markdown, as it stands in docs/explanation/scale.md. A run is that of the row
`c1000`: five steps of four parallel tools and an answer, six requests to a model that
takes `--seconds` for each. Nothing is measured here but the size of such a run's trace.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.__main__ import server
from tests.benchmarks.contenders.ours import Ours
from tests.benchmarks.scenarios import STEPS, look

REQUESTS = STEPS + 1
CONCURRENT = (10_000, 1_000_000)
PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Figures(NamedTuple):
    """What one run needs: seconds of CPU and of time, bytes, file descriptors, bytes of trace."""

    cpu: float
    lasts: float
    memory: float
    descriptors: float
    trace: float


def trace_size() -> float:
    """Return the bytes that the trace of one run has."""
    with server() as url, asyncio.Runner() as runner:
        ours = Ours(url)
        runner.run(ours.run("run", [look]))
        runner.run(ours.close())
        return sum(path.stat().st_size for path in Path(ours.folder.name).rglob("*.jsonl"))


def figures(measured: Any, contender: str, seconds: float) -> Figures:
    """Return what one run needs, of the JSON that `make bench` writes."""
    rows = {row["row"]: row["contenders"] for row in measured["rows"]}
    if missing := {"c1000", "memory", "descriptors"} - rows.keys():
        raise SystemExit(f"The file has no row {min(missing)!r}: make bench writes it.")
    medians = {name: rows[name][contender]["median"] for name in rows if contender in rows[name]}
    one = Figures(
        cpu=medians["c1000"] / 1e3,
        lasts=REQUESTS * seconds,
        memory=medians["memory"] * 1e3,
        descriptors=medians["descriptors"],
        trace=trace_size(),
    )
    if 0 in one:
        raise SystemExit("The file has a 0, as after --smoke: measure at full size.")
    return one


def needs(one: Figures) -> Iterator[str]:
    """Yield the table: what one run needs, and many at the same time."""
    yield f"| concurrent runs | 1 | {' | '.join(f'{count:,}' for count in CONCURRENT)} |"
    yield "| --- | --- | --- | --- |"
    rows = (
        ("runs ended in a second", "", 1 / one.lasts, 1),
        ("requests to models in a second", "", REQUESTS / one.lasts, 1),
        ("cores", "", one.cpu / one.lasts, 1),
        ("memory", " MB", one.memory, 1e6),
        ("open files and sockets", "", one.descriptors, 1),
        ("written to traces in a second", " MB", one.trace / one.lasts, 1e6),
    )
    for title, unit, each, scale in rows:
        cells = [f"{significant(each * count / scale)}{unit}" for count in (1, *CONCURRENT)]
        yield f"| {title} | {' | '.join(cells)} |"


def significant(value: float) -> str:
    """Return two digits that count, without an exponent."""
    return f"{float(f'{value:.2g}'):,.10g}"


def saturates(one: Figures) -> Iterator[str]:
    """Yield what bounds the runs of one process on this machine, the narrowest first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    bounds = [
        ("one core, which is all that one event loop uses", one.lasts / one.cpu),
        (f"the {memory / 1e9:.0f} GB of memory", memory / one.memory),
        (f"`ulimit -n`, {soft:,} here", soft / one.descriptors),
        (f"`ulimit -Hn`, {hard:,} here", hard / one.descriptors),
    ]
    if PORTS.exists():
        first, last = map(int, PORTS.read_text().split())
        title = f"the {last - first + 1:,} local ports for connections to one address"
        bounds.append((title, last - first + 1))
    for title, runs in sorted(bounds, key=lambda bound: bound[1]):
        yield f"- {significant(runs)} runs: {title}"


def main() -> None:
    """Print what many runs need."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="what make bench has written")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one model call (default 2)")
    parser.add_argument("--contender", default="agentkit", help="whose figures (agentkit, aiohttp)")
    options = parser.parse_args()
    measured = json.loads(options.file.read_text(encoding="utf-8"))
    one = figures(measured, options.contender, options.seconds)
    print(
        f"One run of `{options.contender}`, at {options.seconds:g} s a model call: "
        f"{one.lasts:g} s, {one.cpu * 1e3:.2g} ms of CPU, {one.memory / 1e3:.2g} kB of memory, "
        f"{one.descriptors:.2g} open files and sockets, {one.trace / 1e3:.2g} kB of trace.",
        *("", *needs(one), "", *saturates(one)),
        sep="\n",
    )


if __name__ == "__main__":
    main()
