"""Workers: processes that host agents on Temporal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.worker import (
    Interceptor,
    Replayer,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from agentkit import _checks
from agentkit.agent import Agent
from agentkit.durable.temporal.activities import Activities, Deps
from agentkit.durable.temporal.blobs import BlobCodec, Blobs
from agentkit.durable.temporal.client import with_blobs
from agentkit.durable.temporal.hosted import HOSTED, Hosted
from agentkit.durable.temporal.workflow import AgentWorkflow
from agentkit.errors import ConfigurationError
from agentkit.runtime.assemble import Program, assemble
from agentkit.runtime.config import AgentConfig, check

_PASSED = ("agentkit", "anyio", "sniffio", "pydantic", "pydantic_core", "temporalio", "structlog")
"""What workflow code shares with its worker, instead of a copy of its own in the sandbox."""
_POSITIVE = _checks.number(0.001)
_CHECKS = {
    "heartbeat": _POSITIVE,
    "patience": _POSITIVE,
    "timeout": _POSITIVE,
    "attempts": _checks.integer(1),
    "history_events": _checks.integer(20).or_none(),
    "deps": _checks.function("a function of a reference").or_none(),
}


def worker(
    client: Client,
    *,
    agents: Sequence[Agent[Any, Any]],
    blobs: Blobs | str,
    task_queue: str = "agentkit",
    deps: Deps | None = None,
    heartbeat: float = 30.0,
    patience: float = 3600.0,
    timeout: float = 3600.0,
    attempts: int = 5,
    history_events: int | None = None,
    **options: Any,
) -> Worker:
    """Make a worker that hosts agents.

        await worker(client, agents=[agent], blobs="s3://bucket/agentkit").run()

    Args:
        client: Connected to the server. Temporal's SDK needs asyncio, so workers and clients
            do not run under trio.
        agents: All agents that runs may need, each name once. Agents that are tools, by
            `as_tool` or `Handoff`, are hosted with the one that has them; those that a tool runs
            with `RunContext.run` have to be named.
        blobs: The store that workers and clients share, or its URL.
        task_queue: Where runs are started.
        deps: Makes the deps of a run from its `deps_ref`; sync or async, called for each
            effect, so it should hand out what is open already.
        heartbeat: Seconds without a sign of life after which an effect counts as lost. What
            blocks the event loop of its worker longer than this is lost, too.
        patience: Seconds for which a model that fails for now is asked again.
        timeout: Seconds that one attempt of an effect may take; a tool's own `timeout` if
            that is longer.
        attempts: How often an effect that does no harm is begun whose workers are lost each
            time. After that its tool has failed, so that a call that kills its process
            cannot kill one after the other.
        history_events: Events after which a workflow is continued in a new one, unseen by
            users. None leaves it to the server, which suggests it at 4,096 events or 4 MB.
        **options: Of `temporalio.worker.Worker`, such as `max_concurrent_activities=`.

    Raises:
        ConfigurationError: An option does not fit, two agents have one name, or the store
            cannot be reached.
    """
    given: dict[str, Any] = {name: value for name, value in locals().items() if name in _CHECKS}
    check(given, _CHECKS)
    store = Blobs.of(blobs)
    programs = _programs(agents)
    store.check()
    for name in programs:
        store.write_now(f"agents/{client.namespace}/{task_queue}/{name}", b"")
    del given["deps"]
    hosting = _Hosting(Hosted(programs=programs, **given))
    interceptors = [hosting, *options.pop("interceptors", ())]
    return Worker(
        with_blobs(client, store),
        task_queue=task_queue,
        workflows=[AgentWorkflow],
        activities=Activities(programs, store, deps).all,
        workflow_runner=_runner(),
        interceptors=interceptors,
        **options,
    )


def replayer(agents: Sequence[Agent[Any, Any]], *, blobs: Blobs | str, **options: Any) -> Replayer:
    """Make a `temporalio.worker.Replayer`: it tells whether runs can go on with these agents.

    Replay the histories of runs that are going on, before a changed agent is deployed.

    Args:
        agents: As a worker is to host them.
        blobs: The store of the runs, or its URL.
        **options: Of `temporalio.worker.Replayer`.
    """
    store = Blobs.of(blobs)
    hosted = Hosted(programs=_programs(agents))
    return Replayer(
        workflows=[AgentWorkflow],
        workflow_runner=_runner(),
        interceptors=[_Hosting(hosted)],
        data_converter=DataConverter(payload_codec=BlobCodec(store, None)),
        **options,
    )


def _programs(agents: Sequence[Agent[Any, Any]]) -> Mapping[str, Program[Any]]:
    programs: dict[str, Program[Any]] = {}
    for one in agents:
        if not isinstance(one, Agent):  # pyright: ignore[reportUnnecessaryIsInstance]  # not everybody checks types
            raise ConfigurationError(f"agents= holds {one!r}: expected agents.")
        if one.name in programs:
            raise ConfigurationError(
                f"Two agents are called {one.name!r}. Give one of them another name=."
            )
        programs[one.name] = one.program()
    for one in agents:
        _add_inner(one.config, programs)
    if not programs:
        raise ConfigurationError("agents=[]: a worker hosts at least one agent.")
    return programs


def _add_inner(config: AgentConfig, programs: dict[str, Program[Any]]) -> None:
    """Add the agents that are tools of an agent, or of one that it hands over to."""
    for tool in config.fixed_tools:
        inner = getattr(tool.function, "agent", None)
        if isinstance(inner, Agent) and inner.name not in programs:
            programs[inner.name] = assemble(inner.config)
            _add_inner(inner.config, programs)
    for handoff in config.handoffs:
        if handoff.target.name not in programs:
            programs[handoff.target.name] = assemble(handoff.target)
            _add_inner(handoff.target, programs)


def _runner() -> SandboxedWorkflowRunner:
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*_PASSED)
    return SandboxedWorkflowRunner(restrictions=restrictions)


class _Hosting(Interceptor):
    """Gives workflows what their worker hosts."""

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        """Put it where workflow code may ask for it."""
        given: dict[str, Any] = {HOSTED: lambda: self._hosted}
        input.unsafe_extern_functions.update(given)  # pyright: ignore[reportUnknownMemberType]  # the SDK's
        return None
