"""`ChatModel`: a model behind a chat-completions server.

Each attempt goes through `endpoint` (URL, key), `encode`, a transport, and
`decode` or `stream`. This file puts them together and decides on retries; the
loop sees one call with one answer.

    ModelRequest ──encode──▶ body ──transport──▶ server ──▶ body ────decode──▶ ModelResponse
                                                   └──────▶ chunks ──stream──▶ the same
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from random import uniform
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio

from agentkit._attempts import attempt_outside
from agentkit._options import options
from agentkit.core.effects import Address
from agentkit.errors import (
    AgentKitError,
    ConfigurationError,
    InvalidResponse,
    ModelError,
    ModelHTTPError,
    ModelUnreachable,
    safe_repr,
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
from agentkit.models.base import (
    DIRECT,
    check_argument,
    emit_deltas,
    hash_of,
    pass_guards,
    token_of,
)
from agentkit.models.call_ids import ids_in
from agentkit.models.chat.decode import decode_response
from agentkit.models.chat.encode import encode_request
from agentkit.models.chat.endpoint import Endpoint, choose_profile, host_of, public_url, redact_key
from agentkit.models.chat.errors import error_from_http, is_transient, request_id
from agentkit.models.chat.parameters import Note
from agentkit.models.chat.stream import EventDecoder, StreamFold
from agentkit.models.constrained.rewrite import constrain, release
from agentkit.models.lenient import parse_json
from agentkit.models.prices import Price
from agentkit.models.profiles import Profile, profile_source
from agentkit.settings import Timeouts

if TYPE_CHECKING:
    from agentkit.models.chat.transport import HttpClient, Reply, Transport


WAIT_FIRST = 0.5
WAIT_MOST = 30.0
"""Seconds between attempts: doubled each time, plus up to as much jitter, at most WAIT_MOST."""
DRAIN_SECONDS = 0.25
"""How long to wait for the end of a stream after its [DONE]."""


@dataclass(kw_only=True, slots=True)
class _Call:
    """One request through all its attempts.

    Attributes:
        show: Whether the caller wants deltas.
        streamed: Whether the server sends a stream.
        joined: Whether several choices are one answer: more than one was not requested.
        delay: Seconds until the next attempt; None if there is none.
        shown: Whether deltas of the current attempt were emitted.
        failure: Why the last attempt failed.
    """

    request: ModelRequest
    at: Address
    emit: Emit
    show: bool
    streamed: bool
    joined: bool
    url: str
    headers: Mapping[str, str] = field(repr=False)  # The key is in them.
    body: bytes = b""
    delay: float | None = None
    shown: bool = False
    failure: str = ""

    def warn(self, note: Note) -> None:
        self.emit(Warned(at=self.at, code=note.code, text=note.text, data=note.data))


class ChatModel:
    """A model behind a chat-completions server.

        async with ChatModel("gpt-4o") as model:
            response = await model.request(ModelRequest(messages=(UserMessage(content="Hi"),)))

    Environment variables are read when a request is made, so that a program
    without a key can still load, replay and be tested.

    Args:
        model: The model by the server's name.
        base_url: The server's URL, without `/chat/completions`. Default: the profile's.
        api_key: The API key. Default: from the profile's environment variable.
        organization: Sent as OpenAI-Organization.
        project: Sent as OpenAI-Project.
        headers: Further headers, such as OpenRouter's HTTP-Referer and X-Title.
        http_client: Your own `httpx2.AsyncClient` or `httpx.AsyncClient`, for any number of
            event loops; it is never closed here, and its own timeouts apply. Or "aiohttp"
            (an extra), under asyncio.
        profile: What the server supports: a name in `PROFILES`, or a `Profile`, which is
            used as it is. Default: chosen by `base_url`; without one, OpenAI.
        timeout: Seconds for a whole call with all its attempts, or `Timeouts`.
        retries: Further attempts after a failure that may pass: no connection, 408, 409,
            429, 5xx, a broken answer. The server's Retry-After is respected.
        strict_settings: Refuse parameters that the server does not support, instead of
            dropping them with a warning.
        price: What its tokens cost, where the server does not report it. Default: by the price
            list of the extra `prices`.

    Raises:
        ConfigurationError: An argument is not valid.
    """

    @options
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
        price: Price | None = None,
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
            # The caller's own client may add the key itself.
            needs_key=http_client in (None, "aiohttp"),
        )
        self._client = http_client
        if timeout is None:
            timeout = Timeouts()
        self._timeouts = timeout if isinstance(timeout, Timeouts) else Timeouts(total=timeout)
        check_argument("retries", retries, retries >= 0, ">= 0")
        self._attempts = retries + 1
        self._strict = strict_settings
        if price is not None and not isinstance(price, Price):  # pyright: ignore[reportUnnecessaryIsInstance]  # not everybody checks types
            raise ConfigurationError(
                f"price={safe_repr(price)}: expected Price(input=…, output=…), in USD per million "
                "tokens."
            )
        self.price = price
        self._open_transport: Transport | None = None

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

    def identity(self) -> str:
        """Return a hash of what an answer depends on besides the request.

        These are the URL, the key, headers and the profile, as they are now. What a
        caller's own client adds is not known, so each client is one of its own.
        """
        own = "" if self._client in (None, "aiohttp") else token_of(self._client)
        return hash_of(*self._endpoint.identity(), profile_source(self._profile), own)

    def check(self) -> None:
        """Raise now, without I/O, if every request would fail.

        Raises:
            MissingKey: The server needs a key and there is none.
            ConfigurationError: There is no base URL, a header cannot be sent, or an extra
                is not installed.
        """
        self._endpoint.url({})
        self._endpoint.headers({})
        if self._client == "aiohttp":
            self._transport()

    async def request(
        self,
        request: ModelRequest,
        *,
        at: Address = DIRECT,
        emit: Emit = ignore,
        stream: bool = False,
    ) -> ModelResponse:
        """Answer one request; see `Model`. Failures that may pass are retried.

        Raises:
            ConfigurationError: A key is missing or a parameter is refused; nothing was sent.
            ModelError: No attempt gave a usable answer.
        """
        if self._profile.tool_calling != "constrained":
            return await self._complete(request, at, emit, stream)
        # Text and calls alike arrive as one JSON text, so they can only be shown once it is read.
        plain = stream and (not request.tools or request.tool_choice == "none")
        answer = await self._complete(constrain(request), at, emit, plain)
        response = release(request, answer, at=at)
        if stream and not plain:
            emit_deltas(response.message, at, emit)
        return response

    async def _complete(
        self, request: ModelRequest, at: Address, emit: Emit, stream: bool
    ) -> ModelResponse:
        call = self._prepare(request, at, emit, stream)
        total = self._timeouts.total
        with anyio.move_on_after(total) as scope:
            response = await self._with_retries(call, scope.deadline)
            if self.price is None or response.usage.cost is not None:
                return response
            cost = self.price.of(response.usage)
            return replace(response, usage=replace(response.usage, cost=cost))
        raise self._timed_out(call.url)

    async def models(self) -> list[str]:
        """Return the names of the models that the server lists.

        Raises:
            ModelError: The server does not answer, or lists no models.
        """
        url = self._endpoint.url({}, "/models")
        pass_guards(self.name, url)
        headers = self._endpoint.headers({})
        body: bytes | None = None
        with anyio.move_on_after(self._timeouts.total):
            try:
                async with aclosing(await self._transport().send("GET", url, headers)) as reply:
                    if reply.status >= 300:
                        raise await self._error(reply, url)
                    body = await reply.read()
            except AgentKitError as error:
                redact_key(error, headers)
                self._locate(error, url)
                raise
        if body is None:
            raise self._timed_out(url)
        with suppress(ValueError, KeyError, TypeError):
            if names := [str(one["id"]) for one in parse_json(body)["data"]]:
                return names
        raise InvalidResponse(
            f"{public_url(url)} lists no models: {body[:200]!r}.", model=self.name
        )

    async def aclose(self) -> None:
        """Close this event loop's connections unless another model uses them.

        A caller's own client stays open.
        """
        if self._open_transport is not None:
            await self._open_transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    # The request

    def _prepare(self, request: ModelRequest, at: Address, emit: Emit, stream: bool) -> _Call:
        profile = self._profile
        settings = request.settings
        body: Mapping[str, Any] = settings.get("extra_body") or {}
        call = _Call(
            request=request,
            at=at,
            emit=emit,
            show=stream,
            streamed=stream and (request.output is None or profile.stream_output),
            joined=body.get("n", settings.get("n")) in (None, 1),
            url=self._endpoint.url(settings.get("extra_query") or {}),
            headers=self._endpoint.headers(settings.get("extra_headers") or {}),
        )
        pass_guards(self.name, call.url)
        call.body = encode_request(
            request,
            self._model,
            profile,
            stream=call.streamed,
            strict=self._strict,
            note=call.warn,
        )
        return call

    # Attempts

    async def _with_retries(self, call: _Call, deadline: float) -> ModelResponse:
        for index in range(self._allowed()):
            if call.shown:
                call.emit(Restarted(at=call.at, reason=call.failure))
                call.shown = False
            try:
                return await self._attempt(call, index, deadline)
            except AgentKitError:
                if call.delay is None:
                    raise
                await anyio.sleep(call.delay)
        raise AssertionError("the last attempt returns or raises")

    def _allowed(self) -> int:
        """Return how many attempts a call may take here: one, where an engine makes others."""
        return self._attempts if attempt_outside.get() is None else 1

    async def _attempt(self, call: _Call, index: int, deadline: float) -> ModelResponse:
        at = call.at.attempt(index)
        call.delay = None
        call.emit(HttpStarted(at=at, attempt=index, host=host_of(call.url)))
        headers: Mapping[str, str] = {}
        ended: dict[str, Any] = {}
        try:
            reply = await self._transport().send("POST", call.url, call.headers, call.body)
            try:
                headers = reply.headers
                ended = {"status": reply.status, "request_id": request_id(headers)}
                return await self._read(reply, call)
            finally:
                await reply.aclose()
        except BaseException as error:
            if isinstance(error, AgentKitError):
                redact_key(error, call.headers)
                self._locate(error, call.url)
                call.delay = self._delay(error, index, headers, deadline)
            failed = isinstance(error, Exception)
            call.failure = f"{type(error).__name__}: {error}" if failed else "cancelled"
            ended["retry_after"] = getattr(error, "retry_after", None)
            ended |= {"delay": call.delay, "error": call.failure}
            raise
        finally:
            call.emit(HttpFinished(at=at, **ended))

    async def _read(self, reply: Reply, call: _Call) -> ModelResponse:
        if reply.status >= 300:
            raise await self._error(reply, call.url)
        if not call.streamed:
            return self._decode(await reply.read(), call)
        async with aclosing(reply.chunks()) as chunks:
            first = b""
            async for chunk in chunks:
                first += chunk
                if len(first) > 3 and not first.isspace():
                    break
            # The content type says little: some servers stream without it, others never do.
            start = first.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
            if start not in (b"{", b"[", b"<"):
                return await self._fold(first, chunks, call)
            return self._decode(first + b"".join([chunk async for chunk in chunks]), call)

    def _decode(self, body: bytes, call: _Call) -> ModelResponse:
        response = decode_response(
            body,
            model=self.name,
            seed=call.at,
            taken=ids_in(call.request.messages),
            joined=call.joined,
            note=call.warn,
        )
        if call.show:
            emit_deltas(response.message, call.at, call.emit)
        return response

    def _locate(self, error: AgentKitError, url: str) -> None:
        """Name the model and the host in a transport's error, which knows neither."""
        if isinstance(error, ModelUnreachable) and error.model is None:
            name = self.name.removesuffix(":")  # A lister of models has none of its own.
            error.args = (f"{name} at {host_of(url)}: {error.message}",)
            error.model = self.name

    def _timed_out(self, url: str) -> ModelUnreachable:
        return ModelUnreachable(
            f"{self.name.removesuffix(':')} at {host_of(url)} gave no complete answer within "
            f"{self._timeouts.total:g} seconds. Pass a larger timeout to ChatModel if it needs "
            "longer.",
            model=self.name,
        )

    async def _error(self, reply: Reply, url: str) -> ModelError:
        body = await reply.read()
        now = time.time()
        return error_from_http(
            reply.status, reply.headers, body, model=self.name, now=now, url=public_url(url)
        )

    async def _fold(self, first: bytes, chunks: AsyncIterator[bytes], call: _Call) -> ModelResponse:
        decoder, fold = EventDecoder(), StreamFold(at=call.at, model=self.name, joined=call.joined)

        def add(events: Iterable[bytes]) -> None:
            for data in events:
                for delta in fold.feed(data):
                    call.shown = True
                    call.emit(delta)

        try:
            add(decoder.feed(first))
            while not fold.done and (chunk := await anext(chunks, None)) is not None:
                add(decoder.feed(chunk))
            if not fold.done:
                add(decoder.finish())
        except ModelUnreachable:
            if not fold.complete:
                raise
        except Exception:
            await _drain(chunks, 0)
            raise
        else:
            await _drain(chunks, DRAIN_SECONDS)
        return fold.finish(taken=ids_in(call.request.messages), note=call.warn)

    def _delay(
        self, error: AgentKitError, index: int, headers: Mapping[str, str], deadline: float
    ) -> float | None:
        """Return the seconds until the next attempt; None if there is none."""
        retry, retry_after = is_transient(error), None
        if isinstance(error, ModelHTTPError):
            retry_after = error.retry_after
            retry = {"true": True, "false": False}.get(headers.get("x-should-retry", ""), retry)
        if not retry or index + 1 >= self._allowed():
            return None
        if retry_after is not None:
            delay = retry_after + uniform(0, min(1.0, retry_after / 10))
        else:
            backoff = WAIT_FIRST * 2**index
            delay = min(WAIT_MOST, backoff + uniform(0, backoff))
        return delay if anyio.current_time() + delay < deadline else None

    def _transport(self) -> Transport:
        if self._open_transport is None:
            # Here: an HTTP client takes 90 ms to import, and only requests need it.
            if self._client == "aiohttp":
                from agentkit.models.chat.transport_aiohttp import AiohttpTransport

                self._open_transport = AiohttpTransport(self._timeouts)
            elif self._client is None or isinstance(self._client, str):
                from agentkit.models.chat.transport_httpcore import HttpcoreTransport

                self._open_transport = HttpcoreTransport(self._timeouts)
            else:
                from agentkit.models.chat.transport_httpx import HttpxTransport

                self._open_transport = HttpxTransport(self._timeouts, self._client)
        return self._open_transport


async def _drain(chunks: AsyncIterator[bytes], seconds: float) -> None:
    """Read to the end, so that the connection can be used again, or give up on it.

    Giving up is a cancellation of the read, because the HTTP library does not finish
    all of its own generators when its caller merely stops reading.
    """
    with suppress(ModelUnreachable), anyio.move_on_after(seconds):
        async for _ in chunks:
            pass
