"""An MCP server of tools, or of an agent as one tool.

Each call that comes in is a run: of an agent whose model asks for exactly this call. So it is
checked, limited, approved and recorded like any other one.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, TextIO, TypeAlias, cast

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import MCPError, stdio_server
from mcp.server import Server, ServerRequestContext
from starlette.applications import Starlette

from agentkit.agent import Agent
from agentkit.core.effects import Address, Decision, PendingCall
from agentkit.errors import AgentKitError, ConfigurationError, safe_repr, safe_str
from agentkit.events import Emit, Event, ToolCallFinished, ToolCallStarted, ToolProgress, ignore
from agentkit.mcp.content import blocks_of
from agentkit.mcp.endpoint import application_of, serve_http
from agentkit.messages import (
    AssistantMessage,
    JsonObject,
    Message,
    ModelRequest,
    ModelResponse,
    ToolCall,
    ToolMessage,
    Usage,
    is_object,
)
from agentkit.models.base import DIRECT
from agentkit.models.profiles import Profile
from agentkit.runtime.request import TraceTo
from agentkit.runtime.result import RunResult
from agentkit.runtime.scope import Approver
from agentkit.tools.context import RunContext
from agentkit.tools.tool import AnyTool, Tool
from agentkit.tools.toolset import Toolset, check_names, tools_of
from agentkit.trace.reader import Trace

Offered: TypeAlias = AnyTool | Callable[..., Any] | Toolset | Agent[Any, Any]
Context: TypeAlias = ServerRequestContext[Any, Any]


class _OneCall:
    """The model of a run that makes one call, and then ends."""

    name = "mcp"
    profile = Profile(name="mcp")

    def __init__(self, tool: str, arguments: str) -> None:
        self._call = ToolCall(id="call", name=tool, arguments=arguments)

    def check(self) -> None:
        """Do nothing: nothing can be missing."""

    async def request(
        self,
        request: ModelRequest,
        *,
        at: Address = DIRECT,
        emit: Emit = ignore,
        stream: bool = False,
    ) -> ModelResponse:
        """Ask for the call; end once it is answered."""
        answered = isinstance(request.messages[-1], ToolMessage)
        message = AssistantMessage(content="Done.")
        if not answered:
            message = AssistantMessage(tool_calls=(self._call,))
        finish = "stop" if answered else "tool_calls"
        return ModelResponse(message=message, finish=finish, usage=Usage(), model=self.name)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""


class ToolServer:
    """What an MCP server offers, and how it answers."""

    def __init__(
        self,
        offered: Sequence[Offered],
        *,
        name: str,
        instructions: str | None,
        deps: Any,
        trace: TraceTo | None,
        approver: Approver | None,
    ) -> None:
        """Prepare the server; see `serve`."""
        self._tools = [_source(one) for one in offered]
        if not self._tools:
            raise ConfigurationError("serve() has nothing to offer: give it tools or an agent.")
        check_names([one for one in self._tools if isinstance(one, Tool)])
        self._deps = deps
        self._trace: TraceTo = False if trace is None else trace
        self._approver = approver
        self._described: dict[AnyTool, types.Tool] = {}
        self._paused: OrderedDict[str, _Paused] = OrderedDict()
        self.server: Server[Any] = Server(
            name,
            instructions=instructions,
            lifespan=self._lifespan,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Server[Any]) -> AsyncGenerator[None, None]:
        """Keep the toolsets' connections open between calls."""
        async with AsyncExitStack() as stack:
            for one in self._tools:
                if isinstance(one, Toolset) and hasattr(one, "__aenter__"):
                    await stack.enter_async_context(cast("Any", one))
            yield

    async def _list(
        self, _: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        context = RunContext[Any](deps=self._deps)
        tools: list[AnyTool] = []
        for one in self._tools:
            tools += [one] if isinstance(one, Tool) else await tools_of(one, context)
        described = {tool: self._described.get(tool) or _described(tool) for tool in tools}
        self._described = described
        return types.ListToolsResult(tools=[*described.values()])

    async def _call(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        arguments = json.dumps(params.arguments or {}, ensure_ascii=False)
        agent = Agent(_OneCall(params.name, arguments), name="mcp", tools=self._tools)
        send, receive = anyio.create_memory_object_stream[Event](_QUEUE)
        async with anyio.create_task_group() as group:
            group.start_soon(_report, context, receive)
            with send:
                return await self._run(agent, context, params, send)
        raise AssertionError("unreachable")

    async def _run(
        self,
        agent: Agent[Any],
        context: Context,
        params: types.CallToolRequestParams,
        send: MemoryObjectSendStream[Event],
    ) -> types.CallToolResult | types.InputRequiredResult:
        finished: list[ToolCallFinished] = []

        def listen(event: Event) -> None:
            if isinstance(event, ToolCallFinished) and event.at == _AT:
                finished.append(event)
            _forward(event, send)

        approver = self._approver or _Approval(context).decide
        try:
            if params.request_state is None:
                # A run that may pause for the client's answer needs a trace to go on in.
                result = await agent.run(
                    "Make this call.",
                    deps=self._deps,
                    trace=self._trace or True,
                    on_event=listen,
                    approver=approver,
                )
            else:
                paused = self._paused.pop(params.request_state, None)
                if paused is None or paused.call != (params.name, params.arguments):
                    return _failed("This question is not open any more. Call the tool again.")
                result = await agent.resume(
                    paused.trace,
                    decisions=_decisions(paused.pending, params.input_responses or {}),
                    deps=self._deps,
                    on_event=listen,
                    approver=approver,
                )
        except AgentKitError as error:
            return _failed(error.message)
        except Exception as error:  # of a tool with on_error="raise"
            return _failed(f"{type(error).__name__}: {safe_str(error)}")
        if result.status == "paused":
            return self._asking(params, result)
        return _answer(result.messages, finished)

    def _asking(
        self, params: types.CallToolRequestParams, result: RunResult[Any]
    ) -> types.InputRequiredResult:
        """Keep a paused call, and ask the client; it calls again with the answers."""
        assert result.trace is not None
        state, call = secrets.token_urlsafe(), (params.name, params.arguments)
        self._paused[state] = _Paused(call=call, trace=result.trace, pending=result.pending)
        while len(self._paused) > _QUESTIONS:
            self._paused.popitem(last=False)
        requests: types.InputRequests = {
            one.at: types.ElicitRequest(
                params=types.ElicitRequestFormParams(
                    message=_question(one), requested_schema=_NOTHING
                )
            )
            for one in result.pending
        }
        return types.InputRequiredResult(input_requests=requests, request_state=state)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Paused:
    """A call that waits for its client's user; only the same call goes on with it."""

    call: tuple[str, dict[str, Any] | None]
    trace: Trace
    pending: tuple[PendingCall, ...]


_QUESTIONS = 256
"""Calls that wait for their clients; the oldest is given up for a newer one."""
_NOTHING: JsonObject = {"type": "object", "properties": {}}
_REFUSED = "The user of the client refused it."


def _question(pending: PendingCall) -> str:
    return f"Allow {pending.call.name} {pending.call.arguments}?"


def _decisions(
    pending: Sequence[PendingCall], answers: Mapping[str, types.InputResponse]
) -> dict[Address, Decision]:
    """Return what a client's user decided; what was not answered is refused."""
    decisions: dict[Address, Decision] = {}
    for one in pending:
        answer = answers.get(one.at)
        agreed = isinstance(answer, types.ElicitResult) and answer.action == "accept"
        decisions[one.at] = (
            Decision.approve(by="the client")
            if agreed
            else Decision.deny(_REFUSED, by="the client")
        )
    return decisions


_QUEUE = 1000
"""Progress events that wait for a client; one that does not keep up misses those after them."""
_AT = Address.root("mcp").step(0).call(0)


def _answer(
    messages: Sequence[Message], finished: Sequence[ToolCallFinished]
) -> types.CallToolResult:
    answers = [one for one in messages if isinstance(one, ToolMessage)]
    if not answers:
        return _failed("The call waits for a decision that cannot be made here.")
    failed = not finished or finished[0].status != "ok"
    return types.CallToolResult(content=[*blocks_of(answers[0].content)], is_error=failed)


def _failed(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)


def _source(offered: object) -> AnyTool | Toolset:
    if isinstance(offered, Agent):
        return cast("Agent[Any, Any]", offered).as_tool()
    if isinstance(offered, (Tool, Toolset)):
        return cast("AnyTool | Toolset", offered)
    if callable(offered):
        return Tool(offered)
    raise ConfigurationError(
        f"serve({safe_repr(offered)}): expected a tool, a function, a toolset or an agent."
    )


def _described(tool: AnyTool) -> types.Tool:
    plain = tool.with_(strict=False)  # clients send what the function takes
    return types.Tool(
        name=plain.name,
        description=plain.description or None,
        input_schema={"type": "object", **plain.parameters},
        annotations=types.ToolAnnotations(read_only_hint=plain.effect == "read"),
    )


def _forward(event: Event, send: MemoryObjectSendStream[Event]) -> None:
    """Queue what a client may want to see of a call."""
    inner = isinstance(event, ToolCallStarted) and event.at != _AT
    if isinstance(event, ToolProgress) or inner:
        try:
            send.send_nowait(event)
        except anyio.WouldBlock:
            return


async def _report(context: Context, events: MemoryObjectReceiveStream[Event]) -> None:
    """Send the progress of a call to its client, if it has asked for it."""
    number = 0
    with events:
        async for event in events:
            number += 1
            await context.session.report_progress(*_progress(event, number))


def _progress(event: Event, number: int) -> tuple[float, float | None, str | None]:
    """Return the progress, the total and the message of an event."""
    if isinstance(event, ToolCallStarted):
        return number, None, f"{event.name} {event.arguments}"
    value: Any = event.value if isinstance(event, ToolProgress) else None
    if is_object(value) and isinstance(value.get("progress"), (int, float)):
        return value["progress"], value.get("total"), value.get("message")
    return number, None, value if isinstance(value, str) else json.dumps(value, default=str)


class _Approval:
    """Asks the person at the client, where the client can ask one."""

    def __init__(self, context: Context) -> None:
        self._session = context.session
        self._request = context.request_id

    async def decide(self, pending: PendingCall) -> Decision | None:
        """Ask about a call, or what a running one asks; no answer is a refusal.

        Since 2026-07-28 servers do not ask while a call runs: it pauses, and is called again.
        """
        capable = types.ClientCapabilities(elicitation=types.ElicitationCapability())
        able = self._session.check_client_capability(capable)
        if able and pending.kind != "question" and self._session.protocol_version >= "2026":
            return None
        if not (able and self._session.can_send_request):
            return Decision.deny("It needs a person's decision, and this client cannot ask for it.")
        text, schema = _question(pending), None
        if pending.kind == "question":
            text, schema = pending.args["question"], pending.args.get("schema")
        try:
            # On the stream of the call: a client may have no other open, or not yet.
            answer = await self._session.elicit_form(text, schema or _NOTHING, self._request)
        except MCPError as error:
            return Decision.deny(f"The client cannot ask a person: {error.message}")
        if answer.action != "accept":
            return Decision.deny(_REFUSED, by="the client")
        if schema is not None:
            return Decision.edit(answer.content or {}, by="the client")
        return Decision.approve(by="the client")


async def serve(
    *offered: Offered,
    name: str = "agentkit",
    instructions: str | None = None,
    http: str | socket.socket | None = None,
    deps: Any = None,
    trace: TraceTo | None = None,
    approver: Approver | None = None,
) -> None:
    """Serve tools, or an agent as one tool, until the client has gone or the task is cancelled.

    Over stdin and stdout, or over HTTP. While it serves stdin and stdout, whatever tools print
    goes to stderr.

    Args:
        offered: Tools, functions, toolsets and agents. A client reaches these and nothing else.
        name: What the server is called.
        instructions: What a client may tell its model about the server.
        http: `HOST:PORT` to listen on, such as "127.0.0.1:8000", or a socket that listens; the
            endpoint is `/mcp`. Nobody is asked who they are: beyond your own machine, put a proxy
            in front that does.
        deps: What the tools depend on.
        trace: The folder in which the trace of each call is written; False for none.
        approver: Decides about calls that need approval. By default the client's user is asked;
            where the client cannot do that, the call is denied.

    Raises:
        ConfigurationError: There is nothing to offer, something else is offered, `http=` is no
            address or cannot be listened at, it is used under trio, where uvicorn does not run,
            or an agent's model does not exist.
    """
    tools = ToolServer(
        offered,
        name=name,
        instructions=instructions,
        deps=deps,
        trace=trace,
        approver=approver,
    )
    for one in offered:
        if isinstance(one, Agent):  # not at its first call: is there such a model, and a key?
            cast("Agent[Any, Any]", one).config.resolved.check()
    if http is not None:
        await serve_http(tools.server, http)
        return
    server = tools.server
    async with stdio_server() as (read, write):
        with _clean(sys.stdout):
            await server.run(read, write, server.create_initialization_options())


def app(
    *offered: Offered,
    name: str = "agentkit",
    instructions: str | None = None,
    deps: Any = None,
    trace: TraceTo | None = None,
    approver: Approver | None = None,
    host: str = "127.0.0.1",
    origins: Sequence[str] = (),
) -> Starlette:
    """Return the same server as an ASGI application, whose endpoint is `/mcp`; see `serve`.

    It runs in its own lifespan. Mounted into another application, it has to be started by that
    one's: `Starlette(lifespan=lambda _: tools.router.lifespan_context(tools))`.

    Args:
        offered: As of `serve`, like all that follow.
        name: What the server is called.
        instructions: What a client may tell its model about the server.
        deps: What the tools depend on.
        trace: The folder in which the trace of each call is written.
        approver: Decides about calls that need approval.
        host: Where clients reach it. On a loopback address, requests to other names of this
            machine are refused: a web page could have made them up.
        origins: Web pages that may call it, such as "https://chat.example.org". Others are
            refused, but for those of this machine if it listens on a loopback address.
    """
    tools = ToolServer(
        offered,
        name=name,
        instructions=instructions,
        deps=deps,
        trace=trace,
        approver=approver,
    )
    return application_of(tools.server, host, origins)


@contextmanager
def _clean(stdout: TextIO) -> Generator[None, None, None]:
    """Send what is printed to stderr; what waits in buffers leaves before stdout is the wire."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        stdout.flush()  # its descriptor is that of stderr, as long as the transport is open


def serve_sync(*offered: Offered, **options: Any) -> None:
    """Call `serve` from code that is not async: the last line of a program."""

    async def main() -> None:
        await serve(*offered, **options)

    anyio.run(main)
