"""What a server can do, found out by asking it: the work behind `agentkit doctor`.

A dozen short questions, each with a right answer that a server gives only if
the feature works. What comes out is a table and a `Profile` made from it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agentkit.errors import AgentKitError, AuthenticationFailed, ModelUnreachable
from agentkit.events import Event, TextDelta
from agentkit.messages import (
    ForcedTool,
    ModelRequest,
    ModelResponse,
    OutputFormat,
    ToolDefinition,
    UserMessage,
)
from agentkit.models.chat_model import ChatModel
from agentkit.models.profiles import COMPATIBLE, OutputMode, Profile, profile_for_url

__all__ = ["Check", "Diagnosis", "probe"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing a server was asked for.

    Attributes:
        name: What it is, for example `named tool_choice`.
        ok: Whether it works.
        detail: What was seen, or the server's words.
    """

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What a server can do.

    Attributes:
        base_url: The server.
        model: The model that was asked.
        checks: One for each feature, in order.
        profile: What to pass as `ChatModel(profile=…)`.
    """

    base_url: str
    model: str
    checks: tuple[Check, ...]
    profile: Profile


async def probe(
    base_url: str,
    *,
    model: str | None = None,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    told: Callable[[Check], None] = lambda check: None,
) -> Diagnosis:
    """Ask a server what it can do. Takes about a dozen requests.

    Args:
        base_url: The server, up to and without `/chat/completions`.
        model: Default: the first that the server lists.
        api_key: Default: from the environment, for a server that is known.
        headers: Further headers.
        told: Called with each result as it comes.

    Raises:
        ModelUnreachable: Nobody answers there.
        AuthenticationFailed: The key is wrong.
        ConfigurationError: The server lists no models and none was named.
    """
    known = profile_for_url(base_url)
    if model is None:
        async with ChatModel("", base_url=base_url, api_key=api_key, headers=headers) as lister:
            model = (await lister.models())[0]
    # Asked as if it could do everything: nothing is dropped or rewritten on the way.
    bare = replace(
        known.for_model(model),
        tool_calling="native",
        forced_tool="named",
        required="required",
        drops=frozenset(),
        drops_reasoning=frozenset(),
        renames={},
        defaults={},
        stream_usage=True,
        stream_output=True,
        variants=(),
    )
    async with ChatModel(
        model, base_url=base_url, api_key=api_key, headers=headers, profile=bare, retries=1
    ) as chat:
        patient = _Patient(chat, told)
        await patient.examine()
    name = known.name if known is not COMPATIBLE else "custom"
    return Diagnosis(
        base_url=base_url,
        model=model,
        checks=tuple(patient.checks.values()),
        profile=_profile(replace(known, name=name), patient.checks),
    )


# Questions

FEW_TOKENS = 8
ANSWER_TOKENS = 512
"""Small models talk without end, and large ones think before they answer."""

_WEATHER = ToolDefinition(
    name="get_weather",
    description="Current weather in a city.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
_TIME = replace(_WEATHER, name="get_time", description="Current time in a city.")
_HELLO = "Say hello."
_SCHEMA = {
    "type": "object",
    "properties": {"code": {"type": "string", "enum": ["zx-81"]}},
    "required": ["code"],
    "additionalProperties": False,
}
_FORM = OutputFormat(kind="json_schema", name="code", schema=_SCHEMA)
_LONG = "Count from 1 to 100, in words, and write nothing else."


class _Patient:
    """A server under examination."""

    def __init__(self, chat: ChatModel, told: Callable[[Check], None]) -> None:
        self._chat = chat
        self._told = told
        self._limit: dict[str, Any] = {}
        self.checks: dict[str, Check] = {}

    async def examine(self) -> None:
        """Ask everything. Without an answer to "Say hello" there is no further question."""
        for name in ("max_completion_tokens", "max_tokens"):
            await self._check(name, partial(self._cut, name))
        known = [name for name, check in self.checks.items() if check.ok]
        self._limit = dict.fromkeys(known[:1], ANSWER_TOKENS)
        answer = await self._ask(_HELLO)
        self._note("chat", bool(answer.message.text), repr(answer.message.text[:60]))
        await self._tools()
        await self._check("json_schema", self._schema)
        await self._check("json_object", self._object)
        await self._check("json_schema with tools", self._both)
        await self._check("streaming", self._stream)
        await self._check("usage in streams", self._stream_usage)
        await self._check("logprobs", self._logprobs)

    async def _tools(self) -> None:
        both = (_WEATHER, _TIME)
        paris = "What is the weather in Paris? Use the tool."
        cities = "What is the weather in Paris, and what in Rome? Call the tool once for each."

        async def calls(prompt: str, least: int = 1, **options: Any) -> tuple[bool, str]:
            answer = await self._ask(prompt, tools=both, **options)
            names = [call.name for call in answer.message.tool_calls]
            wanted = getattr(options.get("tool_choice"), "name", None)
            right = len(names) >= least and (wanted is None or names == [wanted])
            return right, f"called {', '.join(names) or 'nothing'} ({answer.finish})"

        forced = ForcedTool(name="get_time")
        await self._check("tools", lambda: calls(paris))
        await self._check("required tool_choice", lambda: calls(_HELLO, tool_choice="required"))
        await self._check("named tool_choice", lambda: calls(_HELLO, tool_choice=forced))
        await self._check("parallel calls", lambda: calls(cities, least=2))

    async def _cut(self, name: str) -> tuple[bool, str]:
        answer = await self._ask(_LONG, settings={name: FEW_TOKENS})
        return answer.finish == "length", f"finish {answer.finish}"

    async def _schema(self) -> tuple[bool, str]:
        answer = await self._ask(_HELLO, output=_FORM)
        return _parsed(answer) == {"code": "zx-81"}, repr(answer.message.text[:60])

    async def _object(self) -> tuple[bool, str]:
        answer = await self._ask(
            "Describe a cat as a JSON object.", output=OutputFormat(kind="json_object")
        )
        return isinstance(_parsed(answer), dict), repr(answer.message.text[:60])

    async def _both(self) -> tuple[bool, str]:
        answer = await self._ask(
            "Look the weather in Paris up with the tool before you answer.",
            output=_FORM,
            tools=(_WEATHER,),
        )
        called = bool(answer.message.tool_calls)
        return called, "called the tool" if called else "the schema kept it from calling"

    async def _stream(self) -> tuple[bool, str]:
        events: list[Event] = []
        await self._ask(_LONG, stream=True, emit=events.append)
        pieces = sum(isinstance(event, TextDelta) for event in events)
        return pieces > 1, f"{pieces} pieces"

    async def _stream_usage(self) -> tuple[bool, str]:
        usage = (await self._ask(_HELLO, stream=True)).usage
        return usage.input_tokens > 0, f"{usage.input_tokens} in, {usage.output_tokens} out"

    async def _logprobs(self) -> tuple[bool, str]:
        answer = await self._ask(_HELLO, settings={"logprobs": True})
        return bool(answer.logprobs), "there" if answer.logprobs else "not there"

    async def _ask(
        self, prompt: str, *, stream: bool = False, emit: Any = None, **options: Any
    ) -> ModelResponse:
        settings = {**self._limit, **options.pop("settings", {})}
        request = ModelRequest(
            messages=(UserMessage(content=prompt),), settings=settings, **options
        )
        more = {} if emit is None else {"emit": emit}
        return await self._chat.request(request, stream=stream, **more)

    async def _check(self, name: str, ask: Callable[[], Awaitable[tuple[bool, str]]]) -> None:
        try:
            ok, detail = await ask()
        except (ModelUnreachable, AuthenticationFailed):
            raise
        except AgentKitError as error:
            ok, detail = False, str(error)
        self._note(name, ok, detail)

    def _note(self, name: str, ok: bool, detail: str) -> None:
        self.checks[name] = Check(name=name, ok=ok, detail=detail)
        self._told(self.checks[name])


def _parsed(answer: ModelResponse) -> Any:
    try:
        return json.loads(answer.message.text)
    except ValueError:
        return None


# From answers to a profile


def _profile(known: Profile, checks: Mapping[str, Check]) -> Profile:
    def can(name: str) -> bool:
        return checks[name].ok

    modes: list[tuple[OutputMode, bool]] = [
        ("native", can("json_schema")),
        ("tool", can("tools")),
        ("json", can("json_object")),
        ("prompt", True),
    ]
    renames = {key: new for key, new in known.renames.items() if new != "max_tokens"}
    if can("max_tokens") and not can("max_completion_tokens"):
        renames["max_completion_tokens"] = "max_tokens"
    drops = known.drops - {"logprobs", "top_logprobs"}
    if not can("logprobs"):
        drops |= {"logprobs", "top_logprobs"}
    return replace(
        known,
        tool_calling="constrained" if can("json_schema") and not can("tools") else "native",
        output_modes=tuple(mode for mode, works in modes if works),
        native_with_tools=can("json_schema with tools"),
        forced_tool="named"
        if can("named tool_choice")
        else "alone"
        if can("required tool_choice")
        else "auto",
        renames=renames,
        drops=drops,
        stream_usage=can("usage in streams"),
    )
