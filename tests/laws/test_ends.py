"""Laws of how runs end: whatever the application's own code does, each has a result."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator

from agentkit import Agent, RunResult, result_of, tool
from agentkit.core.effects import Handler
from agentkit.testing import ScriptedModel
from tests.laws.test_loop import check_valid

RAISED = [KeyError, RecursionError, AssertionError, asyncio.CancelledError, SystemExit]
ERRORS = {kind.__name__: kind for kind in RAISED}
TROUBLE = st.sampled_from(["fine", *ERRORS])


def trouble(kind: str) -> str:
    """Raise what the text names."""
    if kind in ERRORS:
        raise ERRORS[kind](f"of {kind}")
    return kind


class Hostile(BaseModel):
    """A type whose validator runs the application's code."""

    kind: str

    @field_validator("kind")
    @classmethod
    def checked(cls, kind: str) -> str:
        """Raise what no validator should."""
        return trouble(kind)


@tool
async def use(item: Hostile) -> str:
    """Use something."""
    return item.kind


@tool
async def fail(kind: str) -> str:
    """Fail in the tool itself."""
    return trouble(kind)


@tool(effect="read")
async def read() -> str:
    """Read."""
    return "read"


CALL = st.one_of(
    st.tuples(
        st.just("use"), st.fixed_dictionaries({"item": st.fixed_dictionaries({"kind": TROUBLE})})
    ),
    st.tuples(st.just("fail"), st.fixed_dictionaries({"kind": TROUBLE})),
    st.just(("read", {})),
    st.tuples(st.sampled_from(["use", "read", ""]), st.text(max_size=8)),
)
OUTPUT = TROUBLE.map(lambda kind: f'{{"kind": "{kind}"}}')
ANSWER = st.one_of(st.lists(CALL, min_size=1, max_size=3), OUTPUT, st.text(max_size=8))
PLACES = ["instructions", "step_settings", "validator", "middleware", "on_event", "output", "none"]


def agent(script: list[Any], place: str, kind: str) -> Agent[Any, Any]:
    """Return an agent with trouble in one place."""

    def here(name: str) -> None:
        if name == place:
            trouble(kind)

    def instructions() -> str:
        here("instructions")
        return "Be brief."

    def finish(kind: str) -> str:
        here("output")
        return trouble(kind)

    def wrap(inner: Handler) -> Handler:
        class Wrapped:
            async def perform(self, effect: Any) -> Any:
                here("middleware")
                return await inner.perform(effect)

        return Wrapped()

    return Agent(
        ScriptedModel(script),
        tools=[use, fail, read],
        output=finish if place == "output" else Hostile,
        instructions=instructions,
        step_settings=lambda: here("step_settings"),
        output_validators=[lambda _: here("validator")],
        middleware=[wrap],
    )


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(
    script=st.lists(ANSWER, max_size=4),
    place=st.sampled_from(PLACES),
    kind=TROUBLE,
    streamed=st.booleans(),
)
def test_every_run_has_a_result(
    backend: str, script: list[Any], place: str, kind: str, streamed: bool
) -> None:
    """With what was used, a valid history and the status that the trace has, too."""
    if backend == "trio" and "CancelledError" in f"{kind} {script}":
        return  # there, nobody can raise a cancellation

    def listen(_: object) -> None:
        if place == "on_event":
            trouble(kind)

    async def run(of: Agent[Any, Any]) -> tuple[RunResult[Any], type[BaseException] | None]:
        try:
            if not streamed:
                return await of.run("go", on_event=listen), None
            async with of.stream("go", on_event=listen) as running:
                async for _ in running:
                    pass
            return running.result, None
        except (Exception, SystemExit) as error:
            result = result_of(error)
            assert result is not None  # whatever has been raised
            return result, type(error)

    async def main() -> None:
        one = agent(script, place, kind)
        result, raised = await run(one)
        assert (result.status == "ok") is (raised is None)
        check_valid(result.messages)
        model: Any = one.model
        assert result.usage.requests in (len(model.requests), len(model.requests) - 1)
        assert result.trace is not None
        assert result.trace.status == result.status

    anyio.run(main, backend=backend)
