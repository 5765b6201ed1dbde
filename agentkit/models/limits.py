"""Wrappers that bound a model's load: requests at the same time, requests per minute.

One wrapper is shared by all runs that are limited together: make it once and pass
it to the agents. Every wait is a warning in the trace.
"""

from __future__ import annotations

import math
import time
from typing import Any
from weakref import WeakKeyDictionary

import anyio
from anyio.lowlevel import current_token

from agentkit.core.effects import Address
from agentkit.errors import InvalidSetting
from agentkit.events import Emit, Warned, ignore
from agentkit.messages import ModelRequest, ModelResponse
from agentkit.models.base import DIRECT, Model, check_argument, identity_of
from agentkit.models.profiles import Profile


class _Wrapper:
    """A model that delegates everything except requests to another one."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def name(self) -> str:
        """The wrapped model's."""
        return self._model.name

    @property
    def wrapped(self) -> tuple[Model, ...]:
        """The wrapped model."""
        return (self._model,)

    @property
    def profile(self) -> Profile:
        """The wrapped model's."""
        return self._model.profile

    def identity(self) -> str:
        """Return the wrapped model's."""
        return identity_of(self._model)

    def check(self) -> None:
        """Check the wrapped model."""
        self._model.check()

    async def aclose(self) -> None:
        """Close the wrapped model."""
        await self._model.aclose()


class ConcurrencyLimit(_Wrapper):
    """Sends a model at most `limit` requests at the same time; the others wait in line.

    Args:
        model: The model.
        limit: Requests at the same time, in each event loop.

    Raises:
        InvalidSetting: The limit is below 1.
    """

    def __init__(self, model: Model, limit: int) -> None:
        super().__init__(model)
        check_argument("limit", limit, 1 <= limit < math.inf, ">= 1")
        self._limit = limit
        self._slots: WeakKeyDictionary[Any, anyio.CapacityLimiter] = WeakKeyDictionary()

    async def request(
        self,
        request: ModelRequest,
        *,
        at: Address = DIRECT,
        emit: Emit = ignore,
        stream: bool = False,
    ) -> ModelResponse:
        """Answer one request once a slot is free; see `Model`."""
        loop = current_token().native_token
        slots = self._slots.setdefault(loop, anyio.CapacityLimiter(self._limit))
        # A borrower of its own: one task may send several requests.
        borrower = object()
        busy, started = slots.available_tokens == 0, anyio.current_time()
        await slots.acquire_on_behalf_of(borrower)
        if busy:
            waited = anyio.current_time() - started
            _warn(emit, at, "concurrency_limit", f"{self.name} waited for a free slot.", waited)
        try:
            return await self._model.request(request, at=at, emit=emit, stream=stream)
        finally:
            slots.release_on_behalf_of(borrower)


class RateLimit(_Wrapper):
    """Sends a model at most so many requests, or uses so many tokens, in a span of time.

    The tokens of a request are not known before it is sent, so they are counted
    afterwards: a long answer makes the next requests wait.

    Args:
        model: The model.
        requests: Requests per span.
        tokens: Input and output tokens per span.
        seconds: The span.

    Raises:
        InvalidSetting: A number is too small, or neither limit is set.
    """

    def __init__(
        self,
        model: Model,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        seconds: float = 60.0,
    ) -> None:
        super().__init__(model)
        for name, value in (("requests", requests), ("tokens", tokens)):
            if value is not None:
                check_argument(name, value, 1 <= value < math.inf, ">= 1")
        if requests is None and tokens is None:
            text = "RateLimit has nothing to limit. Pass requests, tokens or both."
            raise InvalidSetting(text, field="requests", value="None", allowed=">= 1")
        check_argument("seconds", seconds, seconds > 0, "> 0")
        self._requests = None if requests is None else Bucket(requests, seconds)
        self._tokens = None if tokens is None else Bucket(tokens, seconds)

    async def request(
        self,
        request: ModelRequest,
        *,
        at: Address = DIRECT,
        emit: Emit = ignore,
        stream: bool = False,
    ) -> ModelResponse:
        """Answer one request once the rate allows; see `Model`."""
        delay = 0.0
        if self._requests is not None:
            delay = self._requests.book(1)
        if self._tokens is not None:
            delay = max(delay, self._tokens.book(0))
        if delay:
            _warn(emit, at, "rate_limit", f"{self.name} waits because of its rate limit.", delay)
            await anyio.sleep(delay)
        response = await self._model.request(request, at=at, emit=emit, stream=stream)
        if self._tokens is not None:
            self._tokens.book(response.usage.total_tokens)
        return response


class Bucket:
    """A token bucket: fills evenly up to `size` in `seconds`; booking more makes a debt.

    Works across event loops: it only counts, and the caller does the waiting.
    """

    def __init__(self, size: float, seconds: float) -> None:
        self._size = size
        self._speed = size / seconds
        self._level = size
        self._filled = time.monotonic()

    def book(self, amount: float) -> float:
        """Take `amount` and return the seconds until it is covered."""
        now = time.monotonic()
        self._level = min(self._size, self._level + (now - self._filled) * self._speed) - amount
        self._filled = now
        return max(0.0, -self._level / self._speed)


def _warn(emit: Emit, at: Address, code: str, text: str, seconds: float) -> None:
    emit(Warned(at=at, code=code, text=text, data={"seconds": round(seconds, 3)}))
