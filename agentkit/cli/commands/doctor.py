"""`agentkit doctor`: finds out what a server can do by asking it.

A dozen short questions, each with a right answer that a server gives only if
the feature works, and each bounded in time and tokens. The answers become a
table and a `Profile`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

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
from agentkit.events import Event, ReasoningDelta, TextDelta
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
from agentkit.models.profiles import COMPATIBLE, LOCAL, OutputMode, Profile, profile_source

_CUT = 400
"""Characters of an answer that are printed."""
_LISTED = 20
"""How many models an error names."""


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
    print_line(f"{diagnosis.model} at {base_url}", "bold")
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
    print_line(_program(base_url, diagnosis.model, suited))


def _program(base_url: str, model: str, profile: Profile) -> str:
    """Return a program with the model as it was found, to paste."""
    source = profile_source(profile)
    lines = ["from dataclasses import replace", ""] if source.startswith("replace(") else []
    return "\n".join(
        [
            *lines,
            "from agentkit import ChatModel",
            f"from agentkit.models import {'PROFILES' if 'PROFILES[' in source else 'Profile'}",
            "",
            f"profile = {source}",
            f"model = ChatModel({model!r}, base_url={base_url!r}, profile=profile)",
        ]
    )


class Check(NamedTuple):
    """One feature of a server, and what was seen of it.

    `ok` is None where there was no answer to tell by: no connection, too slow, too many requests.
    """

    name: str
    ok: bool | None
    detail: str


class Diagnosis(NamedTuple):
    """What a server can do; the profile is the nearest known one, changed to what was seen."""

    model: str
    checks: tuple[Check, ...]
    profile: Profile


async def probe(
    base_url: str,
    *,
    model: str | None = None,
    api_key: str | None = None,
    profile: Profile | str | None = None,
    seconds: float = 120.0,
    report: Callable[[Check], None] = lambda check: None,
) -> Diagnosis:
    """Ask a server what it can do, in about a dozen requests.

    Each may take so many seconds, with one further attempt. `report` gets each result as it comes.
    A server that answers nothing, refuses the key or does not say hello raises.
    """
    if model is None:
        async with ChatModel("", base_url=base_url, api_key=api_key, profile=profile) as lister:
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
    checks: dict[str, Check] = {}
    async with ChatModel(
        model, base_url=base_url, api_key=api_key, profile=bare, timeout=seconds, retries=1
    ) as chat:
        for name, prompt, judge, options in _QUESTIONS:
            known_limits = [one for one in _LIMITS if one in checks and checks[one].ok]
            settings = dict.fromkeys(known_limits[:1], _ANSWER_TOKENS)
            settings |= options.get("settings", {})
            try:
                ok, detail = await _ask(chat, prompt, judge, {**options, "settings": settings})
            except AgentKitError as error:
                silent = isinstance(error, ModelUnreachable | AuthenticationFailed)
                if name == "chat" or (silent and not checks):
                    raise
                busy = isinstance(error, ModelUnreachable | RateLimited | QuotaExceeded)
                ok, detail = None if busy else False, str(error)
            checks[name] = Check(name, ok, detail)
            report(checks[name])
    name = known.name if known.name != COMPATIBLE.name else "custom"
    suited = _profile(replace(known, name=name), checks)
    return Diagnosis(model, tuple(checks.values()), suited)


async def _ask(
    chat: ChatModel, prompt: str, judge: Judge, options: dict[str, Any]
) -> tuple[bool, str]:
    events: list[Event] = []
    stream = options.pop("stream", False)
    request = ModelRequest(messages=(UserMessage(content=prompt),), **options)
    answer = await chat.request(request, stream=stream, emit=events.append)
    return judge(answer, sum(isinstance(event, TextDelta | ReasoningDelta) for event in events))


async def _only_model(lister: ChatModel, base_url: str) -> str:
    try:
        names = await lister.models()
    except AuthenticationFailed:
        raise
    except ModelUnreachable as error:
        raise ModelUnreachable(
            f"There is no answer from {base_url}: {error.__cause__ or error}"
        ) from error
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

Judge: TypeAlias = Callable[[ModelResponse, int], tuple[bool, str]]
"""Returns whether an answer, in so many streamed pieces, shows that a feature works, and why."""

_LIMITS = ("max_completion_tokens", "max_tokens")
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
_TOOLS = {"tools": (_WEATHER, _TIME)}
_SCHEMA = {
    "type": "object",
    "properties": {"code": {"type": "string", "enum": ["zx-81"]}},
    "required": ["code"],
    "additionalProperties": False,
}
_FORM = OutputFormat(kind="json_schema", name="code", schema=_SCHEMA)
_HELLO = "Say hello."
_LONG = "Count from 1 to 100, in words, and write nothing else."


def _excerpt(answer: ModelResponse) -> str:
    text = f"answered {answer.message.text[:60]!r}"
    return f"{text}, cut off" if answer.finish == "length" else text


def _cut(answer: ModelResponse, _: int) -> tuple[bool, str]:
    cut = answer.finish == "length"
    return cut, "kept to" if cut else f"ignored: finished with {answer.finish!r}"


def _calls(answer: ModelResponse, _: int, *, least: int = 1, only: str = "") -> tuple[bool, str]:
    names = [call.name for call in answer.message.tool_calls]
    right = len(names) >= least and (not only or names == [only])
    return right, f"called {', '.join(names)}" if names else _excerpt(answer)


def _called_anyway(answer: ModelResponse, _: int) -> tuple[bool, str]:
    called = bool(answer.message.tool_calls)
    return called, "called the tool" if called else "the schema kept it from calling"


def _streamed(_: ModelResponse, pieces: int) -> tuple[bool, str]:
    return pieces > 1, f"{pieces} pieces" if pieces > 1 else "it came in one piece"


def _counted(answer: ModelResponse, _: int) -> tuple[bool, str]:
    used = answer.usage
    there = used.input_tokens > 0
    return there, f"{used.input_tokens} in, {used.output_tokens} out" if there else "none"


_QUESTIONS: tuple[tuple[str, str, Judge, Mapping[str, Any]], ...] = (
    *((name, _LONG, _cut, {"settings": {name: _FEW_TOKENS}}) for name in _LIMITS),
    ("chat", _HELLO, lambda it, _: (bool(it.message.text), _excerpt(it)), {}),
    ("tools", "What is the weather in Paris? Use the tool.", _calls, _TOOLS),
    ("required tool_choice", _HELLO, _calls, {**_TOOLS, "tool_choice": "required"}),
    (
        "named tool_choice",
        _HELLO,
        partial(_calls, only="get_time"),
        {**_TOOLS, "tool_choice": ForcedTool(name="get_time")},
    ),
    (
        "parallel calls",
        "What is the weather in Paris, and what in Rome? Call the tool once for each.",
        partial(_calls, least=2),
        _TOOLS,
    ),
    (
        "json_schema",
        _HELLO,
        lambda it, _: (json_or(None, it.message.text) == {"code": "zx-81"}, _excerpt(it)),
        {"output": _FORM},
    ),
    (
        "json_object",
        "Describe a cat as a JSON object.",
        lambda it, _: (isinstance(json_or(None, it.message.text), dict), _excerpt(it)),
        {"output": OutputFormat(kind="json_object")},
    ),
    (
        "json_schema with tools",
        "Look the weather in Paris up with the tool before you answer.",
        _called_anyway,
        {"output": _FORM, "tools": (_WEATHER,)},
    ),
    ("streaming", _LONG, _streamed, {"stream": True}),
    ("usage in streams", _HELLO, _counted, {"stream": True}),
    (
        "logprobs",
        _HELLO,
        lambda it, _: (bool(it.logprobs), "there" if it.logprobs else "none"),
        {"settings": {"logprobs": True}},
    ),
)
"""Of each feature: its name, a prompt, what a right answer is, and further parts of the request."""


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
    modes: dict[OutputMode, bool] = {
        "native": schema,
        "tool": tools,
        "json": can("json_object", "json" in known.output_modes),
        "prompt": True,
    }
    logprobs = {"logprobs", "top_logprobs"}
    works = can("logprobs", not logprobs & known.drops)
    # The deprecated form is not asked for: it stays where it is known.
    tool_calling = known.tool_calling
    if tools or (schema and tool_calling == "native"):
        tool_calling = "native" if tools else "constrained"
    newer, older = _LIMITS
    renames = known.renames
    if checks[newer].ok:
        renames = {key: name for key, name in renames.items() if name != older}
    elif checks[older].ok:
        renames = {**renames, newer: older}
    return replace(
        known,
        tool_calling=tool_calling,
        output_modes=tuple(mode for mode, works in modes.items() if works),
        native_with_tools=can("json_schema with tools", known.native_with_tools),
        forced_tool="named" if named else "alone" if required else "auto",
        renames=renames,
        drops=known.drops - logprobs if works else known.drops | logprobs,
        stream_usage=can("usage in streams", known.stream_usage),
        # Such models are small, and answer the same each time: see `LOCAL`.
        repeats=LOCAL.repeats if tool_calling == "constrained" else known.repeats,
    )
