"""What each server supports, as data.

`chat.encode` reads a profile; nothing else in agentkit knows one server from
another. A profile is chosen by the model string or the base URL, and a caller
may pass another one: `dataclasses.replace(PROFILES["vllm"], call_ids="alnum9")`.

Sources are the servers' public references and recorded exchanges.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

OutputMode: TypeAlias = Literal["native", "tool", "json", "prompt"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What one kind of server supports.

    Attributes:
        name: The provider's name, as in `provider:model`.
        base_url: The server's URL, if it is always the same.
        url_variable: The environment variable that may hold another base URL.
        key_variable: The environment variable with the API key; None if no key is needed.
        auth: How the key is sent: `Authorization: Bearer` or `api-key`.
        hosts: Hosts that identify the server in a base URL; `.x` and `:1` match the end
            of host:port.
        path: The path under the base URL; `{model}` is filled in.
        query: Query parameters of every request.
        tool_calling: `native` sends `tools`; `functions` the deprecated `functions` and
            `function_call`; `constrained` expresses calls through one JSON schema, for
            servers that enforce schemas and have no tool template.
        output_modes: The ways to request a typed output, best first.
        native_with_tools: Whether a `response_format` may be sent together with tools.
        repeats: How often in a row the same batch of calls may recur with the same results,
            unless `Limits.repeats` is set.
        tool_limit: Most tools in one request; None if no limit is known.
        strict_tools: Whether a function may carry `strict`.
        required: The word for "call some tool".
        forced_tool: How "call this tool" is written: as the `named` object, as `required`
            with the other tools left out (`alone`), or not at all (`auto`).
        none_omits_tools: Whether "call no tool" has to leave the tools out.
        renames: Parameters with another name on this server.
        drops: Parameters that are refused or ignored.
        drops_reasoning: Further parameters that are refused unless `reasoning_effort="none"`.
        ranges: Parameters with a narrower range than the reference: (least, most).
        defaults: Parameters that are sent unless the caller sets them.
        stream_usage: Whether `stream_options.include_usage` is supported.
        stream_output: Whether a `response_format` can be streamed.
        system_role: The role of instructions.
        single_system: Whether only one system message is allowed, at the start.
        names: Roles whose `name` is sent.
        text_parts: Whether plain text may be a list of parts.
        null_content: How the absent text of a message with tool calls is written.
        empty_assistant: Whether an assistant message without text and calls is sent.
        tool_parts: Whether a tool message may hold images and files. If not, they go into
            a user message behind the results.
        user_after_tool: Whether a user message may follow a tool message.
        refusals: Whether `refusal` may be sent back; otherwise it is sent as text.
        call_ids: The required form of tool-call ids.
        raw_arguments: Whether arguments that are not a JSON object may be sent back.
        reasoning_field: The field in which reasoning is sent back on tool turns, whatever it
            came in; "content" writes it in `<think>` tags before the text.
        echo: Message fields that are sent back as they came, if they did. Whether a model
            needs its reasoning back depends on the model, so that only servers known to
            refuse such fields have fewer.
        echo_calls: Unknown fields of tool calls that are sent back.
        variants: (pattern, changes) for models that differ; the first match counts.
    """

    name: str = "openai"
    base_url: str | None = None
    url_variable: str | None = None
    key_variable: str | None = None
    auth: Literal["bearer", "api-key"] = "bearer"
    hosts: tuple[str, ...] = ()
    path: str = "/chat/completions"
    query: Mapping[str, str] = field(default_factory=dict[str, str])

    tool_calling: Literal["native", "functions", "constrained"] = "native"
    output_modes: tuple[OutputMode, ...] = ("native", "tool", "json", "prompt")
    native_with_tools: bool = True
    repeats: int = 10
    tool_limit: int | None = None
    strict_tools: bool = True
    required: Literal["required", "any"] = "required"
    forced_tool: Literal["named", "alone", "auto"] = "named"
    none_omits_tools: bool = False

    renames: Mapping[str, str] = field(default_factory=dict[str, str])
    drops: frozenset[str] = frozenset()
    drops_reasoning: frozenset[str] = frozenset()
    ranges: Mapping[str, tuple[float, float]] = field(
        default_factory=dict[str, tuple[float, float]]
    )
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    stream_usage: bool = True
    stream_output: bool = True

    system_role: Literal["system", "developer"] = "system"
    single_system: bool = False
    names: frozenset[str] = frozenset({"system", "user", "assistant"})
    text_parts: bool = False
    null_content: Literal["null", "omit", "empty"] = "null"
    empty_assistant: bool = True
    tool_parts: bool = False
    user_after_tool: bool = True
    refusals: bool = False
    call_ids: Literal["any", "alnum9"] = "any"
    raw_arguments: bool = False
    reasoning_field: str | None = None
    echo: frozenset[str] = frozenset(
        "reasoning reasoning_content reasoning_details thinking_blocks extra_content".split()
    )
    echo_calls: frozenset[str] = frozenset({"extra_content"})
    variants: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    def __post_init__(self) -> None:
        """Take any collections of names, which decide how messages are encoded."""
        for name in ("drops", "drops_reasoning", "names", "echo", "echo_calls"):
            object.__setattr__(self, name, frozenset(getattr(self, name)))

    def for_model(self, model: str) -> Profile:
        """Return the profile of one model of this server."""
        for pattern, changes in self.variants:
            if re.search(pattern, model):
                return replace(self, **changes)
        return self


_OPENROUTER_ONLY = frozenset("models route provider transforms usage structured_outputs".split())
_HOSTS_ONLY = frozenset("top_k min_p repetition_penalty context_length_exceeded_behavior".split())
_OPENAI_ONLY = frozenset(
    "audio modalities prediction prompt_cache_key safety_identifier service_tier store "
    "web_search_options".split()
)
_FOREIGN = _OPENROUTER_ONLY | _HOSTS_ONLY | _OPENAI_ONLY
"""Parameters that servers with only the reference's parameters do not know."""
_LOGPROBS = frozenset({"logprobs", "top_logprobs"})
_PENALTIES = frozenset({"frequency_penalty", "presence_penalty"})
_MAX_TOKENS = {"max_completion_tokens": "max_tokens"}
_SAMPLING = _PENALTIES | {"temperature", "top_p"}
_UNREASONED = _LOGPROBS | _SAMPLING | {"logit_bias", "stop"}
"""Parameters that OpenAI's models refuse with 400 while they reason."""

_OPENAI = Profile(
    name="openai",
    base_url="https://api.openai.com/v1",
    url_variable="OPENAI_BASE_URL",
    key_variable="OPENAI_API_KEY",
    hosts=("api.openai.com",),
    tool_limit=128,
    drops=_OPENROUTER_ONLY | _HOSTS_ONLY,
    text_parts=True,
    refusals=True,
    raw_arguments=True,
    echo=frozenset({"audio"}),
    echo_calls=frozenset(),
    variants=(
        (r"^gpt-4.*search-preview", {"drops": _OPENROUTER_ONLY | _HOSTS_ONLY | _SAMPLING}),
        (
            # They always reason.
            r"^(ft:)?o\d",
            {
                "system_role": "developer",
                "drops": _OPENROUTER_ONLY
                | _HOSTS_ONLY
                | _UNREASONED
                | {"parallel_tool_calls", "prediction"},
            },
        ),
        (
            # gpt-5+, but not its chat variants.
            r"^(ft:)?gpt-([5-9]|\d\d)(?!.*chat)",
            {"system_role": "developer", "drops_reasoning": _UNREASONED | {"prediction"}},
        ),
    ),
)

COMPATIBLE = Profile(name="compatible", renames=_MAX_TOKENS)
"""A chat-completions server about which nothing else is known."""


def _hosted(name: str, base_url: str, **facts: Any) -> Profile:
    """Return the profile of a hosted service, identified by its host and used with a key."""
    facts.setdefault("hosts", (urlsplit(base_url).netloc,))
    return Profile(name=name, base_url=base_url, key_variable=f"{name.upper()}_API_KEY", **facts)


_DEEPSEEK_DROPS = frozenset(
    _FOREIGN | {"logit_bias", "n", "parallel_tool_calls", "seed", "metadata", "user"}
)
_SELF_HOSTED = Profile(
    native_with_tools=False, renames=_MAX_TOKENS, drops=_OPENROUTER_ONLY | _OPENAI_ONLY
)


def _self_hosted(name: str, port: int, **facts: Any) -> Profile:
    """Return the profile of a self-hosted server, on this machine unless its variable is set."""
    url, variable = f"http://127.0.0.1:{port}/v1", f"{name.upper()}_BASE_URL"
    return replace(_SELF_HOSTED, name=name, base_url=url, url_variable=variable, **facts)


_KNOWN = (
    _OPENAI,
    replace(
        _OPENAI,
        name="azure",
        base_url=None,
        url_variable="AZURE_OPENAI_ENDPOINT",
        key_variable="AZURE_OPENAI_API_KEY",
        auth="api-key",
        hosts=(".openai.azure.com", ".cognitiveservices.azure.com", ".azure-api.net"),
        path="/openai/deployments/{model}/chat/completions",
        query={"api-version": "2024-10-21"},
    ),
    _hosted(
        "openrouter",
        "https://openrouter.ai/api/v1",
        renames=_MAX_TOKENS,
        drops=frozenset({"context_length_exceeded_behavior"}),
        text_parts=True,
    ),
    _hosted(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        native_with_tools=False,
        renames=_MAX_TOKENS,
        drops=_OPENROUTER_ONLY | _OPENAI_ONLY,
        ranges={"top_k": (1, 127)},
    ),
    _hosted(
        "groq",
        "https://api.groq.com/openai/v1",
        native_with_tools=False,
        strict_tools=False,
        drops=_FOREIGN - {"service_tier"} | _LOGPROBS | {"logit_bias"},
        stream_output=False,
        null_content="omit",
        echo=frozenset({"reasoning"}),
        echo_calls=frozenset(),
    ),
    _hosted(
        "together",
        "https://api.together.xyz/v1",
        hosts=("api.together.xyz", "api.together.ai"),
        renames=_MAX_TOKENS,
        drops=_OPENROUTER_ONLY | _OPENAI_ONLY | {"top_logprobs"},
        # Without a number the server stops after 512 tokens.
        defaults={"max_completion_tokens": 4096},
    ),
    _hosted(
        "mistral",
        "https://api.mistral.ai/v1",
        required="any",
        renames={**_MAX_TOKENS, "seed": "random_seed"},
        # Unknown fields are refused with 422.
        drops=_FOREIGN - {"prediction"} | _LOGPROBS | {"logit_bias", "user"},
        ranges={"temperature": (0, 1.5)},
        stream_usage=False,
        names=frozenset({"tool"}),
        null_content="empty",
        empty_assistant=False,
        user_after_tool=False,
        call_ids="alnum9",
        echo=frozenset(),
        echo_calls=frozenset(),
    ),
    _hosted(
        "deepseek",
        "https://api.deepseek.com/v1",
        output_modes=("tool", "json", "prompt"),
        strict_tools=False,
        renames=_MAX_TOKENS,
        drops=_DEEPSEEK_DROPS,
        reasoning_field="reasoning_content",
        # On turns without tools it is refused or ignored.
        echo=frozenset(),
        variants=(
            (
                "reasoner|thinking",
                {
                    "forced_tool": "auto",
                    "output_modes": ("json", "prompt"),
                    # Log probabilities are refused, the others ignored.
                    "drops": _DEEPSEEK_DROPS | _LOGPROBS | _SAMPLING,
                },
            ),
        ),
    ),
    _hosted(
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        drops=_FOREIGN - {"modalities"}
        | _LOGPROBS
        | {"logit_bias", "metadata", "parallel_tool_calls", "user"},
        strict_tools=False,
        names=frozenset({"tool"}),
        echo=frozenset({"extra_content"}),
    ),
    _hosted(
        "anthropic",
        "https://api.anthropic.com/v1",
        output_modes=("tool", "prompt"),
        strict_tools=False,
        drops=_FOREIGN
        | _LOGPROBS
        | _PENALTIES
        | {"logit_bias", "metadata", "n", "reasoning_effort", "seed"},
        ranges={"temperature": (0, 1)},
        single_system=True,
    ),
    _self_hosted("vllm", 8000, renames={}, single_system=True),
    _self_hosted("sglang", 30000, single_system=True),
    _self_hosted(
        "llamacpp",
        8080,
        strict_tools=False,
        forced_tool="alone",
        single_system=True,
        null_content="empty",
    ),
    _self_hosted(
        "ollama",
        11434,
        hosts=(":11434",),
        strict_tools=False,
        forced_tool="auto",
        none_omits_tools=True,
        drops=_FOREIGN | {"logit_bias", "n", "parallel_tool_calls", "user", "metadata"},
        null_content="empty",
    ),
    _self_hosted(
        "lmstudio",
        1234,
        hosts=(":1234",),
        output_modes=("native", "tool", "prompt"),
        strict_tools=False,
        forced_tool="alone",
        drops=_OPENROUTER_ONLY | _OPENAI_ONLY | _LOGPROBS,
        null_content="empty",
    ),
)

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in _KNOWN}
"""The known servers by name."""

LOCAL = replace(
    PROFILES["llamacpp"],
    name="local",
    base_url=None,
    url_variable=None,
    tool_calling="constrained",
    native_with_tools=True,
    output_modes=("native", "prompt"),
    repeats=0,
    # The same answer each time, and an end to it: a weak model repeats itself for ever.
    defaults={"temperature": 0, "max_completion_tokens": 1024},
)
"""The embedded server; see `LocalModel`. Not in `PROFILES`: no model string names it."""


def profile_for_url(base_url: str) -> Profile:
    """Return the profile of the server at `base_url`, or `COMPATIBLE` if it is not known."""
    netloc = urlsplit(base_url).netloc.rpartition("@")[2].lower()
    for profile in PROFILES.values():
        for host in profile.hosts:
            if netloc == host or (host[0] in ".:" and netloc.endswith(host)):
                return profile
    return COMPATIBLE


def profile_source(profile: Profile) -> str:
    """Return a profile as Python source: a `replace` of the known profile of its name, if any.

    The source uses the names `Profile`, `PROFILES` and `replace`.
    """
    known = PROFILES.get(profile.name)
    base = known or Profile()
    lines = [
        f"    {one.name}={_literal(value)},"
        for one in fields(Profile)
        if (value := getattr(profile, one.name)) != getattr(base, one.name)
    ]
    if known is None:
        return "\n".join(["Profile(", *lines, ")"])
    start = f"PROFILES[{profile.name!r}]"
    return "\n".join([f"replace(\n    {start},", *lines, ")"]) if lines else start


def _literal(value: Any) -> str:
    if isinstance(value, frozenset):
        return f"frozenset({sorted(value)!r})"  # pyright: ignore[reportUnknownArgumentType] # of str
    return repr(value)
