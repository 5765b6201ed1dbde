"""What agentkit costs beside a loop written by hand: `make bench`.

    make bench [ROWS='run typed'] [PEERS=1] [ARGS='--rounds 9 --json out.json']

Every contender is a process of its own (`contenders/`), and so is the fake server. They
work one at a time, in turns: a round asks each for one sample of a row, in an order that
rotates. What counts is the CPU time of the contender's process, a ratio is that of two
samples of one round, and the table shows the medians: so other work on the machine weighs
on all of them. What is printed is Markdown, as it stands in docs/explanation/speed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import select
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.benchmarks import instructions, peers
from tests.benchmarks.scenarios import DELTAS, ITEMS, LONG, NAP

ROOT = Path(__file__).parents[2]
Sample = dict[str, Any]
PATIENCE = 60
"""Seconds after which a contender gets no further sample of a row."""
LONGEST = 180
"""Seconds after which a sample is given up, and its process with it."""


class Contender(NamedTuple):
    """A process that is measured."""

    name: str
    module: str
    environment: Mapping[str, str] = MappingProxyType({})
    python: str = sys.executable

    def command(self, url: str) -> list[str]:
        """Return what starts its process."""
        return [self.python, "-m", f"tests.benchmarks.contenders.{self.module}", url]

    def variables(self) -> dict[str, str]:
        """Return the environment of its process."""
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**os.environ, **self.environment, "PYTHONPATH": path}


FLOOR = Contender("floor", "floor")
HAND = Contender("hand", "hand")
OWN = (
    FLOOR,
    HAND,
    Contender("hand aiohttp", "hand_aiohttp"),
    Contender("agentkit", "ours"),
    Contender("no trace", "ours", {"TRACE": "off"}),
    Contender("aiohttp", "ours", {"HTTP_CLIENT": "aiohttp"}),
)


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        name: As it is chosen.
        title: What is measured.
        job: What the contenders do; see `worker.JOBS`.
        units: How often, in one sample.
        unit: Of the figure.
        figure: Reads it from a sample, for so many units.
        ratio: Whether the others are shown as multiples of the hand-written loop.
        fresh: Whether each sample needs a new process.
        warm: Units before the sample that are not measured.
    """

    name: str
    title: str
    job: str
    units: int
    unit: str
    figure: Callable[[Sample, int], float | None]
    ratio: bool = True
    fresh: bool = False
    warm: int = 1


def cpu(scale: float, parts: int = 1) -> Callable[[Sample, int], float]:
    """Read the CPU time of one of `parts` parts of a unit."""
    return lambda sample, units: sample["cpu"] / units / parts * scale


def wall(sample: Sample, units: int) -> float:
    """Read the wall time of a unit in milliseconds."""
    return sample["wall"] / units * 1e3


def late(sample: Sample, units: int) -> float | None:
    """Read the CPU time of a late step in milliseconds."""
    return sample["late"] and sample["late"] * 1e3


def growth(sample: Sample, units: int) -> float | None:
    """Read a late step as a multiple of an early one."""
    return sample["late"] and sample["late"] / sample["early"]


def kilobytes(sample: Sample, units: int) -> float:
    """Read the memory of one run."""
    return sample["kilobytes"]


def descriptors(sample: Sample, units: int) -> float:
    """Read the files and sockets of one run."""
    return sample["descriptors"]


MS, US = 1e3, 1e6
ROWS = (
    Row("run", "one run, 5 steps × 4 parallel tools", "run", 30, "ms", cpu(MS), warm=3),
    Row("steps", f"{LONG} steps × 1 tool, step {LONG}", "steps", 2, "ms", late),
    Row("c200", "200 concurrent runs, server of 20 ms", "concurrent", 200, "ms", cpu(MS)),
    Row("c1000", "1,000 concurrent runs", "concurrent", 1_000, "ms", cpu(MS)),
    Row("fan", f"100 async tools of {NAP * 1e3:g} ms in one step", "nap", 3, "ms", wall, False),
    Row("block", "the same with blocking tools", "block", 3, "ms", wall, False),
    Row("delta", "one streamed text delta", "delta", 3, "µs", cpu(US, DELTAS)),
    Row("arguments", "1 MB of tool arguments in 50,000 fragments", "arguments", 1, "ms", cpu(MS)),
    Row("typed", f"{ITEMS}-item typed output", "typed", 40, "ms", cpu(MS), warm=3),
    Row("partials", "the same streamed, validated partials", "partials", 2, "ms", cpu(MS)),
    Row("memory", "memory per concurrent run", "memory", 400, "kB", kilobytes, False, True, 4),
    Row(
        *("descriptors", "file descriptors per concurrent run", "memory", 400, ""),
        *(descriptors, False, True, 4),
    ),
    Row("growth", f"step {LONG} ÷ step 10", "steps", 2, "×", growth, False),
)


class Process:
    """A contender at work."""

    def __init__(self, contender: Contender, url: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            contender.command(url),
            cwd=ROOT,
            env=contender.variables(),
            stdin=pipe,
            stdout=pipe,
            text=True,
        )
        self.line()

    def line(self) -> str:
        """Wait for a line; raise a TimeoutError if it takes too long."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], LONGEST)[0]:
            self.process.kill()
            raise TimeoutError(f"nothing came within {LONGEST} s")
        if line := self.process.stdout.readline():
            return line
        raise SystemExit(f"{self.process.args} ended with status {self.process.wait()}.")

    def sample(self, job: str, units: int, warm: int) -> Sample:
        """Let the contender do a job."""
        assert self.process.stdin is not None
        order = {"job": job, "units": units, "warm": warm}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return json.loads(self.line())

    def close(self) -> None:
        """End the process."""
        with self.process:
            assert self.process.stdin is not None
            self.process.stdin.close()


@contextmanager
def server() -> Iterator[str]:
    """Start the fake server; yields its URL."""
    command = [sys.executable, "-m", "tests.benchmarks.server"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


def get(url: str) -> Any:
    """Return the JSON that the server answers."""
    with urllib.request.urlopen(url) as response:
        return json.load(response)


class Bench:
    """Contenders, the server, and the samples of each row."""

    def __init__(self, url: str, contenders: Sequence[Contender], stack: ExitStack) -> None:
        self.url = url
        self.contenders = contenders
        self.stack = stack
        self.processes: dict[str, Process] = {}
        self.samples: dict[tuple[str, int], dict[str, list[Sample]]] = {}

    def process(self, contender: Contender) -> Process:
        """Return the process of a contender, started on first use."""
        if contender.name not in self.processes:
            process = self.processes[contender.name] = Process(contender, self.url)
            self.stack.callback(process.close)
        return self.processes[contender.name]

    def sample(self, contender: Contender, row: Row, units: int) -> Sample:
        """Return one sample of a row, with the share of a core that the server used."""
        process = Process(contender, self.url) if row.fresh else self.process(contender)
        before, start = get(f"{self.url}/cpu"), time.perf_counter()
        try:
            sample = process.sample(row.job, units, row.warm)
        except TimeoutError as error:
            self.processes.pop(contender.name, None)
            sample = {"error": str(error), "over": True}
        spent, took = get(f"{self.url}/cpu") - before, time.perf_counter() - start
        if row.fresh:
            process.close()
        return sample | {"server": spent / took}

    def measure(self, row: Row, rounds: int, units: int) -> dict[str, list[Sample]]:
        """Return the samples of a row, by contender."""
        if (row.job, units) in self.samples:
            return self.samples[row.job, units]
        samples: dict[str, list[Sample]] = {one.name: [] for one in self.contenders}
        spent = dict.fromkeys(samples, 0.0)
        for number in range(rounds):
            turn = number % len(self.contenders)
            for contender in (*self.contenders[turn:], *self.contenders[:turn]):
                if spent[contender.name] > PATIENCE:
                    continue
                start = time.perf_counter()
                sample = self.sample(contender, row, units)
                spent[contender.name] += time.perf_counter() - start
                if "error" in sample:
                    print(f"{contender.name}, {row.name}: {sample['error']}", file=sys.stderr)
                samples[contender.name].append(sample)
        expected = next((one["result"] for one in samples[HAND.name] if "result" in one), None)
        for name, taken in samples.items():
            for sample in taken:
                if expected is not None and sample.get("result", expected) != expected:
                    raise SystemExit(
                        f"{name} returned {sample['result']!r:.200} for row {row.name}, "
                        f"not {expected!r:.200} as the hand-written loop."
                    )
        self.samples[row.job, units] = samples
        return samples


def result_of(row: Row, samples: dict[str, list[Sample]], units: int) -> dict[str, Any]:
    """Return the medians of a row, as they are written to JSON."""
    figures = {
        name: [row.figure(one, units) if "cpu" in one else None for one in taken]
        for name, taken in samples.items()
    }
    hand = figures[HAND.name]
    contenders: dict[str, Any] = {}
    for name, taken in figures.items():
        known = [one for one in taken if one is not None]
        if not known:
            continue
        pairs = zip(taken, hand, strict=False)  # round by round, as far as there are both
        ratios = [one / by_hand for one, by_hand in pairs if one is not None and by_hand]
        contenders[name] = {
            "median": statistics.median(known),
            "all": known,
            "ratio": statistics.median(ratios) if ratios else None,
            "server": max(one["server"] for one in samples[name]),
        }
    return {
        "row": row.name,
        "title": row.title,
        "unit": row.unit,
        "units": units,
        "shown": "ratio" if row.ratio else "median",
        "contenders": contenders,
        "over": [name for name, taken in samples.items() if any("over" in one for one in taken)],
    }


def cell(result: dict[str, Any], name: str) -> str:
    """Return what a cell of the table shows."""
    found = result["contenders"].get(name)
    if found is None and name in result["over"]:
        return f"> {LONGEST} s"
    if found is None or (result["shown"] == "ratio" and found["ratio"] is None):
        return "–"
    if result["shown"] == "ratio" and name != HAND.name:
        return f"{found['ratio']:.2f}"
    return f"{found['median']:.3g} {result['unit']}".rstrip()


def table(results: Sequence[dict[str, Any]], names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    cells = [["workload", *names]]
    cells += [[one["title"], *(cell(one, name) for name in names)] for one in results]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    for line in cells:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        yield f"| {' | '.join(padded)} |"


def headroom(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield what shows that the server is not what is measured."""
    for one in results:
        others = {n: c for n, c in one["contenders"].items() if n != FLOOR.name}
        floor = one["contenders"].get(FLOOR.name)
        if one["shown"] == "ratio" and floor is not None and others:
            least = min(others, key=lambda name: others[name]["median"])
            room = others[least]["median"] / floor["median"] if floor["median"] else 0
            most = max(others, key=lambda name: others[name]["server"])
            yield (
                f"- `{one['row']}`: a bare socket costs 1/{room:.1f} of the cheapest contender "
                f"({least}); the server was busy for at most {others[most]['server']:.0%} of a "
                f"sample ({most})"
            )


def caption(rounds: int) -> str:
    """Return how the table is read, and where it was measured."""
    return (
        "CPU time as a multiple of the hand-written loop's, or with its unit where one is shown. "
        f"Medians of {rounds} rounds, or of fewer where they took more than {PATIENCE} s. "
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores."
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", nargs="*", choices=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=5, help="samples of each (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples too")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="contenders beside `hand`")
    parser.add_argument("--against", type=Path, metavar="TREE", help="agentkit of this folder too")
    parser.add_argument("--peers", action="store_true", help="install and measure peers too")
    parser.add_argument("--smoke", action="store_true", help="the smallest sizes, one round")
    parser.add_argument(
        "--instructions", action="store_true", help="count instructions with valgrind instead"
    )
    options = parser.parse_args()
    if options.smoke:
        options.rounds = 1
    return options


def chosen(options: argparse.Namespace) -> list[Contender]:
    """Return the contenders that the command line asks for."""
    contenders = [*OWN]
    if options.against is not None:
        if not (options.against / "agentkit" / "__init__.py").is_file():
            raise SystemExit(f"--against {options.against}: there is no agentkit in this folder.")
        contenders.append(Contender("before", "ours", {"TREE": str(options.against.resolve())}))
    others = [*peers.PEERS] if options.peers else []
    known = [*(one.name for one in contenders), *others]
    only = {HAND.name, *(options.only or known)}
    if unknown := only.difference(known):
        raise SystemExit(f"There is no contender {min(unknown)!r}. There are: {', '.join(known)}.")
    for name, python in peers.install(name for name in others if name in only):
        contenders.append(Contender(name, f"peer_{name.replace('-', '_')}", python=python))
    return [one for one in contenders if one.name in only]


def measured(
    options: argparse.Namespace, rows: Sequence[Row], contenders: Sequence[Contender], url: str
) -> list[dict[str, Any]]:
    """Return the results of the rows."""
    results: list[dict[str, Any]] = []
    with ExitStack() as stack:
        bench = Bench(url, contenders, stack)
        for row in rows:
            print(f"{row.title} …", file=sys.stderr, flush=True)
            units = 2 if options.smoke else row.units
            results.append(result_of(row, bench.measure(row, options.rounds, units), units))
    return results


def main() -> None:
    """Measure, and print the table."""
    options = arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    contenders = chosen(options)
    rows = [row for row in ROWS if not options.rows or row.name in options.rows]
    with server() as url:
        if options.instructions:
            for row in rows:
                instructions.compare(row, contenders, url)
            return
        results = measured(options, rows, contenders, url)
    lines = table(results, [one.name for one in contenders])
    print(*lines, "", caption(options.rounds), "", *headroom(results), sep="\n")
    if options.json is not None:
        data = {"python": platform.python_version(), "cores": os.cpu_count(), "rows": results}
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
