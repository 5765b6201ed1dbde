"""One connection to an MCP server, which runs of one event loop share.

It lives in a task of its own: whoever uses it first opens it, whoever leaves last closes it,
and after it was lost the next use opens it again. None of that happens in the task of a run,
so a run that is cancelled closes nothing for the others.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import os
import re
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import anyio
import httpx2
import mcp_types as types
from anyio import CapacityLimiter
from mcp import MCPError, StdioServerParameters, stdio_client
from mcp.client import Client, ClientRequestContext, IncomingMessage, Transport
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from pydantic import ValidationError

from agentkit.core.effects import Decision
from agentkit.errors import ServerUnreachable, ToolError, safe_str
from agentkit.mcp.content import block_part, resource_part, result_parts, text_of
from agentkit.mcp.target import Target
from agentkit.messages import (
    AssistantMessage,
    JsonObject,
    Message,
    Part,
    UserMessage,
    is_object,
)
from agentkit.redaction import Redactor
from agentkit.tools.context import RunContext
from agentkit.tools.raw import compiled

ResultT = TypeVar("ResultT")
_diagnostics = logging.getLogger("agentkit")
_redact = Redactor()
_calling: contextvars.ContextVar[Caller | None] = contextvars.ContextVar("_calling", default=None)
_TAIL = 10
"""Lines of a server's stderr that are kept."""
_LEAVING = 10.0
"""Seconds that a session may take to end, once it is left."""
_PAGES = 100
"""Pages of a listing that are read, so that one without an end cannot hang a run."""
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\s\\/:'\"<>|]+)+[\\/](?=[^\s\\/:'\"<>|])")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Caller:
    """A call that waits for the server: who asks on its behalf."""

    context: RunContext[Any]
    tool: str


class Session:
    """One session with the server, from its opening until it is lost or left."""

    def __init__(self, target: Target, changed: Callable[[], None]) -> None:
        self.client: Client | None = None
        self.error: Exception | None = None
        self.opened = anyio.Event()
        self.leave = anyio.Event()
        self.ended = anyio.Event()
        self.stderr = _Tail()
        self.callers: set[Caller] = set()
        self._target = target
        self._changed = changed
        self._scope = anyio.CancelScope()

    @property
    def open(self) -> Client:
        """The client, while the session is open."""
        if self.client is None:
            raise MCPError(types.CONNECTION_CLOSED, "Connection closed")
        return self.client

    @property
    def lost(self) -> bool:
        """Whether it is known to have ended."""
        return self.ended.is_set() or self.stderr.ended

    async def live(self) -> None:
        """Open the session, and keep it until it is left. Raises nothing but cancellation."""
        try:
            with self._scope:
                await self._live()
        except Exception as error:
            self.error = error
        finally:
            self.client = None
            self.stderr.close()
            self.opened.set()
            self.ended.set()

    async def end(self) -> None:
        """Leave the session and wait for its end; one that does not end by itself is cancelled."""
        with anyio.CancelScope(shield=True):
            if self.opened.is_set():
                self.leave.set()
                with anyio.move_on_after(_LEAVING):
                    await self.ended.wait()
            self._scope.cancel()
            await self.ended.wait()

    async def _live(self) -> None:
        async with _transport(self._target, self.stderr) as transport:
            client = Client(
                transport,
                cache=None,
                client_info=types.Implementation(name="agentkit", version="0"),
                elicitation_callback=self._elicit,
                message_handler=self._notified,
                logging_callback=self._logged,
            )
            async with client:
                self.client = client
                self.opened.set()
                await self._listen(client)
                await self.leave.wait()

    async def _listen(self, client: Client) -> None:
        """Hear of changes of the tools until the session is left, where servers tell so.

        Before 2026-07-28 they come to `_notified` unasked.
        """
        tools = client.server_capabilities.tools
        if client.protocol_version < "2026" or tools is None or not tools.list_changed:
            return

        async def hear() -> None:
            while True:
                try:
                    async with client.listen(tools_list_changed=True) as events:
                        async for _ in events:
                            self._changed()
                except (MCPError, SubscriptionLost, TimeoutError):
                    self._changed()  # what happened meanwhile is not known
                    await anyio.sleep(1)

        async with anyio.create_task_group() as group:
            group.start_soon(hear)
            await self.leave.wait()
            group.cancel_scope.cancel()

    async def _notified(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._changed()

    async def _logged(self, params: types.LoggingMessageNotificationParams) -> None:
        _diagnostics.debug("%s: %s: %s", self._target.name, params.level, params.data)

    async def _elicit(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        """Ask the approver of the run whose call the server is working on."""
        caller = _calling.get() or self._only_caller()
        if caller is None:
            return types.ElicitResult(action="cancel")
        schema = None if isinstance(params, types.ElicitRequestURLParams) else _schema(params)
        question = params.message
        if isinstance(params, types.ElicitRequestURLParams):
            question = f"{question} ({params.url})"
        try:
            decision = await caller.context.ask(question, name=caller.tool, schema=schema)
            return answered(decision, schema)
        except Exception as error:  # the approver is the application's code
            _diagnostics.exception("The approver failed on a question of %s", self._target.name)
            return types.ErrorData(code=types.INTERNAL_ERROR, message=type(error).__name__)

    def _only_caller(self) -> Caller | None:
        """Return the call that a question must be about, where the protocol does not say it."""
        callers = [*self.callers]
        runs = {one.context.run_id for one in callers}
        return callers[0] if len(runs) == 1 else None

    @contextmanager
    def calling(self, caller: Caller) -> Generator[None, None, None]:
        """Let questions of the server find the call."""
        self.callers.add(caller)
        token = _calling.set(caller)
        try:
            yield
        finally:
            _calling.reset(token)
            self.callers.discard(caller)


class Connection:
    """The connection of one toolset in one event loop.

    Attributes:
        stale: The server's tools may have changed since they were listed.
    """

    def __init__(self, target: Target) -> None:
        self.stale = True
        self._target = target
        self._session: Session | None = None
        self._opening = anyio.Lock()
        self._slots = CapacityLimiter(target.parallel) if target.parallel else None
        self._tasks: set[Any] = set()

    async def session(self) -> Session:
        """Return the open session; open one if there is none, or the last one was lost.

        Raises:
            ServerUnreachable: It cannot be opened.
        """
        async with self._opening:
            session = self._session
            if session is None or session.lost:
                await self.close()
                session = self._session = Session(self._target, self._changed)
                self.stale = True
                self._start(session.live)
            with anyio.move_on_after(self._target.connect_timeout):
                await session.opened.wait()
            if session.client is not None:
                return session
            await self.close()
            seconds = self._target.connect_timeout
            why = f"did not answer within {seconds:g} s"
            if session.error is not None:
                why = f"cannot be reached: {reason(session.error)}"
            raise await self._lost(session, f"The MCP server {self._target.name} {why}.")

    def _changed(self) -> None:
        self.stale = True

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Start the task of a session. It belongs to no task of a run."""
        if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
            task = asyncio.ensure_future(cast("Any", work()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            import trio  # it runs here already

            trio.lowlevel.spawn_system_task(work)

    async def call(self, name: str, arguments: JsonObject, context: RunContext[Any]) -> Any:
        """Call a tool; return what the model reads.

        Raises:
            ToolError: The tool failed, or the server; the text is for the model.
        """

        async def report(progress: float, total: float | None, message: str | None) -> None:
            values = {"progress": progress, "total": total, "message": message}
            context.progress({key: one for key, one in values.items() if one is not None})

        async def send(session: Session) -> types.CallToolResult:
            with session.calling(Caller(context=context, tool=name)):
                return await session.open.call_tool(name, arguments, progress_callback=report)

        try:
            async with self._slots or nullcontext():
                result = await self.request(send, again=False)
        except ServerUnreachable as error:
            raise ToolError(error.message) from error
        except (RuntimeError, ValidationError) as error:  # an answer that is not as announced
            raise ToolError(f"The answer of {self._target.name} is not valid: {error}") from error
        if result.is_error:
            raise ToolError(text_of(map(block_part, result.content)) or "The tool failed.")
        return result_parts(result)

    async def listed(self, what: str) -> list[Any]:
        """Return all pages of `tools`, `resources` or `prompts`; none if the server has no such.

        Raises:
            ServerUnreachable: The server is gone, or answers with an error.
        """

        async def send(session: Session) -> list[Any]:
            if what == "tools":
                self.stale = False  # what changes from now on is not in the list
            client, items, cursor = session.open, list[Any](), None
            if getattr(client.server_capabilities, what) is None:
                return []
            with anyio.fail_after(self._target.connect_timeout):
                for _ in range(_PAGES):
                    page = await getattr(client, f"list_{what}")(cursor=cursor)
                    items += getattr(page, what)
                    cursor = page.next_cursor
                    if not cursor:
                        break
            return items

        try:
            return await self.request(send)
        except (ToolError, ValidationError, TimeoutError) as error:
            self.stale = True
            text = f"The MCP server {self._target.name} cannot list its {what}: {reason(error)}."
            raise ServerUnreachable(text, server=self._target.name) from error
        except BaseException:
            self.stale = True
            raise

    async def read(self, uri: str) -> list[Part]:
        """Read a resource."""
        result = await self.request(lambda session: session.open.read_resource(uri))
        return [resource_part(one) for one in result.contents]

    async def prompt(self, name: str, arguments: dict[str, str]) -> list[Message]:
        """Fill in a prompt."""
        result = await self.request(lambda session: session.open.get_prompt(name, arguments))
        parts = [(one.role, block_part(one.content)) for one in result.messages]
        return [
            AssistantMessage(content=text_of([part]))
            if role == "assistant"
            else UserMessage(content=(part,))
            for role, part in parts
        ]

    async def request(
        self, send: Callable[[Session], Awaitable[ResultT]], *, again: bool = True
    ) -> ResultT:
        """Send a request, in a new session if the old one was lost.

        Args:
            send: Sends it; it may be called twice.
            again: Whether a request during which the session was lost is sent once more. One
                that the server has refused, because it does not know the session, always is.

        Raises:
            ServerUnreachable: The server is gone.
            ToolError: It answered with an error.
        """
        for attempt in (0, 1):
            session = await self.session()
            try:
                return await send(session)
            except MCPError as error:
                refused = error.code == types.INVALID_REQUEST and "Session terminated" in str(error)
                if not refused and error.code != types.CONNECTION_CLOSED:
                    name = self._target.name
                    raise ToolError(f"{name} answers with an error: {error.message}") from error
                await self._drop(session)
                if attempt or not (again or refused):
                    text = f"The connection to the MCP server {self._target.name} was lost."
                    raise await self._lost(session, text) from error
        raise AssertionError("unreachable")

    async def _drop(self, session: Session) -> None:
        """Forget a session that was lost."""
        if self._session is session:
            await self.close()

    async def _lost(self, session: Session, text: str) -> ServerUnreachable:
        tail = self._presentable(await session.stderr.text())
        shown = f" The last lines of its stderr:\n{tail}" if tail else ""
        return ServerUnreachable(text + shown, server=self._target.name, stderr=tail or None)

    def _presentable(self, text: str) -> str:
        """Return a server's stderr without folders of the host and what it was started with."""
        for name, value in self._target.secrets.items():
            if len(value) > 3:
                text = text.replace(value, f"⟦{name}⟧")
        return _PATH.sub("…/", _redact(text))

    async def close(self) -> None:
        """Leave the session, if there is one: its process or its connection ends."""
        session, self._session = self._session, None
        if session is not None:
            await session.end()


class _Tail:
    """The last lines that a process writes to its stderr, read in a thread."""

    def __init__(self) -> None:
        self.ended = False
        self._lines: deque[str] = deque(maxlen=_TAIL)
        self._reading = False
        self._writer: Any = None

    def open(self) -> Any:
        """Return the file to which the process writes."""
        reader, writer = os.pipe()
        self._reading = True
        self._writer = os.fdopen(writer, "w")
        threading.Thread(target=self._read, args=(reader,), daemon=True).start()
        return self._writer

    def started(self) -> None:
        """Close our end: from now on the pipe ends when the process does."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Close our end if the process never started."""
        self.started()

    async def text(self) -> str:
        """Return the lines, those of a process that has just ended included."""
        with anyio.move_on_after(0.2):
            while self._reading and not self.ended:  # noqa: ASYNC110  # a thread reads
                await anyio.sleep(0.01)
        return "\n".join(self._lines)[-1000:]

    def _read(self, reader: int) -> None:
        with open(reader, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._lines.append(line.rstrip()[:500])
                _diagnostics.debug("stderr of an MCP server: %s", line.rstrip())
        self.ended = True


@asynccontextmanager
async def _transport(target: Target, stderr: _Tail) -> AsyncGenerator[Transport, None]:
    if target.command:
        parameters = StdioServerParameters(
            command=target.command[0],
            args=[*target.command[1:]],
            env=dict(target.env),
            cwd=target.cwd,
        )
        yield _spawned(parameters, stderr)
        return
    if target.http_client is not None:
        yield streamable_http_client(target.url, http_client=target.http_client)
        return
    # A server may be silent for as long as a call takes; tools have their own timeouts.
    timeout = httpx2.Timeout(target.connect_timeout, read=None)
    async with httpx2.AsyncClient(headers=dict(target.headers), timeout=timeout) as client:
        yield streamable_http_client(target.url, http_client=client)


@asynccontextmanager
async def _spawned(parameters: StdioServerParameters, stderr: _Tail) -> AsyncGenerator[Any, None]:
    async with stdio_client(parameters, errlog=stderr.open()) as streams:
        stderr.started()
        yield streams


def reason(error: BaseException) -> str:
    """Return why something failed, in a few words: the first of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    if isinstance(error, FileNotFoundError):
        return f"there is no program {error.filename!r}"
    if isinstance(error, ValidationError):
        return "its answer is not MCP"
    return f"{type(error).__name__}: {safe_str(error)}".rstrip(": ")


def _schema(params: types.ElicitRequestFormParams) -> JsonObject:
    schema: Any = params.requested_schema
    return schema if is_object(schema) else schema.model_dump(by_alias=True, exclude_none=True)


def answered(decision: Decision | None, schema: JsonObject | None) -> types.ElicitResult:
    """Return a decision as the answer to a question of a server.

    Raises:
        ToolError: It does not fit the schema.
    """
    if decision is None:
        return types.ElicitResult(action="cancel")
    if decision.kind == "deny":
        return types.ElicitResult(action="decline")
    if schema is None:
        return types.ElicitResult(action="accept")
    content = _content(decision, schema)
    for error in compiled("elicitation", schema).iter_errors(content):
        raise ToolError(f"The answer to the server's question does not fit: {error.message}.")
    return types.ElicitResult(action="accept", content=content)


def _content(decision: Decision, schema: JsonObject) -> Any:
    """Return what a person answered; of a single field, its value is enough."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    if decision.kind == "approve":
        return {key: one["default"] for key, one in properties.items() if "default" in one}
    try:
        value = json.loads(decision.text)
    except ValueError:
        value = decision.text
    if is_object(value) or len(properties) != 1:
        return value
    ((key, one),) = properties.items()
    return {key: decision.text if one.get("type") == "string" else value}
