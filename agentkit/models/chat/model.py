"""`ChatModel`: a model behind a chat-completions server.

Codec and HTTP put together, with what stands around them: which URL, which
key, how often it is tried. The loop sees one call with one answer.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from random import uniform
from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import uuid4

import anyio

from agentkit.core.effects import Address
from agentkit.errors import (
    AgentKitError,
    InvalidResponse,
    InvalidSetting,
    ModelError,
    ModelHTTPError,
    ModelUnreachable,
)
from agentkit.events import (
    Emit,
    HttpFinished,
    HttpStarted,
    Restarted,
    Warned,
    ignore,
)
from agentkit.messages import ModelRequest, ModelResponse
from agentkit.models.base import DIRECT, show_whole
from agentkit.models.chat.call_ids import ids_in
from agentkit.models.chat.codec import (
    EventDecoder,
    Note,
    StreamFold,
    decode_response,
    encode_request,
)
from agentkit.models.chat.endpoint import Endpoint, choose_profile, host_of, shown, without_secrets
from agentkit.models.chat.errors import error_from_http, is_transient, request_id
from agentkit.models.chat.lenient import parse_json
from agentkit.models.constrained.rewrite import constrain, release
from agentkit.models.profiles import Profile
from agentkit.settings import Timeouts

if TYPE_CHECKING:
    from agentkit.models.chat.transport import HttpWire
    from agentkit.models.chat.transport_aiohttp import AiohttpWire
    from agentkit.models.chat.wire import HttpClient, Reply

__all__ = ["ChatModel"]

WAIT_FIRST = 0.5
WAIT_MOST = 30.0
"""Seconds between attempts: doubled each time, with as much jitter again, up to the most."""
DRAIN_SECONDS = 0.25
"""How long the end of a stream is waited for after its [DONE]."""


@dataclass(kw_only=True, slots=True)
class _Call:
    """One request on its way, through all its attempts."""

    request: ModelRequest
    at: Address
    emit: Emit
    show: bool
    streamed: bool
    url: str
    headers: Mapping[str, str] = field(repr=False)  # The key is in them.
    body: bytes
    delay: float | None = None
    shown: bool = False
    broken: str = ""


class ChatModel:
    """A model that a chat-completions server answers for.

        async with ChatModel("gpt-4o") as model:
            response = await model.request(ModelRequest(messages=(UserMessage(content="Hi"),)))

    Environment variables are read when a request is made, so that a program
    without a key can still load, replay and be tested.

    Args:
        model: The model by the server's name.
        base_url: The server, up to and without `/chat/completions`. Default: the profile's.
        api_key: Default: from the profile's environment variable.
        organization: Sent as OpenAI-Organization.
        project: Sent as OpenAI-Project.
        headers: Further headers, such as OpenRouter's HTTP-Referer and X-Title.
        http_client: Your own `httpx2.AsyncClient` or `httpx.AsyncClient`; it is never
            closed here, and its own timeouts hold. Or "aiohttp" (an extra), which takes
            less CPU under asyncio.
        profile: What the server supports: a name of `PROFILES`, or a `Profile`, which is
            taken as it is. Default: known by `base_url`; without one, OpenAI.
        timeout: Seconds for a whole call with all its attempts, or `Timeouts`.
        retries: Further attempts after a failure that may pass: no connection, 408, 409,
            429, 5xx, a broken answer. The server's Retry-After is kept to.
        strict_settings: Refuse parameters that the server does not take, instead of
            dropping them with a warning.

    Raises:
        ConfigurationError: An argument that cannot be.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        headers: Mapping[str, str] | None = None,
        http_client: HttpClient | Literal["aiohttp"] | None = None,
        profile: Profile | str | None = None,
        timeout: float | Timeouts | None = None,
        retries: int = 3,
        strict_settings: bool = False,
    ) -> None:
        self._model = model
        self._profile = choose_profile(profile, base_url, model)
        own = {"openai-organization": organization, "openai-project": project}
        self._endpoint = Endpoint(
            model=model,
            profile=self._profile,
            base_url=base_url,
            api_key=api_key,
            own_headers={name: v for name, v in own.items() if v is not None} | dict(headers or {}),
            # A client of the caller may add the key itself.
            needs_key=http_client in (None, "aiohttp"),
        )
        self._client = http_client
        if timeout is None:
            timeout = Timeouts()
        self._timeouts = timeout if isinstance(timeout, Timeouts) else Timeouts(total=timeout)
        if retries < 0:
            raise InvalidSetting(
                f"retries is {retries!r}; expected 0 or more.",
                field="retries",
                value=repr(retries),
                allowed=">= 0",
            )
        self._attempts = retries + 1
        self._strict = strict_settings
        self._wire_made: AiohttpWire | HttpWire | None = None

    @property
    def name(self) -> str:
        """`provider:model`."""
        return self._endpoint.name

    @property
    def profile(self) -> Profile:
        """What the server supports."""
        return self._profile

    def __repr__(self) -> str:
        return f"ChatModel({self._model!r}, profile={self._profile.name!r})"

    def check(self) -> None:
        """Say now, without I/O, what would make every request fail.

        Raises:
            MissingKey: The server needs a key and there is none.
            ConfigurationError: There is no base URL, a header that cannot be sent, or an
                extra that is not installed.
        """
        self._endpoint.url({})
        self._endpoint.headers({})
        if self._client == "aiohttp":
            self._wire()

    async def request(
        self,
        request: ModelRequest,
        *,
        at: Address = DIRECT,
        emit: Emit = ignore,
        stream: bool = False,
    ) -> ModelResponse:
        """Answer one request; see `Model`. Failures that may pass are tried again.

        Raises:
            ConfigurationError: A key is missing or a parameter is refused; nothing was sent.
            ModelError: There is no usable answer.
        """
        if self._profile.tool_calling != "constrained":
            return await self._ask(request, at, emit, stream)
        # On the wire, text and calls alike are one JSON text: it is shown when it is read.
        plain = stream and (not request.tools or request.tool_choice == "none")
        answer = await self._ask(constrain(request), at, emit, plain)
        response = release(request, answer, at=at)
        if stream and not plain:
            show_whole(response.message, at, emit)
        return response

    async def _ask(
        self, request: ModelRequest, at: Address, emit: Emit, stream: bool
    ) -> ModelResponse:
        call = self._prepare(request, at, emit, stream)
        total = self._timeouts.total
        with anyio.move_on_after(total) as scope:
            return await self._tried(call, scope.deadline)
        raise ModelUnreachable(
            f"{self.name} gave no complete answer within {total:g} seconds.", model=self.name
        )

    async def models(self) -> list[str]:
        """The models that the server lists.

        Raises:
            ModelError: It does not answer, or lists none.
        """
        url = self._endpoint.url({}, "/models")
        async with self._wire().send("GET", url, self._endpoint.headers({})) as reply:
            if reply.status >= 300:
                raise await self._failed(reply, url)
            body = await _whole(reply.chunks)
        with suppress(ValueError, KeyError, TypeError):
            if names := [str(one["id"]) for one in parse_json(body)["data"]]:
                return names
        raise InvalidResponse(f"{shown(url)} lists no models: {body[:200]!r}.", model=self.name)

    async def aclose(self) -> None:
        """Close this event loop's connections; a client of the caller's stays open."""
        if self._wire_made is not None:
            await self._wire_made.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    # What is sent

    def _prepare(self, request: ModelRequest, at: Address, emit: Emit, stream: bool) -> _Call:
        profile = self._profile
        streamed = stream and (request.output is None or profile.stream_output)
        url = self._endpoint.url(request.settings.get("extra_query") or {})
        headers = self._endpoint.headers(request.settings.get("extra_headers") or {})
        if profile.idempotency_header is not None:
            headers[profile.idempotency_header.lower()] = uuid4().hex

        def warn(note: Note) -> None:
            emit(Warned(at=at, code=note.code, text=note.text, data=note.data))

        body = encode_request(
            request, self._model, profile, stream=streamed, strict=self._strict, note=warn
        )
        return _Call(
            request=request,
            at=at,
            emit=emit,
            show=stream,
            streamed=streamed,
            url=url,
            headers=headers,
            body=body,
        )

    # Attempts

    async def _tried(self, call: _Call, deadline: float) -> ModelResponse:
        for index in range(self._attempts):
            if call.shown:
                call.emit(Restarted(at=call.at, reason=call.broken))
                call.shown = False
            try:
                return await self._attempt(call, index, deadline)
            except AgentKitError:
                if call.delay is None:
                    raise
                await anyio.sleep(call.delay)
        raise AssertionError("the last attempt has no delay, and raises")

    async def _attempt(self, call: _Call, index: int, deadline: float) -> ModelResponse:
        at = call.at.attempt(index)
        call.delay = None
        call.emit(HttpStarted(at=at, attempt=index, host=host_of(call.url)))
        headers: Mapping[str, str] = {}
        ended: dict[str, Any] = {}
        try:
            async with self._wire().send("POST", call.url, call.headers, call.body) as reply:
                headers = reply.headers
                ended = {"status": reply.status, "request_id": request_id(headers)}
                return await self._read(reply, call)
        except BaseException as error:
            if isinstance(error, AgentKitError):
                without_secrets(error, call.headers)
                if isinstance(error, ModelUnreachable) and error.model is None:
                    error.args = (f"{self.name} at {host_of(call.url)}: {error.message}",)
                    error.model = self.name
                call.delay = self._delay(error, index, headers, deadline)
            failed = isinstance(error, Exception)
            call.broken = f"{type(error).__name__}: {error}" if failed else "cancelled"
            ended["retry_after"] = getattr(error, "retry_after", None)
            ended |= {"delay": call.delay, "error": call.broken}
            raise
        finally:
            call.emit(HttpFinished(at=at, **ended))

    async def _read(self, reply: Reply, call: _Call) -> ModelResponse:
        async with aclosing(reply.chunks) as chunks:
            if reply.status >= 300:
                raise await self._failed(reply, call.url)
            first = b""
            async for piece in chunks:
                first += piece
                if len(first) > 3 and not first.isspace():
                    break
            # Some servers stream whatever the content type, others never do.
            start = first.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
            if call.streamed and start not in (b"{", b"[", b"<"):
                return await self._fold(first, chunks, call)
            body = first + await _whole(chunks)
        response = decode_response(
            body, model=self.name, seed=call.at, taken=ids_in(call.request.messages)
        )
        if call.show:
            show_whole(response.message, call.at, call.emit)
        return response

    async def _failed(self, reply: Reply, url: str) -> ModelError:
        body = await _whole(reply.chunks)
        now = time.time()
        return error_from_http(
            reply.status, reply.headers, body, model=self.name, now=now, url=shown(url)
        )

    async def _fold(self, first: bytes, chunks: AsyncIterator[bytes], call: _Call) -> ModelResponse:
        decoder, fold = EventDecoder(), StreamFold(at=call.at, model=self.name)

        def take(events: Iterable[bytes]) -> None:
            for data in events:
                for delta in fold.feed(data):
                    call.shown = True
                    call.emit(delta)

        try:
            take(decoder.feed(first))
            while not fold.done and (piece := await anext(chunks, None)) is not None:
                take(decoder.feed(piece))
            if not fold.done:
                take(decoder.finish())
        except ModelUnreachable:
            if not fold.complete:
                raise
        except Exception:
            await _drain(chunks, 0)
            raise
        else:
            await _drain(chunks, DRAIN_SECONDS)
        return fold.finish(taken=ids_in(call.request.messages))

    def _delay(
        self, error: AgentKitError, index: int, headers: Mapping[str, str], deadline: float
    ) -> float | None:
        """Seconds until the next attempt; None when there is none."""
        again, asked = is_transient(error), None
        if isinstance(error, ModelHTTPError):
            asked = error.retry_after
            again = {"true": True, "false": False}.get(headers.get("x-should-retry", ""), again)
        if not again or index + 1 >= self._attempts:
            return None
        if asked is not None:
            delay = asked + uniform(0, min(1.0, asked / 10))
        else:
            backoff = WAIT_FIRST * 2**index
            delay = min(WAIT_MOST, backoff + uniform(0, backoff))
        return delay if anyio.current_time() + delay < deadline else None

    def _wire(self) -> AiohttpWire | HttpWire:
        if self._wire_made is None:
            # Here: an HTTP client takes 90 ms to import, and only requests need it.
            if self._client == "aiohttp":
                from agentkit.models.chat.transport_aiohttp import AiohttpWire

                self._wire_made = AiohttpWire(self._timeouts)
            else:
                from agentkit.models.chat.transport import HttpWire

                own = None if isinstance(self._client, str) else self._client
                self._wire_made = HttpWire(self._timeouts, own)
        return self._wire_made


async def _whole(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in chunks])


async def _drain(chunks: AsyncIterator[bytes], seconds: float) -> None:
    """Read to the end, so that the connection can be used again, or give up on it.

    Giving up is a cancellation, because that comes from the inside: the HTTP
    library does not finish all of its own generators when it is left from the outside.
    """
    with suppress(ModelUnreachable), anyio.move_on_after(seconds):
        async for _ in chunks:
            pass
