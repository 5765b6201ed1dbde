"""A background worker: it answers the prompts of a folder, and first resumes what was cut off.

pip install "agentkit-replay[local]"
mkdir jobs; echo "What is 19% of 250?" > jobs/vat.txt
python examples/worker.py jobs

Kill it at any time and start it again: a run continues where its trace ends, and what it has
already done is not done again. Start as many as you like: no two work on the same job.
Each job `NAME.txt` gets a trace, and then an answer, `NAME.out`.
"""

import argparse
import fcntl  # of Unix; on Windows, msvcrt.locking does the same
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
from agentkit_tools.math import math_tools
from agentkit_tools.time import time_tools

from agentkit import Agent, AgentKitError, Model, RunResult, Trace
from agentkit.errors import ConfigurationError


def make_agent(model: str | Model) -> Agent:
    """Return the agent of every job; a run is resumed with the same agent."""
    return Agent(model, name="worker", tools=[math_tools(), time_tools()])


@contextmanager
def claimed(job: Path) -> Generator[bool]:
    """Lock a job, and yield whether no other worker has it. The lock ends with its process."""
    with job.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


async def finish(agent: Agent, job: Path) -> RunResult[str] | None:
    """Run a job, or resume it; return None if there is nothing left to do."""
    trace = job.with_suffix(".jsonl")
    if not trace.exists():
        return await agent.run(await anyio.Path(job).read_text(encoding="utf-8"), trace=trace)
    status = Trace.load(trace).status
    if status == "interrupted":
        print(f"{job.name}: resumed")
    # Of a run that is over, only the answer is missing: nothing is done again for it.
    unanswered = status == "ok" and not job.with_suffix(".out").exists()
    return await agent.resume(trace) if status == "interrupted" or unanswered else None


def jobs_of(folder: Path) -> list[Path]:
    """Return the jobs of a folder, those first that were begun."""
    return sorted(folder.glob("*.txt"), key=lambda job: not job.with_suffix(".jsonl").exists())


async def work(agent: Agent, folder: Path) -> None:
    """Finish the jobs of a folder that no other worker has."""
    for job in jobs_of(folder):
        with claimed(job) as mine:
            if not mine:
                continue
            try:
                result = await finish(agent, job)
            except ConfigurationError:  # no job can work: there is no such model, or no key
                raise
            except AgentKitError as error:  # the next job may work
                print(f"{job.name}: {type(error).__name__}: {error.message}")
                continue
            if result is not None:
                job.with_suffix(".out").write_text(f"{result.output}\n", encoding="utf-8")
                print(f"{job.name}: {result.status}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="local")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"there is no folder {options.folder}")
    try:
        anyio.run(work, make_agent(options.model), options.folder)
    except AgentKitError as error:
        parser.exit(1, f"{type(error).__name__}: {error.message}\n")


if __name__ == "__main__":
    main()
