"""Forks a recorded run: the same up to a place, something changed there, live after it.

A fork works like an incremental build. Every effect has an address and a hash of
what it was asked; where both are as they were, the recorded outcome still holds,
and where not, the effect depends on the change and is done for real.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias, cast, get_args

from agentkit.core.effects import (
    Address,
    Compute,
    Decision,
    Effect,
    Handler,
    ModelCall,
    Outcome,
    Pause,
    ToolInvocation,
    Value,
    ancestors,
)
from agentkit.errors import ConfigurationError, ReplayDivergence
from agentkit.events import Emit, ignore
from agentkit.messages import (
    AssistantMessage,
    JsonObject,
    Message,
    ModelResponse,
    UserMessage,
    is_object,
    message_from_json,
)
from agentkit.models import Model
from agentkit.replay.answers import RecordedHandler, stopped
from agentkit.replay.replay import SameCalls
from agentkit.replay.resume import decide, without_secrets
from agentkit.runtime.assemble import Program, assemble, program_hash
from agentkit.runtime.config import AgentConfig, Configured
from agentkit.runtime.driver import Driver
from agentkit.runtime.handlers import observed, performing, recorded
from agentkit.runtime.request import Prompt, prompt_messages, without_placeholders
from agentkit.runtime.result import RunResult
from agentkit.runtime.scope import Approver, Scope, guarded, new_run_id
from agentkit.runtime.tool_call import outcome_of
from agentkit.settings import ChatSettings, asked_of, limits_of, settings_of
from agentkit.tools.tool import Tool
from agentkit.trace.naming import packed
from agentkit.trace.open import TraceTo, check_replayable, open_recorder
from agentkit.trace.reader import Trace

__all__ = ["LiveTools", "Patch", "fork"]

LiveTools: TypeAlias = Literal["live", "by_effect", "recorded"]
_TOOLS = get_args(LiveTools)


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """What is different in a fork. Whatever is None or empty stays as it was.

    Attributes:
        prompt: Another prompt.
        instructions: Other instructions.
        messages: Other messages by their index in the recorded request at the fork's address,
            as `agentkit show --at` numbers them: text, a message, or its JSON.
        result: What the effect at the fork's address comes to, instead of doing it: the text a
            tool answers; the text or the message of a model; the value of a function; a
            `Decision` about a call.
        settings: Sampling parameters over those of the agent and the run.
        model: Another model.
        tools: Other implementations of tools that the agent has, by their names.
    """

    prompt: Prompt = None
    instructions: str | Callable[..., Any] | None = None
    messages: Mapping[int, str | Message | JsonObject] = field(default_factory=dict[int, Any])
    result: Any = None
    settings: ChatSettings | None = None
    model: str | Model | None = None
    tools: Sequence[Tool[..., Any]] = ()

    def __post_init__(self) -> None:
        """Check the values before anything is read."""
        settings: Any = self.settings
        tools: Sequence[Any] = self.tools
        indexed = all(type(one) is int for one in self.messages)
        _check(
            "Patch",
            ("settings", settings, isinstance(settings, ChatSettings | None), "ChatSettings(…)"),
            ("messages", self.messages, indexed, "{index: message}"),
            ("tools", tools, all(isinstance(one, Tool) for one in tools), "a list of tools"),
        )

    def to_json(self) -> JsonObject:
        """What the fork's trace says of it."""
        model, told = self.model, self.instructions
        settings = self.settings.to_params() if self.settings is not None else None
        said: JsonObject = {
            "prompt": self.prompt,
            "instructions": "(computed)" if callable(told) else told,
            "messages": {str(index): one for index, one in self.messages.items()} or None,
            "result": self.result,
            "settings": settings,
            "model": model if model is None or isinstance(model, str) else model.name,
            "tools": [tool.name for tool in self.tools] or None,
        }
        return {name: value for name, value in said.items() if value is not None}


async def fork(
    trace: Trace | str | os.PathLike[str],
    agent: Configured,
    *,
    at: str | None = None,
    patch: Patch | None = None,
    tools: LiveTools = "live",
    deps: object = None,
    approver: Approver | None = None,
    record: TraceTo = True,
    on_event: Emit = ignore,
) -> RunResult[Any]:
    """Run a recorded run again with something changed: recorded where nothing changes, else live.

    Args:
        trace: The recording, or its path. It is not changed.
        agent: The agent that made it.
        at: The address of the effect from which things are different; everything before it
            stays as recorded. It is done again even where `patch` changes nothing of it. None:
            wherever the patch first makes a difference.
        patch: What is different.
        tools: What becomes of tool calls that were not recorded so: they run; those that only
            read run (`by_effect`); or none does. One that may not run is answered with what
            was recorded of the same call, and refused if there is no such call. What the patch
            names runs in any case: a tool of `Patch.tools`, and the tool around `at`. A call that
            the patch approves runs too, but not with "recorded".
        deps: Given to tools.
        approver: Decides about calls that were not decided about then.
        record: Where the fork is recorded, as `RunOptions.trace`. Its trace names this one.
        on_event: Called with each event.

    Returns:
        The result of the fork; `result.trace` is a whole trace of its own.

    Raises:
        ConfigurationError: There is no such address, or nothing is changed, or the patch does
            not fit the effect there.
        ReplayDivergence: The agent differs from the recorded one before `at`.
        TraceError: The trace cannot be read.
        AgentKitError: As of `Agent.run`.
    """
    patch = _checked(at, patch, tools)
    recording = trace if isinstance(trace, Trace) else Trace.load(trace)
    check_replayable(recording)
    config = agent.config
    answers = RecordedHandler(recording, config.redact)
    answers.check_agent(f"/{config.name}")
    plan = _Plan(answers, config, at, patch, tools)
    then = without_placeholders(recording.asked(), patch.settings)
    settings, limits = settings_of(then), limits_of(then)
    if patch.settings is not None:
        settings = settings.merge(patch.settings) if settings is not None else patch.settings
    program = assemble(plan.changed(config), settings, limits)
    program.model.check()
    program.config.check_deps(deps)
    messages, earlier = plan.input(), plan.earlier
    run, redact = new_run_id(), config.redact
    recorder, to = open_recorder(
        record,
        run=run,
        program=lambda: program_hash(program, redact),
        redact=redact,
        capture=config.capture,
        fork={"run": recording.run, "at": at, "patch": packed(patch.to_json(), redact)},
    )
    scope = Scope(
        run=run,
        handler=plan.handler,
        limits=program.spec.limits,
        deps=deps,
        listener=guarded(on_event),
        recorder=recorder,
        trace=to,
        redact=redact,
        approver=approver,
        recorded=answers,
        asked=asked_of(settings, limits),
    )
    driver = Driver(scope, program, messages, earlier=earlier)
    await driver.execute()
    return driver.result


def _checked(at: Any, patch: Any, tools: Any) -> Patch:
    """The patch, when all that decides about the fork is of the right kind."""
    _check(
        "fork",
        ("at", at, isinstance(at, str | None), "an address such as '/agent/m0/t1'"),
        ("patch", patch, isinstance(patch, Patch | None), "Patch(…)"),
        ("tools", tools, tools in _TOOLS, f"one of {', '.join(map(repr, _TOOLS))}"),
    )
    return patch or Patch()


def _check(call: str, *arguments: tuple[str, Any, bool, str]) -> None:
    """Refuse the first argument that does not fit; each has its name, its value and what is due."""
    for name, value, fits, expected in arguments:
        if not fits:
            raise ConfigurationError(f"{call}({name}={value!r}): expected {expected}.")


class _Plan:
    """What of a recorded run still holds when something is changed."""

    def __init__(
        self,
        recorded: RecordedHandler,
        agent: AgentConfig,
        at: str | None,
        patch: Patch,
        tools: LiveTools,
    ) -> None:
        self.recorded = recorded
        self.patch = patch
        self.at = at
        self.tools = tools
        self.renewed = {tool.name for tool in patch.tools}
        self.root = f"/{agent.name}"
        messages, self.earlier = recorded.trace.input()
        self._messages = list(messages)
        if at is None and patch == Patch():
            raise ConfigurationError("The fork changes nothing: give at=, patch=, or both.")
        if at is None and (patch.result is not None or patch.messages):
            raise ConfigurationError("Patch(result=…) and Patch(messages=…) need at=ADDRESS.")
        known = {tool.name for tool in agent.tools if isinstance(tool, Tool)}
        if missing := sorted(self.renewed - known):
            raise ConfigurationError(
                f"The patch has a tool {missing[0]!r}, which the agent does not have; it has "
                f"{', '.join(sorted(known)) or 'none'}."
            )
        if at is not None and recorded.start(at) is None and recorded.asked(at) is None:
            close = difflib.get_close_matches(at, recorded.starts, n=3, cutoff=0)
            raise ConfigurationError(
                f"The trace has nothing at {at!r}; the closest: {', '.join(close) or 'none'}."
            )
        self.results: dict[str, Any] = {}
        self.decided: dict[str, Decision] = {}
        self._inside: defaultdict[str, list[JsonObject]] | None = None
        if at is not None and patch.result is not None:
            self._answer(at, patch.result)
        for index, message in patch.messages.items():
            self._replace(index, message)

    @cached_property
    def calls(self) -> SameCalls:
        """The recorded calls by what they ask, for those that may not run."""
        return SameCalls(self.recorded)

    def handler(self, scope: Scope, program: Program[Any]) -> Handler:
        """Make the handlers of one agent of the fork."""
        handler = _ForkHandler(self, performing(scope, program), scope)
        return observed(scope, recorded(scope, handler))

    def changed(self, agent: AgentConfig) -> AgentConfig:
        """The agent of the fork."""
        changes: dict[str, Any] = {}
        if self.patch.instructions is not None:
            changes["instructions"] = self.patch.instructions
        if self.patch.model is not None:
            changes["model"] = self.patch.model
        if self.patch.tools:
            renewed = {tool.name: tool for tool in self.patch.tools}
            changes["tools"] = [
                renewed.get(one.name, one) if isinstance(one, Tool) else one for one in agent.tools
            ]
        return agent.with_(**changes) if changes else agent

    def input(self) -> tuple[Message, ...]:
        """The messages that the fork begins with."""
        if self.patch.prompt is None:
            return tuple(self._messages)
        return (*self._messages[: self.earlier], *prompt_messages(self.patch.prompt))

    def holds(self, effect: Effect) -> bool:
        """Whether what was recorded is still the answer to this effect."""
        if isinstance(effect, Compute) and self._is_patched(effect):
            return False
        if self.at is not None and (f"{effect.at}/").startswith(f"{self.at}/"):
            return False  # it is to be done again, or stands below what is
        if self.at is not None and self.at.startswith(f"{effect.at}/"):
            # Above the place: a model's answer holds, a tool is run to get there.
            return isinstance(effect, ModelCall)
        if isinstance(effect, ToolInvocation) and effect.call.name in self.renewed:
            return self.early(effect)
        if not self.recorded.finished(effect):
            return False
        return self.early(effect) or self.recorded.compare(effect) is None

    def inside(self, at: Address) -> Sequence[JsonObject]:
        """What the recording has inside an effect that is answered from it: its agents' steps."""
        if self._inside is None:
            self._inside = defaultdict(list)
            for event in self.recorded.trace.events:
                for up in self._insides(event):
                    self._inside[up].append(event)
        return self._inside.get(at, ())

    def _insides(self, event: JsonObject) -> Iterator[str]:
        """The effects inside which something happened."""
        at, kind = event.get("at", ""), event["event"]
        if kind in _DETAILS and self.recorded.start(at) is not None:
            yield at
        for up in ancestors(at):
            start = self.recorded.start(up)
            if start is not None and (start["event"] != "model.start" or kind in _ATTEMPTS):
                yield up

    def _is_patched(self, effect: Compute) -> bool:
        """Whether a function of the agent gives what the patch has something else for."""
        root = self.root
        if effect.at == f"{root}/instructions":
            return self.patch.instructions is not None
        ours = effect.at.parent.parent == root and effect.name == "settings"
        return ours and self.patch.settings is not None and not self.early(effect)

    def early(self, effect: Effect) -> bool:
        """Whether it stands before the place of the fork, so that nothing of it may change.

        Of two agents that a tool asks, nobody knows which needs the other's answer: what
        they do is compared.
        """
        if self.at is None:
            return False
        ours, theirs = place(effect.at), place(self.at)
        for one, other in zip(ours, theirs, strict=False):
            if one != other:
                return one < other and not (one[2] and other[2])
        return len(ours) < len(theirs)

    def _replace(self, index: int, message: str | Message | JsonObject) -> None:
        """Change what a message of the request comes from, so that the history has it, too."""
        start = self.recorded.start(self.at or "")
        if start is None or start["event"] != "model.start":
            raise ConfigurationError(
                f"Patch(messages=…) needs the address of a model call; {self.at!r} is none."
            )
        names = self.recorded.trace.effects[start["at"]].messages
        if not 0 <= index < len(names):
            raise ConfigurationError(
                f"Patch(messages={{{index}: …}}): the request at {self.at} has {len(names)} "
                "messages, counted from 0."
            )
        if (origin := self._origin(names, index)) is not None:
            self._answer(origin, message)
            return
        given = self._input_names()
        head = next((n for n, name in enumerate(names) if name in given[:1]), 0)
        if not 0 <= index - head < len(given) or names[index] != given[index - head]:
            raise ConfigurationError(
                f"Patch(messages={{{index}: …}}): message {index} is neither what an effect "
                "came to nor part of the input. Use Patch(instructions=…) for the system "
                "message; what the loop itself says follows from what it answers."
            )
        old = self._messages[index - head]
        self._messages[index - head] = (
            UserMessage(content=message)
            if isinstance(message, str) and isinstance(old, UserMessage)
            else _message(message)
        )

    def _answer(self, at: str, given: Any) -> None:
        """What the effect at an address comes to, as its outcome needs it.

        Raises:
            ConfigurationError: Such an effect cannot come to that.
        """
        start = self.recorded.start(at)
        asked = self.recorded.asked(at) is not None
        if not asked if isinstance(given, Decision) else start is None:
            what = "asks for" if asked else "does not ask for"
            raise ConfigurationError(f"What is at {at} {what} a Decision; given is {given!r}.")
        if isinstance(given, Decision):
            self.decided[at] = given
            return
        if start is not None and start["event"] == "model.start":
            given = AssistantMessage(content=given) if isinstance(given, str) else _message(given)
            if not isinstance(given, AssistantMessage):
                raise ConfigurationError(
                    f"At {at} a model answers: the patch needs text or an assistant message, "
                    f"not {given!r}."
                )
        elif start is not None and start["event"] == "tool.start":
            given = _content(given)
        self.results[at] = given

    def _input_names(self) -> list[str]:
        trace = self.recorded.trace
        return trace.blob(trace.agent_start["input"])["messages"]

    def _origin(self, names: Sequence[str], index: int) -> str | None:
        """The effect that this message came from: of equal ones, the one in its place."""
        found = defaultdict[str, list[str]](list)
        agent = Address(self.at or "").parent
        for at in sorted(self.recorded.starts, key=place):
            end = self.recorded.end(at) or {}
            steps = Address(at).parent, Address(at).parent.parent
            if "message" in end and agent in steps:
                found[end["message"]].append(at)
        number = names[: index + 1].count(names[index])
        places = found[names[index]]
        return places[number - 1] if number <= len(places) else None


_DETAILS = ("model.chunks", "tool.chunks", "det", "warning", "log")
_ATTEMPTS = ("http.start", "http.end")


_PART = re.compile(r"([mt])([0-9]+)")


def place(at: str) -> list[tuple[int, int, str]]:
    """Where an address stands among the others: the order of causes, not of time."""
    found: list[tuple[int, int, str]] = []
    for part in at.split("/")[2:]:
        numbered = _PART.fullmatch(part)
        if numbered:
            found += [(1 if numbered[1] == "m" else 2, int(numbered[2]), "")]
        else:
            # Instructions, settings and toolsets come before what is asked with them.
            early = part in ("instructions", "settings", "toolsets", "compact", "approval")
            found.append((0 if early else 1, 0, part))
    return found


class _ForkHandler:
    """Answers from the recording what still holds, and has the rest done."""

    def __init__(self, plan: _Plan, performing: Handler, scope: Scope) -> None:
        self._plan = plan
        self._performing = performing
        self._scope = scope

    async def perform(self, effect: Effect) -> Outcome:
        """Answer one effect."""
        plan, recorded = self._plan, self._plan.recorded
        if isinstance(effect, Pause):
            return await self._decide(effect)
        if effect.at in plan.results:
            return _patched(effect, plan.results[effect.at])
        if not plan.holds(effect):
            if recorded.compare(effect) is not None:
                recorded.forget(effect.at)
            return await self._do(effect)
        # Of the requests of an agent with other instructions nothing can be said.
        told = plan.patch.instructions is not None and effect.at.parent == plan.root
        if found := recorded.compare(effect, "outcome" if told else "structural"):
            return stopped(found)
        if self._scope.recorder is not None:
            self._scope.recorder.copy(recorded.trace, plan.inside(effect.at))
        outcome = recorded.outcome(effect)
        if isinstance(outcome, ModelResponse):
            self._scope.meter.used += outcome.usage
        return outcome

    async def _do(self, effect: Effect) -> Outcome:
        if (stop := without_secrets(effect)) is not None:
            return stop
        if not isinstance(effect, ToolInvocation) or self._runs(effect):
            return await self._performing.perform(effect)
        answer = self._plan.calls.answer(effect)
        return stopped(answer) if isinstance(answer, ReplayDivergence) else answer

    def _runs(self, call: ToolInvocation) -> bool:
        plan = self._plan
        if call.call.name in plan.renewed or plan.tools == "live":
            return True
        decided = plan.decided.get(call.at)
        if decided is not None and decided.kind in ("approve", "edit"):
            return plan.tools != "recorded"
        on_the_way = plan.at is not None and plan.at.startswith(f"{call.at}/")
        return on_the_way or (plan.tools == "by_effect" and call.effect == "read")

    async def _decide(self, pause: Pause) -> Outcome:
        """What was decided then, if the same was asked; somebody has to decide about the rest."""
        known: dict[Address, Decision | None] = {}
        for pending in pause.pending:
            again = self._plan.recorded.asks_again(pending)
            recorded = self._plan.recorded.decision(pending.at) if again else None
            known[pending.at] = self._plan.decided.get(pending.at) or recorded
        return await decide(pause, known, self._performing)


def _patched(effect: Effect, given: Any) -> Outcome:
    """What the patch says that an effect comes to."""
    match effect:
        case ToolInvocation():
            return outcome_of(effect, "ok", given)
        case ModelCall():
            finish = "tool_calls" if given.tool_calls else "stop"
            return ModelResponse(message=given, finish=finish)
        case _:
            return Value(value=given)


def _content(given: Any) -> Any:
    """The content of a tool's answer, from text, a message, its JSON, or any value."""
    if isinstance(given, str):
        return given
    if is_object(given) and "role" in given:
        given = message_from_json(given)
    content = getattr(given, "content", None)
    try:
        return content if content is not None else json.dumps(given, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"Patch(result={given!r}): a tool answers with text, a message or JSON: {error}."
        ) from error


def _message(given: Any) -> Message:
    if is_object(given):
        return message_from_json(given)
    if not hasattr(given, "to_json"):
        raise ConfigurationError(f"Expected a message or its JSON, not {given!r}.")
    return cast("Message", given)
