"""The contract of a host, run with the hosts that need no other engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent, Decision, RunResult
from agentkit.core.effects import PendingCall
from agentkit.testing.host_conformance import CASES, Case, Host, check, in_process

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_run_in_process_is_as_each_case_says(case: Case) -> None:
    """The host that all others are compared with."""
    await check(case, in_process)


class Mortal:
    """A host whose process ends after each effect: every life resumes the trace of the last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lives = 0

    async def __call__(
        self,
        agent: Agent[Any, Any],
        prompt: str,
        *,
        deps: Any,
        decisions: Mapping[str, Decision],
        stop: Any,
    ) -> RunResult[Any]:
        path = self.folder / f"{agent.name}.jsonl"

        def approver(pending: PendingCall) -> Decision | None:
            return decisions.get(pending.at)

        options: Any = {"deps": deps, "approver": approver}
        opened: Any = agent.iter(prompt, trace=path, **options)
        while True:
            self.lives += 1
            performed = 0
            async with opened as steps:
                async for step in steps:
                    await step.perform()
                    performed += 1
                    if performed == self.lives:
                        break
                else:
                    return steps.result
                size = path.stat().st_size
            os.truncate(path, size)  # a process that is killed records no end
            if stop is not None:
                break
            opened = agent.resume_iter(path, **options)
        self.lives += 1
        async with agent.resume_stream(path, **options) as run:
            run.cancel(await stop())
            async for _ in run:
                pass
        return run.result


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_run_that_is_killed_after_each_effect_is_as_each_case_says(
    case: Case, tmp_path: Path
) -> None:
    """Its trace carries it from life to life."""
    host = Mortal(tmp_path)
    await check(case, host)
    assert host.lives > 1


async def twice(agent: Agent[Any, Any], prompt: str, **options: Any) -> RunResult[Any]:
    """A host that runs everything a second time."""
    await in_process(agent, prompt, **options)
    return await in_process(agent, prompt, **options)


async def nosy(agent: Agent[Any, Any], prompt: str, **options: Any) -> RunResult[Any]:
    """A host that gives the model another prompt."""
    return await in_process(agent, f"{prompt} Please.", **options)


async def deaf(agent: Agent[Any, Any], prompt: str, **options: Any) -> RunResult[Any]:
    """A host that approves everything."""
    return await agent.run(prompt, deps=options["deps"], approver=lambda _: True)


@pytest.mark.parametrize(
    ("host", "name", "problem"),
    [
        (twice, "steps", "what tools have done"),
        (nosy, "answer", "result.messages"),
        (deaf, "approvals", "texts that the model reads"),
    ],
    ids=["twice", "nosy", "deaf"],
)
async def test_a_host_that_does_something_else_fails(host: Host, name: str, problem: str) -> None:
    """It is named what is different."""
    (case,) = (one for one in CASES if one.name == name)
    with pytest.raises(AssertionError, match=problem):
        await check(case, host)
