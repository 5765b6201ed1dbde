"""What a caller may set of a run: sampling parameters, limits and timeouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol, cast

from agentkit import _checks
from agentkit._checks import FLAG, TEXT, Check, integer, number, one_of
from agentkit._options import options
from agentkit.errors import InvalidSetting, safe_repr
from agentkit.messages import ForcedTool, ToolChoice, Usage

__all__ = ["ChatSettings", "Limits", "Timeouts", "asked_of", "limits_of", "settings_of"]


def _field(check: Check, default: Any = None) -> Any:
    """Declare a field that is None or passes the check."""
    return field(default=default, metadata={"check": check.or_none()})


def _check(settings: Any) -> None:
    """Check every value, and copy what the caller could still change."""
    every = ((one, getattr(settings, one.name)) for one in fields(settings))
    present = [(one, value) for one, value in every if value is not None]  # None always fits
    values = {one.name: value for one, value in present}
    found = _checks.misfit(values, {one.name: one.metadata["check"] for one, _ in present})
    if found is not None:
        name, check = found
        allowed = check.expected.removeprefix("None or ")
        raise _invalid(settings, name, allowed, expected=check.expected)
    for name, value in values.items():
        if isinstance(value, (Mapping, list)):
            object.__setattr__(settings, name, _copied(value))


def _copied(value: Any) -> Any:
    """Copy the mappings and lists of a JSON value."""
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {name: _copied(item) for name, item in items}
    if isinstance(value, (list, tuple)):
        copies = map(_copied, cast("Sequence[Any]", value))
        return [*copies] if isinstance(value, list) else (*copies,)
    return value


def _invalid(settings: Any, name: str, allowed: str, *, expected: str = "") -> InvalidSetting:
    value = safe_repr(getattr(settings, name))
    text = f"{type(settings).__name__}.{name} is {value}; expected {expected or allowed}."
    return InvalidSetting(text, field=name, value=value, allowed=allowed)


def _custom(expected: str, fits: Callable[[Any], bool]) -> Any:
    return _field(Check(expected, fits))


def _texts(value: Any) -> bool:
    return _checks.items("", lambda one: isinstance(one, str)).fits(value)


def _biases(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        _checks.is_number(one) and -100 <= one <= 100
        for one in cast(Mapping[Any, Any], value).values()
    )


def _choice(value: Any) -> bool:
    return isinstance(value, str) or isinstance(getattr(value, "name", None), str)


_MAPPING = _checks.instance("a mapping", Mapping)


# Settings


@options
@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Where a run ends, whatever the model wants. None means no limit.

    Limits are checked before anything is sent or executed. A run that reaches
    one ends with `LimitExceeded`, which carries what the run had reached. What
    sub-agents use counts as used by the agent that asked them.

    Attributes:
        steps: Model calls.
        tool_calls: Tool calls that are executed.
        input_tokens: Input tokens over all steps.
        output_tokens: Output tokens over all steps.
        total_tokens: Input and output tokens over all steps.
        cost: USD. Needs a known price: the extra `prices`, a server that reports it, or
            `ChatModel(price=…)`.
        output_bytes: Bytes of tool results that are told to the model.
        seconds: Wall-clock time of the run.
        parallel: Tool calls running at the same time, those of sub-agents included.
        repeats: How often in a row the same batch of calls may come again with the same
            results. Past it the batch is not executed, a warning says so, and the model is
            asked once more without tools. None takes the model's default: 10, or 0 for the
            embedded model. A large number never notices repetition.
    """

    steps: int | None = _field(integer(1), 50)
    tool_calls: int | None = _field(integer(0))
    input_tokens: int | None = _field(integer(1))
    output_tokens: int | None = _field(integer(1))
    total_tokens: int | None = _field(integer(1))
    cost: float | None = _field(number(0))
    output_bytes: int | None = _field(integer(1))
    seconds: float | None = _field(number(0))
    parallel: int | None = _field(integer(1))
    repeats: int | None = _field(integer(0))

    def __post_init__(self) -> None:
        """Check the values, before any I/O."""
        _check(self)

    def reached(self, used: Usage, calls: int = 0) -> tuple[str, float, float] | None:
        """Find the limit that forbids another model call, or so many tool calls more.

        Returns:
            Its name, the value that it has or would have, and the maximum; None if there is none.
        """
        if calls:
            total, most = used.tool_calls + calls, self.tool_calls
            return ("tool_calls", total, most) if most is not None and total > most else None
        for name, counted in _COUNTED.items():
            value, maximum = getattr(used, counted) or 0, getattr(self, name)
            if maximum is not None and value >= maximum:
                return name, value, maximum
        return None


_COUNTED = {
    "steps": "requests",
    **{name: name for name in ("input_tokens", "output_tokens", "total_tokens")},
    "output_bytes": "tool_bytes",
    "cost": "cost",
}
"""The limits that forbid another model call, and what of the usage counts for them."""


@options
@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """How long a model call may take, in seconds; None waits for ever.

    Attributes:
        connect: Until a connection stands.
        read: Between two pieces of an answer. A model that thinks is silent for long.
        write: Between two pieces of the request.
        pool: Until a connection is free.
        total: The whole call, with all its attempts and the waits between them.
    """

    connect: float | None = 10.0
    read: float | None = 300.0
    write: float | None = 60.0
    pool: float | None = 60.0
    total: float | None = 1800.0


class _Named(Protocol):
    """A tool, of which only the name matters here."""

    @property
    def name(self) -> str: ...


@options
@dataclass(frozen=True, kw_only=True, slots=True)
class ChatSettings:
    """Sampling parameters of chat completions. None leaves a parameter to the server.

    Values are checked here, before any I/O. Settings of the agent, the run and
    the step are merged in that order. What a server does not take is renamed,
    clamped or dropped by its profile with a warning, or refused with
    `ChatModel(strict_settings=True)`.

        agent = Agent("openai:gpt-4o", settings=ChatSettings(temperature=0, seed=1))

    The ranges are those of the OpenAI API reference ("Create chat completion"),
    and of vLLM's, OpenRouter's and Fireworks' references for what is theirs.

    Attributes:
        temperature: 0…2. Randomness of sampling; some servers take at most 1.
        top_p: 0 < x <= 1. Sample from the most likely tokens of this total probability.
        top_k: Integer >= -1. Sample from this many tokens; -1 is off. Not OpenAI.
        min_p: 0…1. Least probability relative to the most likely token. Not OpenAI.
        frequency_penalty: -2…2. Against tokens by how often they came.
        presence_penalty: -2…2. Against tokens that came at all.
        repetition_penalty: 0 < x < 2. A factor against repetition. Not OpenAI.
        max_completion_tokens: >= 1. Most tokens of an answer, thinking included.
        max_tokens: The deprecated name of `max_completion_tokens`.
        n: 1…128. Answers per request; more than one only in a direct `model.request`.
        stop: A text, or up to 4 texts, at which the answer ends.
        seed: Integer. For answers as repeatable as the server can.
        logprobs: Return log probabilities of the answer's tokens.
        top_logprobs: 0…20. As many alternatives for each token; needs `logprobs`.
        logit_bias: Token id to -100…100.
        tool_choice: "auto", "none", "required", a tool, or a tool's name. After the
            step that it forced, the model may choose freely again.
        keep_tool_choice: Force the call at every step. The run then ends by a limit only.
        parallel_tool_calls: Whether one answer may hold several calls.
        modalities: "text", "audio" or both.
        audio: `{"voice": …, "format": …}` for spoken answers: required where `modalities`
            includes "audio".
        prediction: `{"type": "content", "content": …}`: text that is mostly known already.
        reasoning_effort: How much a reasoning model thinks.
        metadata: Labels that the server stores with the request.
        store: Whether the server stores the answer.
        user: Your id of the end user.
        safety_identifier: Your id of the end user, hashed, for abuse detection.
        prompt_cache_key: Requests of one key are routed to one prompt cache.
        service_tier: "auto", "default", "flex", "priority", or the server's own.
        web_search_options: Options of the server's own web search.
        structured_outputs: Route to servers that enforce schemas. OpenRouter.
        models: Models to fall back to. OpenRouter.
        route: "fallback". OpenRouter.
        provider: Which upstream servers may answer: order, allow_fallbacks,
            require_parameters, data_collection, sort and more. OpenRouter.
        transforms: What is done to a prompt that is too long. OpenRouter.
        usage: `{"include": True}` for costs in the usage. OpenRouter.
        context_length_exceeded_behavior: "truncate" or "error". Fireworks.
        extra_body: Further fields of the request body; they win over all others.
        extra_headers: Further headers.
        extra_query: Further query parameters.
    """

    temperature: float | None = _field(number(0, 2))
    top_p: float | None = _custom("0 < x <= 1", lambda v: _checks.is_number(v) and 0 < v <= 1)
    top_k: int | None = _field(integer(-1))
    min_p: float | None = _field(number(0, 1))
    frequency_penalty: float | None = _field(number(-2, 2))
    presence_penalty: float | None = _field(number(-2, 2))
    repetition_penalty: float | None = _custom(
        "0 < x < 2", lambda v: _checks.is_number(v) and 0 < v < 2
    )
    max_completion_tokens: int | None = _field(integer(1))
    max_tokens: int | None = _field(integer(1))
    n: int | None = _field(integer(1, 128))
    stop: str | Sequence[str] | None = _custom(
        "a text or up to 4 texts", lambda v: isinstance(v, str) or (_texts(v) and len(v) <= 4)
    )
    seed: int | None = _field(integer())
    logprobs: bool | None = _field(FLAG)
    top_logprobs: int | None = _field(integer(0, 20))
    logit_bias: Mapping[str, float] | None = _custom("token id: -100…100", _biases)
    tool_choice: str | ForcedTool | _Named | None = _custom(  # noqa: RUF009 # makes a field
        "'auto' | 'none' | 'required', a tool or its name", _choice
    )
    keep_tool_choice: bool | None = _field(FLAG)
    parallel_tool_calls: bool | None = _field(FLAG)
    modalities: Sequence[Literal["text", "audio"]] | None = _custom(
        "'text' and 'audio'", lambda v: _texts(v) and set(v) <= {"text", "audio"}
    )
    audio: Mapping[str, Any] | None = _custom(
        "{'voice': …, 'format': …}",
        lambda v: isinstance(v, Mapping) and {"voice", "format"} <= {*cast(Any, v)},
    )
    prediction: Mapping[str, Any] | None = _field(_MAPPING)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = _field(
        one_of("none", "minimal", "low", "medium", "high")
    )
    metadata: Mapping[str, str] | None = _field(_MAPPING)
    store: bool | None = _field(FLAG)
    user: str | None = _field(TEXT)
    safety_identifier: str | None = _field(TEXT)
    prompt_cache_key: str | None = _field(TEXT)
    service_tier: str | None = _field(TEXT)
    web_search_options: Mapping[str, Any] | None = _field(_MAPPING)
    structured_outputs: bool | None = _field(FLAG)
    models: Sequence[str] | None = _custom("names of models", _texts)
    route: str | None = _field(TEXT)
    provider: Mapping[str, Any] | None = _field(_MAPPING)
    transforms: Sequence[str] | None = _custom("names of transforms", _texts)
    usage: Mapping[str, Any] | None = _field(_MAPPING)
    context_length_exceeded_behavior: Literal["truncate", "error"] | None = _field(
        one_of("truncate", "error")
    )
    extra_body: Mapping[str, Any] | None = _custom(
        "a mapping without 'messages' and 'stream'",
        lambda v: isinstance(v, Mapping) and not {"messages", "stream"} & {*cast(Any, v)},
    )
    extra_headers: Mapping[str, str] | None = _field(_MAPPING)
    extra_query: Mapping[str, Any] | None = _field(_MAPPING)

    def __post_init__(self) -> None:
        """Check every value, and translate the deprecated name."""
        _check(self)
        if self.top_logprobs is not None and not self.logprobs:
            raise _invalid(self, "top_logprobs", "only together with logprobs=True")
        spoken = "audio" in (self.modalities or ())
        if spoken and self.audio is None and "audio" not in (self.extra_body or {}):
            form = "{'voice': …, 'format': …}, because modalities includes 'audio'"
            raise _invalid(self, "audio", form)
        if self.max_tokens is not None:
            if self.max_completion_tokens not in (None, self.max_tokens):
                raise _invalid(self, "max_tokens", "not beside max_completion_tokens")
            object.__setattr__(self, "max_completion_tokens", self.max_tokens)
            object.__setattr__(self, "max_tokens", None)

    def merge(self, other: ChatSettings) -> ChatSettings:
        """Return these settings with those of `other` over them; the `extra_…` key by key.

        Raises:
            InvalidSetting: Together they contradict each other.
        """
        merged: dict[str, Any] = {}
        for one in fields(self):
            mine, new = getattr(self, one.name), getattr(other, one.name)
            if one.name.startswith("extra_") and mine and new:
                merged[one.name] = {**mine, **new}
            else:
                merged[one.name] = mine if new is None else new
        return ChatSettings(**merged)

    def to_params(self) -> dict[str, Any]:
        """Return what is set, under its chat-completions names, as JSON values."""
        chosen = ("tool_choice", "keep_tool_choice")
        return {
            one.name: [*cast(Any, value)] if isinstance(value, tuple) else value
            for one in fields(self)
            if one.name not in chosen and (value := getattr(self, one.name)) is not None
        }

    def forced_choice(self) -> ToolChoice | None:
        """Return `tool_choice` as a request holds it."""
        match self.tool_choice:
            case None | ForcedTool():
                return self.tool_choice
            case "auto" | "none" | "required":
                return cast("ToolChoice", self.tool_choice)
            case str(name):
                return ForcedTool(name=name)
            case tool:
                return ForcedTool(name=tool.name)


def asked_of(
    settings: ChatSettings | None, limits: Limits | None, model: str | None = None
) -> dict[str, Any]:
    """Return what one run was given instead of its agent's, to be recorded.

    The recorder takes the credentials out of it.
    """
    asked: dict[str, Any] = {}
    if settings is not None:
        choice = settings.forced_choice()
        asked["settings"] = settings.to_params() | {
            "tool_choice": choice.name if isinstance(choice, ForcedTool) else choice,
            "keep_tool_choice": settings.keep_tool_choice,
        }
    if limits is not None:
        asked["limits"] = asdict(limits)
    if model is not None:
        asked["model"] = model
    return asked


def settings_of(asked: Mapping[str, Any]) -> ChatSettings | None:
    """Return the settings that a run was given, from its trace."""
    return ChatSettings(**asked["settings"]) if "settings" in asked else None


def limits_of(asked: Mapping[str, Any]) -> Limits | None:
    """Return the limits that a run was given, from its trace."""
    return Limits(**asked["limits"]) if "limits" in asked else None
