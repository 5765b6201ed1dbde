"""The process of one contender: does the jobs that it reads, and reports what they cost.

    python -m tests.benchmarks.contenders.NAME URL

A line of standard input is a job as JSON, a line of standard output its sample. Between
two jobs the process waits, so contenders that are measured in turns share the machine
with nobody of their own. With `--once JOB UNITS` it does one job and ends, which is what
counting instructions needs.
Works without agentkit, for frameworks in environments of their own.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

from tests.benchmarks import scenarios
from tests.benchmarks.scenarios import Cart, block, look, marks, nap, store, tick

EARLY, LATE = slice(5, 15), slice(-10, None)
"""The steps of the long run that stand for its tenth and its hundredth."""


class Contender(Protocol):
    """A way to run the conversation of a scenario to its end."""

    async def run(
        self, scenario: str, tools: Sequence[Callable[..., Any]] = (), output: Any = None
    ) -> Any:
        """Return the final text, or the typed output."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...

    async def stream(
        self, scenario: str, tools: Sequence[Callable[..., Any]] = (), output: Any = None
    ) -> tuple[int, Any]:
        """Return how many pieces were shown, and what `run` would return.

        A piece is a text, a fragment of a call, or with `output` a validated partial output.
        """
        ...


async def last(units: int, run: Callable[[], Awaitable[Any]]) -> Any:
    """Return what the last of so many runs in a row returned."""
    result = None
    for _ in range(units):
        result = await run()
    return result


async def runs(contender: Contender, units: int) -> Any:
    """Run by run: 5 steps of 4 parallel calls."""
    return await last(units, lambda: contender.run("run", [look]))


async def steps(contender: Contender, units: int) -> Any:
    """Run runs of 100 steps; returns CPU in seconds of a late step and of an early one."""
    found: list[tuple[float, float]] = []
    result = None
    for _ in range(units):
        marks.clear()
        result = await contender.run("steps", [tick])
        spent = [after - before for before, after in pairwise(marks)]
        if spent:  # a contender that calls no tools has no marks
            found.append((statistics.mean(spent[LATE]), statistics.mean(spent[EARLY])))
    late, early = map(statistics.mean, zip(*found, strict=True)) if found else (None, None)
    return {"result": result, "late": late, "early": early}


async def concurrent(contender: Contender, units: int) -> Any:
    """Run side by side against a server that takes 20 ms."""
    done = await asyncio.gather(*(contender.run("run@20", [look]) for _ in range(units)))
    return done[0]


async def fan(contender: Contender, units: int) -> Any:
    """Call 100 async tools of 50 ms in one step."""
    return await last(units, lambda: contender.run("nap", [nap]))


async def fan_blocking(contender: Contender, units: int) -> Any:
    """Call 100 blocking tools of 50 ms in one step."""
    return await last(units, lambda: contender.run("block", [block]))


async def deltas(contender: Contender, units: int) -> Any:
    """Stream texts of 2,000 deltas."""
    return await last(units, lambda: contender.stream("delta"))


async def arguments(contender: Contender, units: int) -> Any:
    """Stream calls with 1 MB of arguments."""
    return await last(units, lambda: contender.stream("arguments", [store]))


async def typed(contender: Contender, units: int) -> Any:
    """Ask for 200 items."""
    return await last(units, lambda: contender.run("typed", output=Cart))


async def partials(contender: Contender, units: int) -> Any:
    """Ask for 200 items and look at them while they are written."""
    return await last(units, lambda: contender.stream("typed-stream", output=Cart))


async def memory(contender: Contender, units: int) -> Any:
    """Hold runs that wait for the answer to their second step: memory and descriptors of each."""
    before, opened = resident(), descriptors()
    waiting = asyncio.gather(*(contender.run("held@1500", [look]) for _ in range(units)))
    await asyncio.sleep(2.5)  # in the middle of the wait of the second request
    held = {
        "kilobytes": (resident() - before) / units,
        "descriptors": (descriptors() - opened) / units,
    }
    return {"result": (await waiting)[0], **held}


JOBS: dict[str, Callable[[Contender, int], Any]] = {
    "run": runs,
    "steps": steps,
    "concurrent": concurrent,
    "nap": fan,
    "block": fan_blocking,
    "delta": deltas,
    "arguments": arguments,
    "typed": typed,
    "partials": partials,
    "memory": memory,
}


def resident() -> int:
    """Return the process's memory in kB."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1000


def descriptors() -> int:
    """Return how many files and sockets the process has open."""
    return len(os.listdir("/proc/self/fd"))


async def measure(contender: Contender, job: str, units: int, warm: int) -> dict[str, Any]:
    """Do a job and return its sample: CPU and wall time in seconds, and the result."""
    if warm:
        await JOBS[job](contender, warm)
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    result = await JOBS[job](contender, units)
    sample = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    more: dict[str, Any] = {}
    if isinstance(result, dict):
        more = result
        result = more.pop("result")
    if isinstance(result, tuple):
        more["pieces"], result = result
    if isinstance(result, scenarios.BaseModel):
        result = result.model_dump_json()
    return sample | more | {"result": result}


def serve(make: Callable[[str], Contender]) -> None:
    """Do the jobs of standard input with the contender that `make` returns for a URL."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    url, *once = sys.argv[1:]
    # What a framework prints goes elsewhere.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with asyncio.Runner() as runner:
        contender = make(url)
        print("ready", file=answers, flush=True)
        if once:
            runner.run(measure(contender, once[1], int(once[2]), 1))
            runner.run(contender.close())
            return
        for line in sys.stdin:
            try:
                sample = runner.run(measure(contender, **json.loads(line)))
            except NotImplementedError:
                sample = {"missing": True}
            except Exception as error:
                sample = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(sample), file=answers, flush=True)
        runner.run(contender.close())
