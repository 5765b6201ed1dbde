"""The loop that a careful engineer writes by hand: what agentkit is measured against.

An HTTP client, orjson, pydantic for arguments and output, one task group for the calls
of a step, transient failures tried again, a limit of steps. No trace.
`hand_aiohttp` beside it is the same loop over aiohttp.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from inspect import iscoroutinefunction
from typing import Any, NamedTuple, Protocol

import httpx2
import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from tests.benchmarks.scenarios import INSTRUCTIONS, PROMPT
from tests.benchmarks.worker import serve

ATTEMPTS = 4
TRANSIENT = {408, 409, 429, 500, 502, 503, 504}
MAX_STEPS = 200
THREADS = ThreadPoolExecutor(100)


class Look(BaseModel):
    model_config = ConfigDict(extra="forbid")
    place: str
    floor: int


class Place(BaseModel):
    model_config = ConfigDict(extra="forbid")
    place: str


class Text(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str


ARGUMENTS: dict[str, type[BaseModel]] = {
    "look": Look,
    "tick": Place,
    "nap": Place,
    "block": Place,
    "store": Text,
}


class Tool(NamedTuple):
    """A function with the model of its arguments, and as a server is told of it."""

    function: Callable[..., Any]
    arguments: type[BaseModel]
    definition: dict[str, Any]
    blocking: bool

    async def call(self, arguments: str) -> str:
        """Return what the model reads of a call."""
        try:
            values = dict(self.arguments.model_validate_json(arguments))
            if self.blocking:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(THREADS, lambda: self.function(**values))
            return await self.function(**values)
        except ValidationError as error:
            return f"The arguments are not valid: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return a strict schema, without titles."""

    def clean(node: Any) -> Any:
        if isinstance(node, list):
            return [clean(one) for one in node]
        if not isinstance(node, dict):
            return node
        node = {key: clean(one) for key, one in node.items() if key != "title"}
        return node | {"additionalProperties": False} if node.get("type") == "object" else node

    return clean(model.model_json_schema())


def tool_of(function: Callable[..., Any]) -> Tool:
    """Return the tool of a function."""
    name = function.__name__
    definition = {
        "name": name,
        "description": function.__doc__,
        "parameters": schema_of(ARGUMENTS[name]),
        "strict": True,
    }
    return Tool(
        function,
        ARGUMENTS[name],
        {"type": "function", "function": definition},
        not iscoroutinefunction(function),
    )


class Http(Protocol):
    """What the loop needs of an HTTP client."""

    errors: tuple[type[Exception], ...]

    async def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of the answer."""
        ...

    def lines(self, url: str, body: bytes) -> AsyncIterator[bytes | str]:
        """Yield the lines of a streamed answer."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


HEADERS = {"authorization": "Bearer none", "content-type": "application/json"}


class Httpx:
    """httpx2."""

    errors = (httpx2.TransportError,)

    def __init__(self) -> None:
        self.client = httpx2.AsyncClient(
            headers=HEADERS,
            timeout=httpx2.Timeout(600, connect=10),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        )

    async def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        response = await self.client.post(url, content=body)
        return response.status_code, response.content

    async def lines(self, url: str, body: bytes) -> AsyncIterator[str]:
        async with self.client.stream("POST", url, content=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                yield line

    async def close(self) -> None:
        await self.client.aclose()


class Hand:
    """The loop."""

    def __init__(self, url: str, http: Http) -> None:
        self.url = url
        self.http = http
        self.prepared: dict[Any, tuple[dict[str, Any], dict[str, Tool]]] = {}

    def prepare(
        self, tools: Sequence[Callable[..., Any]], output: type[BaseModel] | None, stream: bool
    ) -> tuple[dict[str, Any], dict[str, Tool]]:
        """Return the body but for its messages, and the tools by name; made once."""
        key = tuple(tools), output, stream
        if key in self.prepared:
            return self.prepared[key]
        known = {function.__name__: tool_of(function) for function in tools}
        body: dict[str, Any] = {"model": "any"}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if output is not None:
            schema = {"name": output.__name__, "schema": schema_of(output), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if known:
            body["tools"] = [tool.definition for tool in known.values()]
        self.prepared[key] = body, known
        return body, known

    async def ask(self, url: str, body: bytes) -> dict[str, Any]:
        """Return the model's message."""
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                status, content = await self.http.post(url, body)
            except self.http.errors:
                if last:
                    raise
            else:
                if status == 200:
                    return orjson.loads(content)["choices"][0]["message"]
                if status not in TRANSIENT or last:
                    raise RuntimeError(f"HTTP {status}: {content[:500]!r}")
            await asyncio.sleep(0.5 * 2**attempt)
        raise AssertionError

    async def ask_streaming(
        self, url: str, body: bytes, show: Callable[[str], None]
    ) -> dict[str, Any]:
        """Return the model's message, and show its pieces as they arrive."""
        texts: list[str] = []
        calls: list[dict[str, Any]] = []
        pieces: list[list[str]] = []
        async for line in self.http.lines(url, body):
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                break
            for choice in orjson.loads(data)["choices"]:
                delta = choice["delta"]
                if text := delta.get("content"):
                    texts.append(text)
                    show(text)
                for part in delta.get("tool_calls") or ():
                    if part["index"] == len(calls):
                        calls.append({"id": part["id"], "type": "function", "function": {}})
                        calls[-1]["function"]["name"] = part["function"]["name"]
                        pieces.append([])
                    fragment = part["function"].get("arguments") or ""
                    pieces[part["index"]].append(fragment)
                    show(fragment)
        for call, fragments in zip(calls, pieces, strict=True):
            call["function"]["arguments"] = "".join(fragments)
        message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
        return message | ({"tool_calls": calls} if calls else {})

    async def converse(
        self,
        scenario: str,
        tools: Sequence[Callable[..., Any]],
        output: type[BaseModel] | None,
        show: Callable[[str], None] | None,
    ) -> Any:
        """Call tools until the model answers."""
        url = f"{self.url}/{scenario}/v1/chat/completions"
        body, known = self.prepare(tools, output, show is not None)
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": INSTRUCTIONS},
            {"role": "user", "content": PROMPT},
        ]
        for _ in range(MAX_STEPS):
            request = orjson.dumps(body | {"messages": messages})
            message = await (
                self.ask(url, request) if show is None else self.ask_streaming(url, request, show)
            )
            calls = message.get("tool_calls")
            if not calls:
                content = message["content"]
                return content if output is None else output.model_validate_json(content)
            messages.append(
                {"role": "assistant", "content": message["content"], "tool_calls": calls}
            )
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.answer(call, known)) for call in calls]
            messages += [task.result() for task in tasks]
        raise RuntimeError(f"no answer after {MAX_STEPS} steps")

    async def answer(self, call: dict[str, Any], tools: dict[str, Tool]) -> dict[str, Any]:
        """Return the tool message of a call."""
        function = call["function"]
        tool = tools.get(function["name"])
        text = "There is no such tool." if tool is None else await tool.call(function["arguments"])
        return {"role": "tool", "content": text, "tool_call_id": call["id"]}

    async def close(self) -> None:
        await self.http.close()

    async def run(
        self, scenario: str, tools: Sequence[Callable[..., Any]] = (), output: Any = None
    ) -> Any:
        return await self.converse(scenario, tools, output, None)

    async def stream(
        self, scenario: str, tools: Sequence[Callable[..., Any]] = (), output: Any = None
    ) -> tuple[int, Any]:
        pieces, text = 0, ""

        def show(piece: str) -> None:
            nonlocal pieces, text
            if output is None:
                pieces += 1
                return
            text += piece
            try:
                output.model_validate(from_json(text, allow_partial=True))
            except (ValidationError, ValueError):
                return
            pieces += 1

        result = await self.converse(scenario, tools, output, show)
        return pieces, result


if __name__ == "__main__":
    serve(lambda url: Hand(url, Httpx()))
