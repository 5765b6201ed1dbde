"""The ASGI application: `POST /v1/chat/completions` and `GET /v1/models`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, TypeAlias, cast

import anyio
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agentkit.agent import Agent
from agentkit.errors import AgentKitError, ConfigurationError
from agentkit.events import Event, StepStarted, TextDelta
from agentkit.messages import JsonObject
from agentkit.runtime.result import RunResult
from agentkit.runtime.run import Run
from agentkit.serve.keys import Gate, Key, Keys
from agentkit.serve.wire import (
    Answer,
    ChatRequest,
    WireError,
    check_format,
    error_of,
    parse,
    paused,
    step_of,
)
from agentkit.settings import ChatSettings, Limits
from agentkit.tools.invoke import called
from agentkit.trace.open import TraceTo

Deps: TypeAlias = Callable[[Request, Key], Any]
"""Makes the deps of one run from its HTTP request and its key; sync or async."""
MAX_BODY = 20_000_000
_diagnostics = logging.getLogger("agentkit")


def app(
    agents: Agent[Any, Any] | Iterable[Agent[Any, Any]] | Mapping[str, Agent[Any, Any]],
    *,
    keys: Keys = None,
    deps: Deps | None = None,
    trace: TraceTo | None = None,
    max_body: int = MAX_BODY,
) -> Starlette:
    """Make an ASGI application that speaks the chat-completions wire for agents.

    A request's `model` is the name of an agent, its messages are the history of a run.
    Sampling parameters are those of the run; tools and output are the agent's own. What the
    agent does on the way is in the field `agentkit` of each chunk. A client that disconnects
    cancels its run. Mount it below a path, or serve it alone.

    Args:
        agents: The agents, by their names or by those of a mapping.
        keys: The keys that clients send as `Authorization: Bearer …`, alone or with what
            their holders may use. None lets anybody in: for loopback, or behind your own gate.
        deps: Makes the deps of a run; None gives none.
        trace: Where runs are recorded, one file for each request; the agents' own if None.
        max_body: Bytes of the largest request.

    Raises:
        ConfigurationError: There is no agent, two have one name, or a key is no key.
    """
    served = _named(agents)
    endpoint = _Endpoint(served, Gate(keys), deps, trace, max_body)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", endpoint.complete, methods=["POST"]),
            Route("/v1/models", endpoint.models, methods=["GET"]),
            Route("/v1/models/{name:path}", endpoint.models, methods=["GET"]),
        ],
        exception_handlers={
            WireError: _wire_error,
            HTTPException: _http_error,
        },
    )


def _named(agents: Any) -> dict[str, Agent[Any, Any]]:
    if isinstance(agents, Agent):
        agents = [agents]
    pairs: Iterable[tuple[Any, Any]] = (
        cast("Mapping[Any, Any]", agents).items()
        if isinstance(agents, Mapping)
        else ((getattr(agent, "name", ""), agent) for agent in agents)
    )
    named: dict[str, Agent[Any, Any]] = {}
    for name, agent in pairs:
        if not (isinstance(name, str) and isinstance(agent, Agent)):
            raise ConfigurationError(f"serve.app: {agent!r} is not an agent.")
        if name in named:
            text = f"serve.app: two agents are called {name!r}. Name one with Agent(name=…)."
            raise ConfigurationError(text)
        named[name] = agent
    if not named:
        raise ConfigurationError("serve.app: there is no agent to serve.")
    return named


def _wire_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, WireError)
    return _error_response(error)


def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error_response(WireError(error.status_code, f"{error.detail}.", code="http"))


def _error_response(error: WireError) -> Response:
    headers = {} if error.retry_after is None else {"retry-after": f"{error.retry_after:g}"}
    return JSONResponse(error.body, error.status, headers)


class _Endpoint:
    def __init__(
        self,
        agents: Mapping[str, Agent[Any, Any]],
        gate: Gate,
        deps: Deps | None,
        trace: TraceTo | None,
        max_body: int,
    ) -> None:
        self._agents = agents
        self._gate = gate
        self._deps = deps
        self._trace = trace
        self._max_body = max_body

    async def models(self, request: Request) -> Response:
        """List the agents, or one of them."""
        self._gate.holder(request.headers.get("authorization", ""))
        cards = [
            {"id": name, "object": "model", "created": 0, "owned_by": "agentkit"}
            for name in self._agents
        ]
        wanted = request.path_params.get("name")
        if wanted is None:
            return JSONResponse({"object": "list", "data": cards})
        self._agent(wanted)
        return JSONResponse(next(card for card in cards if card["id"] == wanted))

    async def complete(self, request: Request) -> Response:
        """Answer one request with one run."""
        key = self._gate.holder(request.headers.get("authorization", ""))
        chat = parse(await self._body(request))
        agent = self._agent(chat.model)
        output = agent.config.output_spec
        check_format(chat.format, None if output.finishing else output.schema, chat.model)
        self._gate.enter(key)
        try:
            deps = None if self._deps is None else await called(self._deps, request, key)
            options: dict[str, Any] = {
                "history": chat.messages,
                "settings": None if chat.settings == ChatSettings() else chat.settings,
                "limits": _tighter(agent.config.limits, key.limits),
                "deps": deps,
                "trace": self._trace,
            }
            run = agent.stream(None, **options)
        except BaseException as error:
            self._gate.leave(key)
            if isinstance(error, AgentKitError):
                raise _refused(chat, error) from error
            raise
        return _Completion(chat, run, output.schema is None, lambda: self._gate.leave(key))

    def _agent(self, name: str) -> Agent[Any, Any]:
        if (agent := self._agents.get(name)) is not None:
            return agent
        text = f"The model {name!r} does not exist. There are: {', '.join(self._agents)}."
        raise WireError(404, text, code="model_not_found", param="model")

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > self._max_body:
                raise WireError(413, f"The request has more than {self._max_body:,} bytes.")
        return bytes(body)


def _tighter(own: Limits, key: Limits | None) -> Limits | None:
    """Return limits of which none is wider than either."""
    if key is None:
        return None
    names = [name for name in Limits.__slots__ if getattr(key, name) is not None]
    bounds = {
        name: getattr(key, name)
        if getattr(own, name) is None
        else min(getattr(own, name), getattr(key, name))
        for name in names
    }
    return replace(own, **bounds)


def _refused(chat: ChatRequest, error: AgentKitError) -> WireError:
    _diagnostics.warning("A request to %s failed: %s", chat.model, error)
    return error_of(error, "")


class _Completion(Response):
    """The answer to one request: its run goes on while it is sent, and no longer."""

    def __init__(
        self,
        chat: ChatRequest,
        run: AbstractAsyncContextManager[Run[Any]],
        is_text: bool,
        done: Callable[[], None],
    ) -> None:
        super().__init__()
        self._chat = chat
        self._run = run
        self._is_text = is_text
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a client that disconnects cancels the run."""
        try:
            async with self._run as run, anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_on_disconnect, run, receive)
                try:
                    if self._chat.stream:
                        await self._stream(run, send)
                    else:
                        answer = await self._whole(run)
                        self._leave()
                        await answer(scope, receive, send)
                except OSError:
                    run.cancel("the client has gone")
                tasks.cancel_scope.cancel()
        except AgentKitError as error:  # it did not begin
            await _error_response(_refused(self._chat, error))(scope, receive, send)
        finally:
            self._leave()

    def _leave(self) -> None:
        """Let the next run of this key begin: before the client knows that this one has ended."""
        done, self._done = self._done, lambda: None
        done()

    async def _whole(self, run: Run[Any]) -> Response:
        steps = [step async for event in run if (step := step_of(event)) is not None]
        try:
            result = _ended(run)
        except WireError as error:
            return _error_response(error)
        answer = Answer.of(result.run, self._chat.model)
        body = answer.completion(_text(result), result.usage, steps, result.status)
        return Response(to_json(body), media_type="application/json")

    async def _stream(self, run: Run[Any], send: Send) -> None:
        answer = Answer.of(run.id, self._chat.model)
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        headers += [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for body in self._chunks(run, answer):
            await _send_event(send, to_json(body))
        self._leave()
        await _send_event(send, b"[DONE]", more=False)

    async def _chunks(self, run: Run[Any], answer: Answer) -> AsyncIterator[JsonObject]:
        yield answer.chunk({"role": "assistant", "content": ""}, agentkit={"run": run.id})
        written = False
        async for event in run:
            if self._is_text and (text := _new_text(event, run, written)) is not None:
                written = True
                yield answer.chunk({"content": text})
            if (step := step_of(event)) is not None:
                yield answer.chunk({}, agentkit={"steps": [step]})
        try:
            result = _ended(run)
        except WireError as error:
            yield error.body
            return
        if not (self._is_text and written):
            yield answer.chunk({"content": _text(result)})
        yield answer.chunk({}, "stop", agentkit={"run": run.id, "status": result.status})
        if self._chat.include_usage:
            yield answer.usage(result.usage)


def _new_text(event: Event, run: Run[Any], written: bool) -> str | None:
    """Return the text to show for an event; where another answer begins, an empty line before."""
    if not run.concerns(event):
        return None
    match event:
        case TextDelta(text=text):
            return text
        case StepStarted() if written:
            return "\n\n"
        case _:
            return None


def _ended(run: Run[Any]) -> RunResult[Any]:
    """Return the result of a run that has an answer.

    Raises:
        WireError: It has none.
    """
    try:
        result = run.result
    except (Exception, SystemExit) as error:
        if not isinstance(error, AgentKitError):
            _diagnostics.exception("The run %s failed", run.id)
        else:
            _diagnostics.warning("The run %s failed: %s", run.id, error)
        raise error_of(error, run.id) from error
    if result.status == "paused":
        raise paused(result.run, result.pending)
    if result.status != "ok":
        raise WireError(499, "The run was cancelled.", code="cancelled")
    return result


def _text(result: RunResult[Any]) -> str:
    output = result.output
    return output if isinstance(output, str) else to_json(output, fallback=repr).decode()


async def _send_event(send: Send, data: bytes, *, more: bool = True) -> None:
    body = b"data: " + data + b"\n\n"
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _cancel_on_disconnect(run: Run[Any], receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    run.cancel("the client has disconnected")
