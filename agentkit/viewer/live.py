"""The server of live pages: runs that are followed as they grow, and decided about.

It is for one person at one machine. Whoever has its address, token included, sees the runs
and may decide; so the token is checked first and takes the same time whatever is wrong with
it, a request has to name the host that was opened (a page elsewhere may give its own name
this address), and a decision has to come from a page of this server. Nothing is given to
other pages: there are no CORS headers.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
from anyio.abc import TaskGroup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentkit.agent import Agent
from agentkit.core.effects import Decision
from agentkit.errors import AgentKitError, safe_str
from agentkit.runtime.result import result_of
from agentkit.viewer.assembly import document
from agentkit.viewer.follow import Followed, FollowedFolder, FollowedRun
from agentkit.viewer.records import words

_BATCH = 1 << 18
"""Characters of records in one message: a page shows them as they come."""
_KEEP_ALIVE = 15.0
_LARGEST = 1 << 20
"""Bytes of a decision."""
_AT_ONCE = 2.0
"""Seconds in which a run that cannot go on says so to the page that has decided."""
_KINDS: dict[str, Callable[[str], Decision]] = {
    "approve": lambda _: Decision.approve(),
    "deny": Decision.deny,
    "answer": Decision.answer,
    "edit": Decision.edit,
}
_HEADERS = (
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
)
_diagnostics = logging.getLogger("agentkit")


@dataclass(kw_only=True)
class Live:
    """What a server of live pages shows.

    Attributes:
        place: A folder with traces, or one trace.
        token: What its addresses begin with.
        agent: The agent that goes on with a run when it was decided about; None where that is
            done elsewhere.
        app: How a command finds the agent.
        deps: What its tools need.
        program: How the commands begin that the pages offer.
        ending: Whether the server ends: then nothing is followed any more.
    """

    place: Path
    token: str
    agent: Agent[Any] | None = None
    app: str | None = None
    deps: Any = None
    program: str = "agentkit"
    ending: Callable[[], bool] = lambda: False
    _runs: dict[str, FollowedRun] = field(default_factory=dict[str, FollowedRun])
    _readers: dict[str, int] = field(default_factory=dict[str, int])
    _folder: FollowedFolder | None = None
    _tasks: TaskGroup | None = None

    def application(self, hosts: Collection[str]) -> ASGIApp:
        """Return the application; `hosts` are the names, with the port, that it answers to."""
        routes = [
            Route("/", self._first),
            Route("/runs", self._list),
            Route("/run/{name}", self._page),
            Route("/events/{name}", self._events),
            Route("/decide/{name}", self._decide, methods=["POST"]),
        ]
        self._folder = FollowedFolder(self.place) if self.place.is_dir() else None
        app = Starlette(routes=routes, lifespan=self._lifespan)
        return _Guard(app, self.token, frozenset(hosts))

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as self._tasks:
            yield
            self._tasks.cancel_scope.cancel()  # a run that goes on here can be resumed

    # Pages

    async def _first(self, _: Request) -> Response:
        if self._folder is None:
            return await self._shown(self.place.name)
        attributes = {"data-stream": f"/{self.token}/runs", "data-folder": str(self.place)}
        page = document(str(self.place), "", attributes=attributes, connect="'self'", entry="runs")
        return HTMLResponse(page)

    async def _page(self, request: Request) -> Response:
        return await self._shown(request.path_params["name"])

    async def _shown(self, name: str) -> Response:
        run = self._run(name)
        if run is None:
            return PlainTextResponse("There is no such run.", 404)
        await run.fresh()
        where = f"{{}}/{quote(name, safe='')}"
        attributes = {"data-stream": f"/{self.token}/{where.format('events')}"}
        if self.agent is not None and self.agent.name == run.agent:
            attributes["data-decide"] = f"/{self.token}/{where.format('decide')}"
        if self._folder is not None:
            attributes["data-runs"] = f"/{self.token}/"
        return HTMLResponse(document(name, "", attributes=attributes, connect="'self'"))

    def _run(self, name: str) -> FollowedRun | None:
        """Return a file by its name; None if there is none of that name here."""
        if (known := self._runs.get(name)) is not None:
            return known
        if self._folder is None:
            path = self.place if name == self.place.name else None
        else:
            inside = Path(name).name == name and "\\" not in name and name.endswith(".jsonl")
            path = self.place / name if inside else None
        if path is None or not path.is_file():
            return None
        run = FollowedRun(path, words(self.program, self.app), self.agent)
        self._runs[name] = run
        return run

    # Streams

    async def _list(self, _: Request) -> Response:
        if self._folder is None:
            return PlainTextResponse("There is no folder.", 404)
        return _stream(self._follow(self._folder))

    async def _events(self, request: Request) -> Response:
        name = request.path_params["name"]
        run = self._run(name)
        if run is None:
            return PlainTextResponse("There is no such run.", 404)

        async def followed() -> AsyncIterator[str]:
            self._readers[name] = self._readers.get(name, 0) + 1
            try:
                async for part in self._follow(run):
                    yield part
            finally:
                self._readers[name] -= 1
                if not self._readers[name] and not run.resumed:
                    self._runs.pop(name, None)  # nobody looks at it any more

        return _stream(followed())

    async def _follow(self, followed: Followed) -> AsyncIterator[str]:
        """Yield what is new, until the run is over or the page has gone."""
        version, shown, idle = 0, "", 0.0
        generation: int | None = None
        while not self.ending():
            await followed.fresh()
            if generation not in (None, followed.generation):
                yield _event("reset", "")
                return
            generation, newest = followed.generation, followed.feed.version
            for batch in _batches(followed.feed.since(version)):
                yield _event("", f"[{','.join(batch)}]")
                idle = 0.0
            version = newest
            if followed.problem != shown:
                shown = followed.problem
                yield _event("problem", json.dumps(shown))
            if followed.over and not shown:
                yield _event("end", "")
                return
            if (idle := idle + 0.25) > _KEEP_ALIVE:
                yield ": still here\n\n"
                idle = 0.0
            await anyio.sleep(0.25)

    # Decisions

    async def _decide(self, request: Request) -> Response:
        run = self._run(request.path_params["name"])
        if run is None or self.agent is None:
            return PlainTextResponse("Nothing can be decided here.", 404)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LARGEST:
                return PlainTextResponse("The decision is too long.", 413)
        try:
            given = json.loads(body)
            at, kind, text = given["at"], given["kind"], given.get("text", "")
            decision = _KINDS[kind](text)
        except AgentKitError as error:
            return PlainTextResponse(error.message, 422)
        except (ValueError, KeyError, TypeError, AttributeError):
            return PlainTextResponse("This is no decision.", 400)
        if run.resumed:
            return PlainTextResponse("The run goes on already; decide when it waits again.", 409)
        return await self._resumed(run, at, decision)

    async def _resumed(self, run: FollowedRun, at: str, decision: Decision) -> Response:
        """Let a run go on; return why it cannot, if that is known at once."""
        assert self._tasks is not None
        problem: list[str] = []
        over = anyio.Event()
        run.resumed = True
        self._tasks.start_soon(self._resume, run, at, decision, problem, over)
        with anyio.move_on_after(_AT_ONCE):
            await over.wait()
        return PlainTextResponse(problem[0], 409) if problem else PlainTextResponse("", 202)

    async def _resume(
        self, run: FollowedRun, at: str, decision: Decision, problem: list[str], over: anyio.Event
    ) -> None:
        assert self.agent is not None
        try:
            await self.agent.resume(run.path, decisions={at: decision}, deps=self.deps)
        except Exception as error:
            if result_of(error) is None:  # it has not begun
                text = error.message if isinstance(error, AgentKitError) else safe_str(error)
                problem.append(text)
                _diagnostics.warning("%s cannot go on: %s", run.path, problem[0])
        finally:
            run.resumed = False
            over.set()


def _batches(lines: list[str]) -> Iterator[list[str]]:
    """Yield lines together, so many at once that a page can show them meanwhile."""
    batch: list[str] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size > _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _event(name: str, data: str) -> str:
    """Return a server-sent event; `data` has no line ends, as JSON in ASCII."""
    return f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n"


def _stream(parts: AsyncIterator[str]) -> Response:
    return StreamingResponse(parts, media_type="text/event-stream")


class _Guard:
    """Lets in who has the token, by the right name, and from a page of this server."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self._app, self._token, self._hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            return await PlainTextResponse(*refusal)(scope, receive, guarded)
        prefix = f"/{self._token}"
        path = scope["path"][len(prefix) :] or "/"
        return await self._app({**scope, "path": path}, receive, guarded)

    def _refusal(self, scope: Scope) -> tuple[str, int] | None:
        """Return why a request is refused, and the status; None if it is not."""
        token = scope["path"].split("/")[1].encode()
        if not hmac.compare_digest(token, self._token.encode()):
            return "Not found.", 404
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if host not in self._hosts:
            return f"This server does not answer to the name {host!r:.100}.", 421
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        site = headers.get(b"sec-fetch-site", b"none")
        elsewhere = origin != f"http://{host}" if origin else scope["method"] == "POST"
        if elsewhere or (scope["method"] == "POST" and site not in (b"same-origin", b"none")):
            return "Only a page of this server may ask for this.", 403
        return None
