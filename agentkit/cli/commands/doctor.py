"""`agentkit doctor`: finds out what a server can do by asking it.

A dozen short questions, each with a right answer that a server gives only if
the feature works, and each bounded in time and tokens. The answers become a
table and a `Profile`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
from rich.text import Text

from agentkit.cli.console import ERR, print_line, print_rows, shown
from agentkit.errors import (
    AgentKitError,
    AuthenticationFailed,
    ConfigurationError,
    InvalidResponse,
    MissingKey,
    ModelHTTPError,
    ModelUnreachable,
    QuotaExceeded,
    RateLimited,
)
from agentkit.events import Emit, Event, ReasoningDelta, TextDelta, ignore
from agentkit.messages import (
    ForcedTool,
    ModelRequest,
    ModelResponse,
    OutputFormat,
    ToolDefinition,
    UserMessage,
)
from agentkit.models.chat.endpoint import choose_profile
from agentkit.models.chat.model import ChatModel
from agentkit.models.lenient import json_or
from agentkit.models.profiles import COMPATIBLE, OutputMode, Profile, profile_source

_CUT = 400
"""Characters of an answer that are printed."""


def doctor(
    *,
    base_url: str,
    model: str | None = None,
    api_key_env: str | None = None,
    profile: str | None = None,
) -> None:
    """Ask a server what it can do, and print a profile that says so.

    Sends about a dozen short requests.

    Args:
        base_url: The address of a chat-completions server, such as http://localhost:8000/v1.
        model: The server's name for the model; not needed where there is only one.
        api_key_env: The environment variable that holds the key.
        profile: The known provider that the server is most like; by default as its address says.
    """
    key = None if api_key_env is None else os.environ.get(api_key_env, "")
    if key is not None and not key.strip():
        raise MissingKey(
            f"--api-key-env names {api_key_env!r}, but this environment variable is not set, or "
            "empty.",
            variable=api_key_env,
        )
    with ERR.status(Text(f"Asking {shown(base_url)} …")) as status:

        def report(check: Check) -> None:
            status.update(Text(f"Asking {shown(base_url)}: after {check.name} …"))

        ask = partial(probe, base_url, model=model, api_key=key, profile=profile, report=report)
        diagnosis = anyio.run(ask)
    print_line(f"{diagnosis.model} at {diagnosis.base_url}", "bold")
    words = {True: ("yes", "green"), False: ("no", "red"), None: ("unknown", "yellow")}
    print_rows(
        {"feature": {}, "works": {}, "seen": {}},
        (
            (Text(check.name), Text(*words[check.ok]), Text(shown(check.detail, _CUT)))
            for check in diagnosis.checks
        ),
    )
    suited = diagnosis.profile
    if api_key_env is not None:
        suited = replace(suited, key_variable=api_key_env)
    print_line("")
    print_line(_program(diagnosis.base_url, diagnosis.model, suited))


def _program(base_url: str, model: str, profile: Profile) -> str:
    """Return a program with the model as it was found, to paste."""
    source = profile_source(profile)
    lines = ["from agentkit import ChatModel"]
    lines.append(
        f"from agentkit.models import {'PROFILES' if 'PROFILES[' in source else 'Profile'}"
    )
    if source.startswith("replace("):
        lines[:0] = ["from dataclasses import replace", ""]
    call = f"model = ChatModel({model!r}, base_url={base_url!r}, profile=profile)"
    return "\n".join([*lines, "", f"profile = {source}", call])


# Probing


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One feature of a server.

    Attributes:
        name: The feature, for example `named tool_choice`.
        ok: Whether it works; None where there was no answer to tell by (no connection, too
            slow, too many requests).
        detail: What was seen, or the server's words.
    """

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What a server can do.

    Attributes:
        base_url: The server.
        model: The model that answered.
        checks: One for each feature, in order.
        profile: What to pass as `ChatModel(profile=…)`: the known profile of the server,
            changed to what was seen.
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
    profile: Profile | str | None = None,
    seconds: float = 120.0,
    report: Callable[[Check], None] = lambda check: None,
) -> Diagnosis:
    """Ask a server what it can do, in about a dozen requests.

    Args:
        base_url: The server, up to and without `/chat/completions`.
        model: Default: the only one that the server lists.
        api_key: Default: from the environment, for a server that is known.
        headers: Further headers.
        profile: The known profile that is nearest, or its name. Default: known by `base_url`.
        seconds: For each question, with one further attempt.
        report: Called with each result as it comes.

    Raises:
        ModelUnreachable: There is no answer from there.
        AuthenticationFailed: The key is wrong.
        ModelError: Not even "Say hello" is answered.
        ConfigurationError: `model` is None, and the server does not list just one.
    """
    server: dict[str, Any] = {"base_url": base_url, "api_key": api_key, "headers": headers}
    if model is None:
        async with ChatModel("", profile=profile, **server) as lister:
            model = await _only_model(lister, base_url)
    known = choose_profile(profile, base_url, model)
    # Asked as if it could do everything: nothing is dropped or rewritten on the way.
    bare = replace(
        known,
        tool_calling="native",
        forced_tool="named",
        drops=frozenset(),
        drops_reasoning=frozenset(),
        renames={},
        defaults={},
        stream_usage=True,
        stream_output=True,
        variants=(),
    )
    async with ChatModel(model, profile=bare, timeout=seconds, retries=1, **server) as chat:
        examination = _Examination(chat, report)
        await examination.examine()
    name = known.name if known.name != COMPATIBLE.name else "custom"
    return Diagnosis(
        base_url=base_url,
        model=model,
        checks=tuple(examination.checks.values()),
        profile=_profile(replace(known, name=name), examination.checks),
    )


async def _only_model(lister: ChatModel, base_url: str) -> str:
    try:
        names = await lister.models()
    except AuthenticationFailed:
        raise
    except ModelUnreachable as error:
        raise ModelUnreachable(f"There is no answer from {base_url}: {error.message}") from error
    except (ModelHTTPError, InvalidResponse) as error:
        raise ConfigurationError(
            f"{base_url} does not list its models; give the model's name. ({error})"
        ) from error
    if len(names) > 1:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise ConfigurationError(
            f"{base_url} has {len(names)} models; give the name of one: "
            f"{', '.join(names[:_LISTED])}{more}."
        )
    return names[0]


# Questions

_LISTED = 20
"""How many models an error names."""
_FEW_TOKENS = 16
_ANSWER_TOKENS = 512
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


class _Examination:
    """The questions to one server, and its answers."""

    def __init__(self, chat: ChatModel, report: Callable[[Check], None]) -> None:
        self._chat = chat
        self._report = report
        self._limit: dict[str, Any] = {}
        self.checks: dict[str, Check] = {}

    async def examine(self) -> None:
        """Ask everything. Without an answer to "Say hello" there is no further question."""
        for name in ("max_completion_tokens", "max_tokens"):
            await self._check(name, partial(self._cut, name))
        known = [name for name, check in self.checks.items() if check.ok]
        self._limit = dict.fromkeys(known[:1], _ANSWER_TOKENS)
        answer = await self._ask(_HELLO)
        self._note("chat", bool(answer.message.text), _excerpt(answer))
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
            forced = getattr(options.get("tool_choice"), "name", None)
            right = len(names) >= least and (forced is None or names == [forced])
            return right, f"called {', '.join(names)}" if names else _excerpt(answer)

        named = ForcedTool(name="get_time")
        await self._check("tools", lambda: calls(paris))
        await self._check("required tool_choice", lambda: calls(_HELLO, tool_choice="required"))
        await self._check("named tool_choice", lambda: calls(_HELLO, tool_choice=named))
        await self._check("parallel calls", lambda: calls(cities, least=2))

    async def _cut(self, name: str) -> tuple[bool, str]:
        answer = await self._ask(_LONG, settings={name: _FEW_TOKENS})
        cut = answer.finish == "length"
        return cut, "kept to" if cut else f"ignored: finished with {answer.finish!r}"

    async def _schema(self) -> tuple[bool, str]:
        answer = await self._ask(_HELLO, output=_FORM)
        return json_or(None, answer.message.text) == {"code": "zx-81"}, _excerpt(answer)

    async def _object(self) -> tuple[bool, str]:
        answer = await self._ask(
            "Describe a cat as a JSON object.", output=OutputFormat(kind="json_object")
        )
        return isinstance(json_or(None, answer.message.text), dict), _excerpt(answer)

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
        pieces = sum(isinstance(event, TextDelta | ReasoningDelta) for event in events)
        return pieces > 1, f"{pieces} pieces" if pieces > 1 else "it came in one piece"

    async def _stream_usage(self) -> tuple[bool, str]:
        usage = (await self._ask(_HELLO, stream=True)).usage
        there = usage.input_tokens > 0
        return there, f"{usage.input_tokens} in, {usage.output_tokens} out" if there else "none"

    async def _logprobs(self) -> tuple[bool, str]:
        answer = await self._ask(_HELLO, settings={"logprobs": True})
        return bool(answer.logprobs), "there" if answer.logprobs else "none"

    async def _ask(
        self, prompt: str, *, stream: bool = False, emit: Emit = ignore, **options: Any
    ) -> ModelResponse:
        settings = {**self._limit, **options.pop("settings", {})}
        request = ModelRequest(
            messages=(UserMessage(content=prompt),), settings=settings, **options
        )
        return await self._chat.request(request, stream=stream, emit=emit)

    async def _check(self, name: str, ask: Callable[[], Awaitable[tuple[bool, str]]]) -> None:
        ok: bool | None
        try:
            ok, detail = await ask()
        except AgentKitError as error:
            if not self.checks and isinstance(error, ModelUnreachable | AuthenticationFailed):
                raise  # nothing answers, or the key is wrong
            busy = isinstance(error, ModelUnreachable | RateLimited | QuotaExceeded)
            ok, detail = None if busy else False, str(error)
        self._note(name, ok, detail)

    def _note(self, name: str, ok: bool | None, detail: str) -> None:
        self.checks[name] = Check(name=name, ok=ok, detail=detail)
        self._report(self.checks[name])


def _excerpt(answer: ModelResponse) -> str:
    text = f"answered {answer.message.text[:60]!r}"
    return f"{text}, cut off" if answer.finish == "length" else text


# From answers to a profile


def _profile(known: Profile, checks: Mapping[str, Check]) -> Profile:
    def can(name: str, before: bool) -> bool:
        ok = checks[name].ok
        return before if ok is None else ok

    named = can("named tool_choice", known.forced_tool == "named")
    required = can("required tool_choice", known.forced_tool != "auto")
    schema = can("json_schema", "native" in known.output_modes)
    # A weak model may call only what it has to.
    tools = can("tools", known.tool_calling == "native") or named or required
    modes: list[tuple[OutputMode, bool]] = [
        ("native", schema),
        ("tool", tools),
        ("json", can("json_object", "json" in known.output_modes)),
        ("prompt", True),
    ]
    drops, logprobs = known.drops, {"logprobs", "top_logprobs"}
    if checks["logprobs"].ok is not None:
        drops = drops - logprobs if checks["logprobs"].ok else drops | logprobs
    # The deprecated form is not asked for: it stays where it is known.
    tool_calling = known.tool_calling
    if tools or (schema and tool_calling == "native"):
        tool_calling = "native" if tools else "constrained"
    newer, older = "max_completion_tokens", "max_tokens"
    renames = known.renames
    if checks[newer].ok:
        renames = {key: name for key, name in renames.items() if name != older}
    elif checks[older].ok:
        renames = {**renames, newer: older}
    return replace(
        known,
        tool_calling=tool_calling,
        output_modes=tuple(mode for mode, works in modes if works),
        native_with_tools=can("json_schema with tools", known.native_with_tools),
        forced_tool="named" if named else "alone" if required else "auto",
        renames=renames,
        drops=drops,
        stream_usage=can("usage in streams", known.stream_usage),
    )
