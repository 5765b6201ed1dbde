"""Starts hosted runs and looks after them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Generic, TypeVar

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, CancelledError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from agentkit.agent import Agent
from agentkit.core.effects import Address, Decision, PendingCall
from agentkit.core.spec import Finish
from agentkit.durable.temporal.blobs import BlobCodec, Blobs
from agentkit.durable.temporal.data import (
    RunStatus,
    from_data,
    slim_all,
    to_data,
    whole_all,
)
from agentkit.durable.temporal.live import EVERY
from agentkit.durable.temporal.versions import FORMAT
from agentkit.errors import (
    AgentKitError,
    ConfigurationError,
    ReplayDivergence,
    RunCancelled,
    ServerUnreachable,
    error_from_data,
    safe_repr,
)
from agentkit.events import Event
from agentkit.messages import JsonObject, Message
from agentkit.runtime.request import History, Prompt, opening
from agentkit.runtime.result import RunResult, conclude, reached
from agentkit.runtime.scope import new_run_id
from agentkit.trace.effects import warning_from_json
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import installed_version

OutputT = TypeVar("OutputT")
_QUICKLY = timedelta(seconds=5)
_ANSWER = timedelta(seconds=15)
"""For queries: the server waits 10 s for a worker that has died before it asks another."""


def with_blobs(client: Client, blobs: Blobs) -> Client:
    """Return the client with a converter that keeps large payloads in the store."""
    config = client.config()
    converter = config["data_converter"]
    codec = BlobCodec(blobs, converter.payload_codec)
    config["data_converter"] = replace(converter, payload_codec=codec)
    return Client(**config)


async def start(
    client: Client,
    agent: str | Agent[Any, OutputT],
    prompt: Prompt,
    *,
    blobs: Blobs | str,
    id: str | None = None,
    task_queue: str = "agentkit",
    deps_ref: Any = None,
    history: History = (),
) -> HostedRun[OutputT]:
    """Start a run on the workers of a task queue, and return without waiting for it.

    Args:
        client: Connected to the server.
        agent: The name of an agent that a worker hosts; or the agent, for a typed output.
        prompt: What the user says, as of `Agent.run`.
        blobs: The store of the workers, or its URL.
        id: The id of the workflow; a second run with the id of one that goes on is refused.
            By default a new one.
        task_queue: That of the workers.
        deps_ref: JSON from which the workers rebuild the deps, such as the id of a customer.
        history: Earlier messages, as of `Agent.run`.

    Raises:
        ConfigurationError: No worker has hosted such an agent here; an argument does not fit;
            the store cannot be reached; a run of this id goes on.
        ServerUnreachable: The Temporal server does not answer.
    """
    name = agent if isinstance(agent, str) else agent.name
    store = Blobs.of(blobs)
    _check_json(deps_ref)
    earlier, prompted = opening(history, prompt)
    await _check_hosted(store, client.namespace, task_queue, name)
    run = new_run_id()
    root = id or f"{name}-{run}"
    asked: JsonObject = {
        "format": FORMAT,
        "agentkit": installed_version("agentkit-replay"),
        "run": run,
        "root": root,
        "agent": name,
        "at": Address.root(name),
        "messages": await slim_all((*earlier, *prompted), run, store),
        "earlier": len(earlier),
        "deps_ref": deps_ref,
    }
    with _translated(client, root):
        handle = await with_blobs(client, store).start_workflow(
            "agentkit.run",
            asked,
            id=root,
            task_queue=task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            memo={"run": run},
            static_summary=name,
            rpc_timeout=timedelta(seconds=30),
        )
    return HostedRun(client, handle, store, run, None if isinstance(agent, str) else agent)


async def get(
    client: Client, id: str, *, blobs: Blobs | str, agent: Agent[Any, OutputT] | None = None
) -> HostedRun[OutputT]:
    """Return the run of an id, to look after it from another process.

    Args:
        client: Connected to the server.
        id: The id of the workflow.
        blobs: The store of the workers, or its URL.
        agent: For a typed output.

    Raises:
        ConfigurationError: There is no such run.
        ServerUnreachable: The Temporal server does not answer.
    """
    store = Blobs.of(blobs)
    handle = with_blobs(client, store).get_workflow_handle(id)
    with _translated(client, id):
        described = await handle.describe()
    try:
        run = await described.memo_value("run", type_hint=str)
    except KeyError as error:
        raise ConfigurationError(f"The workflow {id!r} is no run of an agent.") from error
    return HostedRun(client, handle, store, run, agent)


class HostedRun(Generic[OutputT]):
    """A run on Temporal. Made by `start` and `get`; any process may hold one.

    Attributes:
        id: The id of its workflow.
        run: Its id in traces and in `RunContext.key`, 32 hexadecimal digits.
    """

    def __init__(
        self,
        client: Client,
        handle: WorkflowHandle[Any, Any],
        blobs: Blobs,
        run: str,
        agent: Agent[Any, OutputT] | None,
    ) -> None:
        self.id = handle.id
        self.run = run
        self._client = client
        self._handle = handle
        self._blobs = blobs
        self._agent = agent

    def __repr__(self) -> str:
        return f"HostedRun({self.id!r})"

    async def result(self) -> RunResult[OutputT]:
        """Wait for the end, and return the result.

        Its output is typed if the run was started with the agent itself; with a name it is JSON.

        Raises:
            AgentKitError: The run failed, as of `Agent.run`.
            ServerUnreachable: The Temporal server does not answer.
        """
        with _translated(self._client, self.id):
            ended = await self._handle.result()
        finish, trace = from_data(ended["finish"]), await self.trace()
        finish = replace(
            finish,
            messages=await self._whole(finish.messages),
            new=await self._whole(finish.new),
            output=await self._output(finish, trace),
        )
        prompt = await self._whole(ended["prompt"])
        warnings = [warning_from_json(one) for one in trace.events if one["event"] == "warning"]
        result = reached(finish, run=self.run, prompt=prompt, trace=trace, warnings=warnings)
        return conclude(finish, result)

    async def trace(self) -> Trace:
        """Return the trace of the run, which has ended.

        Raises:
            ConfigurationError: The store does not have it: the run goes on, or failed early.
        """
        place = f"traces/{self.run}.jsonl"
        try:
            data = await self._blobs.read(place)
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"There is no trace {place!r} in {self._blobs!r}: the run goes on, or ended before "
                "anything was done."
            ) from error
        return Trace(data.splitlines(keepends=True))

    async def status(self) -> RunStatus:
        """Return how far the run is. While it goes on, a worker answers that.

        Raises:
            ReplayDivergence: The workers have a version of the agent that cannot go on with it.
            ServerUnreachable: No worker answers, or the Temporal server does not.
        """
        with _translated(self._client, self.id):
            match (await self._handle.describe()).status:
                case WorkflowExecutionStatus.RUNNING:
                    return from_data(await self._handle.query("status", rpc_timeout=_ANSWER))
                case WorkflowExecutionStatus.COMPLETED:
                    finish: Any = from_data((await self._handle.result())["finish"])
                    return RunStatus(status=finish.status, usage=finish.usage)
                case WorkflowExecutionStatus.CANCELED:
                    return RunStatus(status="cancelled")
                case _:
                    return RunStatus(status="failed")

    async def messages(self) -> tuple[Message, ...]:
        """Return the conversation so far, without instructions.

        Raises:
            ServerUnreachable: No worker answers, or the Temporal server does not.
        """
        with _translated(self._client, self.id):
            data = await self._handle.query("messages", rpc_timeout=_ANSWER)
        return await self._whole(data)

    async def cancel(self, reason: str = "cancelled") -> None:
        """End the run: what has finished is kept, running tools are cancelled.

        It reaches the run even if no worker is there. `result()` then has the status
        `cancelled`, and raises `RunCancelled` as `Agent.run` does.
        """
        with _translated(self._client, self.id):
            await self._handle.signal("cancel", reason)

    async def approve(self, call: PendingCall | str, *, by: str | None = None) -> None:
        """Have a call run that waits for approval.

        Args:
            call: The call, or its address: `/agent/m0/t0`. Of sub-agents, too.
            by: Who decided, for the trace.

        Raises:
            ConfigurationError: No such call waits. Without a worker that answers, the decision
                is kept by the server, and counts if the call waits.
        """
        await self._decide(call, Decision.approve(by=by))

    async def deny(
        self, call: PendingCall | str, reason: str = "", *, by: str | None = None
    ) -> None:
        """Have a call not run; the model reads the reason. Else as `approve`."""
        await self._decide(call, Decision.deny(reason, by=by))

    async def edit(
        self, call: PendingCall | str, arguments: Mapping[str, Any] | str, *, by: str | None = None
    ) -> None:
        """Have a call run with other arguments. Else as `approve`."""
        await self._decide(call, Decision.edit(arguments, by=by))

    async def answer(self, call: PendingCall | str, text: str, *, by: str | None = None) -> None:
        """Answer a call instead of running it, such as one of a deferred tool."""
        await self._decide(call, Decision.answer(text, by=by))

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield what happens from now on, as it happens, until the run has ended.

        This is best effort, through the store: events come up to half a second late, those of
        a worker that dies are lost, and effects that have begun before are not heard. Results
        do not depend on it. Without a listener nothing is written.
        """
        folder = f"live/{self.run}"
        await self._blobs.write(f"{folder}/listening", str(time.time()).encode())
        ended = asyncio.ensure_future(self._ended())
        seen = {"listening"}
        try:
            while True:
                last = ended.done()
                for name in await self._blobs.names(folder):
                    if name in seen or "." in name:
                        continue
                    seen.add(name)
                    for event in from_data(json.loads(await self._blobs.read(f"{folder}/{name}"))):
                        yield event
                if last:
                    return
                await asyncio.wait([ended], timeout=EVERY)
        finally:
            ended.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._blobs.remove(folder)

    async def _ended(self) -> None:
        with contextlib.suppress(WorkflowFailureError):
            await self._handle.result()

    async def _output(self, finish: Finish[Any], trace: Trace) -> Any:
        """Return the output: of its type, if the agent is known and gives it again."""
        if self._agent is None or finish.status != "ok" or self._agent.config.output is str:
            return finish.output
        with contextlib.suppress(ReplayDivergence):
            return (await self._agent.replay(trace)).output
        return finish.output

    async def _whole(self, messages: Any) -> tuple[Message, ...]:
        return await whole_all(messages, self.run, self._blobs)

    async def _decide(self, call: PendingCall | str, decision: Decision) -> None:
        at = call.at if isinstance(call, PendingCall) else call
        if not at.startswith("/"):
            raise ConfigurationError(
                f"{at!r} is no address of a call, such as '/agent/m0/t0'; see status().pending."
            )
        data = to_data(decision)
        handle: Any = self._handle  # its type is not complete
        with _translated(self._client, self.id):
            try:
                await handle.execute_update(
                    "decide_now", args=[str(at), data], rpc_timeout=_QUICKLY
                )
            except WorkflowUpdateRPCTimeoutOrCancelledError:  # no worker answers: it is kept
                await handle.signal("decide", args=[str(at), data])


async def _check_hosted(store: Blobs, namespace: str, task_queue: str, name: str) -> None:
    """Refuse an agent that no worker has hosted with this store on this task queue."""
    await asyncio.to_thread(store.check)
    known = await store.names(f"agents/{namespace}/{task_queue}")
    if name not in known:
        hosted = ", ".join(map(repr, known)) or "none"
        raise ConfigurationError(
            f"No worker has hosted an agent {name!r} on the task queue {task_queue!r} with "
            f"{store!r}; hosted are: {hosted}. Start a worker first: worker(client, agents=[…])."
        )


def _check_json(deps_ref: Any) -> None:
    try:
        json.dumps(deps_ref, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"deps_ref={safe_repr(deps_ref)}: expected JSON from which worker(deps=…) makes the "
            f"deps, such as an id: {error}."
        ) from error


@contextlib.contextmanager
def _translated(client: Client, id: str) -> Generator[None, None, None]:
    """Raise agentkit's errors about the run of an id in place of the SDK's."""
    try:
        yield
    except WorkflowAlreadyStartedError as error:
        raise ConfigurationError(
            f"A run with the id {id!r} goes on. Take another id, or look after that one with "
            "get(…)."
        ) from error
    except WorkflowFailureError as error:
        raise _failed(id, error) from error
    except WorkflowUpdateFailedError as error:
        raise ConfigurationError(getattr(error.cause, "message", str(error.cause))) from error
    except (RPCError, WorkflowQueryFailedError) as error:
        raise _unanswered(client, id, error) from error


def _unanswered(
    client: Client, id: str, error: RPCError | WorkflowQueryFailedError
) -> AgentKitError:
    """Return the error for a server or a worker that did not answer about the run of an id."""
    text = str(error)
    if "another version of the agent" in text:
        return error_from_data("ReplayDivergence", text, {"kind": "outcome_changed"})
    match error.status if isinstance(error, RPCError) else None:
        case None:
            return ConfigurationError(f"The run {id!r} did not answer: {text}.")
        case RPCStatusCode.NOT_FOUND:
            where = f"in {client.namespace!r}"
            return ConfigurationError(f"The run {id!r} has ended, or is not {where}: {text}.")
        case RPCStatusCode.DEADLINE_EXCEEDED | RPCStatusCode.CANCELLED:
            text = f"No worker has answered about the run {id!r} in time: {text}."
            return ServerUnreachable(f"{text} Is one running?", server="temporal")
        case _:
            where = client.service_client.config.target_host
            text = f"The Temporal server at {where} does not answer: {text}."
            return ServerUnreachable(text, server="temporal")


def _failed(id: str, error: WorkflowFailureError) -> AgentKitError:
    """Return the error of a run whose workflow has failed, before it began or from outside."""
    cause: BaseException = error.cause
    while not isinstance(cause, (ApplicationError, CancelledError)) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, CancelledError):
        text = "The run was cancelled: its workflow was cancelled."
        return RunCancelled(text, reason="its workflow was cancelled")
    if isinstance(cause, ApplicationError) and cause.type in AgentKitError.known:
        data: Any = cause.details[0] if cause.details else {}
        return error_from_data(cause.type, cause.message, data)
    return error_from_data("WorkflowFailed", f"the run {id!r} ended by {cause!r}", {})
