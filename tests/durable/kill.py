"""Kills worker processes at random points, restarts them, and counts what they have done.

    make kill N=1000

Workers run jobs whose model is a real HTTP server in this process and whose tools append each
effect to a file. Both are kept apart from the traces, and are what a kill is judged by: no
effect that a trace has as finished may happen again, and none may be lost. A write that was in
flight is decided by a person who looks into that file, as one would look into an account.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import anyio

from agentkit import Agent, ChatModel, Decision, RunContext, Trace, tool
from agentkit.core.effects import PendingCall
from agentkit.durable import resume_all, unfinished
from agentkit.errors import ConfigurationError, TraceError
from agentkit.history import check_history
from agentkit.testing import ChatServer, ServerRequest, reply
from agentkit.trace.check import check_replayable

JOBS = 5
"""Unfinished jobs that there are at any time."""
LIFE = 0.2
"""Seconds after which a worker is killed at the latest, if the kill has no aim."""
AIMS = ("effects.log", "asked.log")
"""Files that grow in the moments at which a third of the kills aim."""
PAUSE = 0.004
"""Seconds around each effect, so that kills come before, between and behind."""


# The workers


def effects_in(folder: Path) -> list[str]:
    """Return the keys of the effects that have happened, in order."""
    file = folder / "effects.log"
    return file.read_text().splitlines() if file.exists() else []


def log(file: Path, line: str) -> None:
    """Append a line, written at once."""
    descriptor = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


async def act(context: RunContext[Path], name: str) -> str:
    """Have an effect: one line."""
    await anyio.sleep(PAUSE)
    log(context.deps / "effects.log", context.key)
    await anyio.sleep(PAUSE)
    return f"{name} done"


@tool
async def charge(context: RunContext[Path], amount: int) -> str:
    """Charge a card."""
    return await act(context, f"charge {amount}")


@tool(approval=True)
async def refund(context: RunContext[Path], amount: int) -> str:
    """Give money back."""
    return await act(context, f"refund {amount}")


@tool(effect="read")
async def fetch(context: RunContext[Path], page: int) -> str:
    """Fetch a page."""
    return await act(context, f"fetch {page}")


def agents_of(url: str) -> list[Agent[Any, Any]]:
    """Return the agent of the jobs; it has one below it."""
    model = ChatModel("kill", base_url=url, api_key="none")
    helper = Agent(model, name="helper", tools=[charge, fetch], instructions="helper")
    tools = [charge, refund, fetch, helper.as_tool()]
    return [Agent(model, name="job", tools=tools, instructions="job")]


def decider(folder: Path) -> Any:
    """Return an approver: it takes its time, and looks up what a call in flight has done."""

    async def decide(pending: PendingCall) -> Decision:
        if pending.kind != "in_flight":
            log(folder / "asked.log", pending.at)
            await anyio.sleep(PAUSE)
            return Decision.approve()
        await anyio.sleep(PAUSE)
        happened = any(line.endswith(pending.at) and line in mine for line in effects_in(folder))
        name, number = pending.call.name, *pending.args.values()
        return Decision.answer(f"{name} {number} done") if happened else Decision.approve()

    mine: set[str] = set()
    return decide, mine


def work(folder: str, url: str, backend: str, careless: bool, ready: Connection) -> None:
    """Be a worker: go on with what is unfinished, then take new jobs, all at once."""
    ready.send(True)
    anyio.run(go, Path(folder), url, careless, backend=backend)


def forget(path: Path) -> None:
    """Remove a trace in which nothing has happened, unless another worker has or writes it."""
    with suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return  # another worker has removed it, and begun the job
        try:
            check_replayable(Trace.load(path))
        except TraceError:
            path.unlink()


async def go(folder: Path, url: str, careless: bool) -> None:
    (agent,) = agents_of(url)

    def options(trace: Trace) -> dict[str, Any]:
        decide, mine = decider(folder)
        mine |= {line for line in effects_in(folder) if line.startswith(trace.run)}
        return {"approver": (lambda _: True) if careless else decide}

    for one in await resume_all(folder, [agent], deps=folder, options=options):
        if one.outcome == "unreadable":  # killed before its first lines: nothing has happened
            forget(one.path)
        elif one.outcome not in ("finished", "locked"):
            raise RuntimeError(f"{one}: {one.error}") from one.error

    async def new(job: Path) -> None:
        trace = job.with_suffix(".jsonl")
        approver = decider(folder)[0]
        try:
            opened = agent.stream(job.stem, deps=folder, trace=trace, approver=approver)
            async with opened as run:
                async for _ in run:
                    pass
        except ConfigurationError:
            return  # another worker was first

    async with anyio.create_task_group() as group:
        for job in sorted(folder.glob("*.job")):
            if not job.with_suffix(".jsonl").exists():
                group.start_soon(new, job)


# The server


class Server:
    """A chat server that follows the script of every job, and counts its requests."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()

    def answer(self, request: ServerRequest) -> Any:
        """Answer one request: of the job, or of the agent below it."""
        messages = request.json["messages"]
        step = sum(message["role"] == "assistant" for message in messages)
        who, prompt = messages[0]["content"], messages[1]["content"]
        at = f"/job/m{step}" if who == "job" else f"/job/m0/t2/helper/m{step}"
        self.asked[prompt, at] += 1
        script: list[Any] = [[("charge", {"amount": 5}), ("fetch", {"page": 6})], "Helped."]
        if who == "job":
            script = [
                [
                    ("charge", {"amount": 1}),
                    ("fetch", {"page": 2}),
                    ("helper", {"prompt": prompt}),
                ],
                [("refund", {"amount": 3}), ("charge", {"amount": 4})],
                f"Job {prompt} is done, and all of its money is where it belongs.",
            ]
        said = script[step]
        if isinstance(said, str):
            return reply(said, pause=PAUSE / 4)
        return reply(calls=said, pause=PAUSE / 4)


EXPECTED = {
    "/job/m0/t0": "charge 1 done",
    "/job/m0/t1": "fetch 2 done",
    "/job/m0/t2/helper/m0/t0": "charge 5 done",
    "/job/m0/t2/helper/m0/t1": "fetch 6 done",
    "/job/m1/t0": "refund 3 done",
    "/job/m1/t1": "charge 4 done",
}
"""What each job does, by address."""
READS = {at for at, text in EXPECTED.items() if text.startswith("fetch")}


# The judge


class Killer:
    """Starts workers, kills them, and keeps what they must not do again."""

    def __init__(self, folder: Path, seed: int, *, careless: bool = False) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.careless = careless
        self.server = Server()
        self.points: Counter[str] = Counter()
        self.finished: dict[tuple[str, str], int] = {}
        self.problems: list[str] = []
        self.loaded: dict[tuple[Path, int], Trace] = {}
        self.kills = self.jobs = self.lives = self.effects = 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.durable.kill_warm"])

    def run(self, kills: int) -> None:
        """Kill so many workers, then let the last one end everything, and judge."""
        with ChatServer(self.server.answer) as server:
            while self.kills < kills:
                self._more_jobs()
                self._live(server.base_url)
            for backend in ("asyncio", "trio"):
                worker = self._start(server.base_url, backend)
                worker.join(60)
                assert worker.exitcode == 0, f"a worker ended with {worker.exitcode}"
        self._look()
        self._judge()

    def _more_jobs(self) -> None:
        open_ = len(unfinished(self.folder)) + sum(
            not job.with_suffix(".jsonl").exists() for job in self.folder.glob("*.job")
        )
        for _ in range(JOBS - open_):
            (self.folder / f"{self.jobs:05}.job").touch()
            self.jobs += 1

    def _start(self, url: str, backend: str) -> BaseProcess:
        self.lives += 1
        ours, theirs = self._context.Pipe(duplex=False)
        arguments = (str(self.folder), url, backend, self.careless, theirs)
        worker = self._context.Process(target=work, args=arguments)
        worker.start()
        theirs.close()
        ours.recv()
        ours.close()
        return worker

    def _live(self, url: str) -> None:
        """Let one worker live for a while, sometimes with a rival."""
        backends = [self.random.choice(["asyncio", "trio"])]
        backends += ["asyncio"] * (self.random.random() < 0.1)
        workers = [self._start(url, backend) for backend in backends]
        if self.random.random() < 1 / 3:
            self._wait_for(self.folder / self.random.choice(AIMS), workers)
        else:
            time.sleep(self.random.uniform(0, LIFE))
        killed = [worker for worker in workers if worker.is_alive()]
        for worker in workers:
            worker.kill()
            worker.join()
        self.kills += len(killed)
        self._look(points=bool(killed))

    def _wait_for(self, file: Path, workers: list[BaseProcess]) -> None:
        """Wait until a file grows: however busy the machine is, such a kill comes in time."""

        def size() -> int:
            return file.stat().st_size if file.exists() else 0

        before = size()
        while size() == before and any(worker.is_alive() for worker in workers):
            time.sleep(PAUSE / 16)

    def _look(self, *, points: bool = False) -> None:
        """Note what the traces have as finished, and compare it with what happened before."""
        happened = Counter(effects_in(self.folder))
        here: set[str] = set()
        for file in sorted(self.folder.glob("*.jsonl")):
            size = file.stat().st_size
            if (file, size) not in self.loaded:
                try:
                    self.loaded[file, size] = Trace.load(file)
                except Exception:  # killed before its first line
                    here.add("before the first line")
                    continue
            trace = self.loaded[file, size]
            if points and trace.status != "ok":
                here |= _points(trace, happened)
            for at, one in trace.effects.items():
                if one.status != "ok" or one.kind not in ("model", "tool"):
                    continue
                if one.kind == "model":
                    count = self.server.asked[file.stem, at]
                else:
                    count = happened[f"{trace.run}{at}"]
                before = self.finished.setdefault((file.stem, at), count)
                if count != before:
                    self.problems.append(f"{file.stem} {at} was finished, and happened again")
        self.points.update(here)

    def _judge(self) -> None:
        """Check every job: what it has done, its result, its history, and its replay."""
        happened = Counter(effects_in(self.folder))
        self.effects = happened.total()
        (agent,) = agents_of("http://127.0.0.1:9/v1")
        for job in sorted(self.folder.glob("*.job")):
            trace = Trace.load(job.with_suffix(".jsonl"))
            if trace.status != "ok":
                self.problems.append(f"{job.stem} is {trace.status}")
                continue
            result = agent.replay_sync(trace)
            check_history(result.messages)
            if (
                result.output
                != f"Job {job.stem} is done, and all of its money is where it belongs."
            ):
                self.problems.append(f"{job.stem} has the output {result.output!r}")
            for at, text in EXPECTED.items():
                count = happened[f"{trace.run}{at}"]
                if count == 0:
                    self.problems.append(f"{job.stem} {at} is lost")
                if count > 1 and at not in READS:
                    self.problems.append(f"{job.stem} {at} happened {count} times")
                if trace.effects[at].outcome.message.text != text:
                    self.problems.append(f"{job.stem} {at} has another result")

    def summary(self) -> str:
        """Return what was done, on one line."""
        points = ", ".join(f"{name} {number}" for name, number in sorted(self.points.items()))
        repeated = sum("again" in one or "times" in one for one in self.problems)
        lost = sum("lost" in one or " is " in one for one in self.problems)
        return (
            f"{self.kills} kills ({points}); {self.jobs} jobs, {self.effects} effects, "
            f"{self.server.asked.total()} model calls; repeated {repeated}, lost {lost}, "
            f"other problems {len(self.problems) - repeated - lost}"
        )


def _points(trace: Trace, happened: Counter[str]) -> set[str]:
    """Return where in a run its process was killed."""
    here: set[str] = set()
    names = [event["event"] for event in trace.events]
    last = len(names) - 1 - names[::-1].index("trace.resume") if "trace.resume" in names else None
    if last is not None and not any(name.endswith(".start") for name in names[last:]):
        here.add("during resume")
    for at, one in trace.effects.items():
        if one.pending is not None and one.decision is None and not one.begun:
            here.add("waiting for a decision")
        if one.status != "in_flight":
            continue
        if one.kind == "model":
            here.add("while a model answers")
        elif one.kind == "agent" and at != "/job":
            here.add("inside a sub-agent")
        elif one.kind == "tool" and one.name != "helper":
            here.add("inside a batch")
            if happened[f"{trace.run}{at}"]:
                here.add("between an effect and its record")
    return here or {"between two effects"}


def main() -> int:
    """Run the command line."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 1_000_000
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder), seed)
        killer.run(kills)
    for problem in killer.problems:
        print(problem)
    print(killer.summary())
    return 1 if killer.problems else 0
