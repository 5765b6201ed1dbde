"""Fork: a recorded run again with something changed, and live from there on.

A fork works like an incremental build. Every effect has an address and a hash of what it
was asked; where both are as they were, the recorded outcome still holds, and where not, the
effect depends on the change and is performed.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from agentkit.core.effects import (
    Address,
    Compute,
    Decision,
    Effect,
    ModelCall,
    Outcome,
    PendingCall,
    ToolInvocation,
    Value,
    ancestors,
)
from agentkit.errors import ConfigurationError, safe_repr
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
from agentkit.redaction import Redactor
from agentkit.replay.answers import Recording
from agentkit.replay.engine import Choice, Do, Engine, Plan
from agentkit.replay.replay import check_live, check_names
from agentkit.runtime.assemble import assemble, program_hash
from agentkit.runtime.config import AgentConfig
from agentkit.runtime.driver import Driver
from agentkit.runtime.request import (
    Prompt,
    check_credentials,
    check_not_intercepted,
    prompt_messages,
)
from agentkit.runtime.result import RunResult
from agentkit.runtime.scope import Approver, Scope, guarded, new_run_id
from agentkit.runtime.tool_call import outcome_of
from agentkit.settings import ChatSettings, asked_of
from agentkit.tools.tool import Tool
from agentkit.trace.check import check_replayable, recorded_options
from agentkit.trace.compare import Strictness
from agentkit.trace.effects import RecordedEffect
from agentkit.trace.naming import packed
from agentkit.trace.open import TraceTo, open_recorder
from agentkit.trace.reader import Trace

Instructions: TypeAlias = str | Callable[..., Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """What a fork changes, as `Agent.fork` takes it. What is None or empty stays as it was."""

    prompt: Prompt = None
    instructions: Instructions | None = None
    messages: Mapping[int, str | Message | JsonObject] = field(default_factory=dict[int, Any])
    result: Any = None
    answers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    settings: ChatSettings | None = None
    model: str | Model | None = None
    tools: Sequence[Tool[..., Any]] = ()

    def __post_init__(self) -> None:
        """Check the values before anything is read."""
        settings: Any = self.settings
        tools: Sequence[Any] = self.tools
        indexed = all(type(one) is int for one in self.messages)
        named = isinstance(self.answers, Mapping) and all(  # pyright: ignore[reportUnnecessaryIsInstance]  # not everybody checks types
            isinstance(one, str)  # pyright: ignore[reportUnnecessaryIsInstance]  # as above
            for one in self.answers
        )
        _check(
            ("settings", settings, isinstance(settings, ChatSettings | None), "ChatSettings(…)"),
            ("answers", self.answers, named, "{tool name or address: answer}"),
            ("messages", self.messages, indexed, "{index: message}"),
            ("tools", tools, all(isinstance(one, Tool) for one in tools), "a list of tools"),
        )

    def to_json(self) -> JsonObject:
        """Return what the fork's trace says of the patch."""
        model, instructions = self.model, self.instructions
        settings = self.settings.to_params() if self.settings is not None else None
        fields: JsonObject = {
            "prompt": self.prompt,
            "instructions": "(computed)" if callable(instructions) else instructions,
            "messages": {str(index): one for index, one in self.messages.items()} or None,
            "result": self.result,
            "answers": dict(self.answers) or None,
            "settings": settings,
            "model": model if model is None or isinstance(model, str) else model.name,
            "tools": [tool.name for tool in self.tools] or None,
        }
        return {name: value for name, value in fields.items() if value is not None}


async def fork(
    config: AgentConfig,
    trace: Trace | str | os.PathLike[str],
    *,
    at: str | None,
    patch: Patch,
    live: Collection[str] = (),
    deps: object = None,
    approver: Approver | None = None,
    on_event: Emit = ignore,
    record: TraceTo = True,
    redact: Redactor | None = None,
) -> RunResult[Any]:
    """Fork a run; see `Agent.fork`."""
    check_not_intercepted("Agent.fork")
    where: Any = at
    fits = isinstance(where, str | None)
    _check(("at", at, fits, "an address such as '/agent/m0/t1'"))
    check_live(live)
    recording = trace if isinstance(trace, Trace) else Trace.load(trace)
    check_replayable(recording)
    listener = guarded(on_event)
    redact = redact or config.redact
    recorded = Recording(recording, redact)
    recorded.check_agent(f"/{config.name}")
    plan = _Fork(recorded, config, at, patch, live)
    check_credentials(recording.options(), patch.settings)
    settings, limits = recorded_options(recording)
    if patch.settings is not None:
        settings = settings.merge(patch.settings) if settings is not None else patch.settings
    program = assemble(plan.changed(config), settings, limits)
    check_names(live, program, recorded)
    check_names(patch.answers, program, recorded, option="answers=")
    program.model.check()
    program.config.check_deps(deps)
    messages, earlier = plan.input(), plan.earlier
    run = new_run_id()
    recorder, to = open_recorder(
        record,
        run=run,
        program=lambda: program_hash(program, redact),
        redact=redact,
        capture=config.capture,
        fork={"run": recording.run, "at": at, "patch": packed(patch.to_json(), redact)},
    )
    engine = Engine(recorded, plan)
    scope = Scope(
        run=run,
        handler=engine.handler,
        limits=program.spec.limits,
        deps=deps,
        listener=listener,
        recorder=recorder,
        trace=to,
        redact=redact,
        approver=approver,
        recorded=engine,
        asked=asked_of(settings, limits),
    )
    driver = Driver(scope, program, messages, earlier=earlier)
    return engine.concluded(driver, await driver.execute())


def _check(*arguments: tuple[str, Any, bool, str]) -> None:
    """Refuse the first that does not fit: name, value, whether it fits, what is expected."""
    for name, value, fits, expected in arguments:
        if not fits:
            raise ConfigurationError(f"{name}={safe_repr(value)}: expected {expected}.")


class _Fork(Plan):
    """What of a recorded run still holds when something is changed."""

    def __init__(
        self,
        recorded: Recording,
        config: AgentConfig,
        at: str | None,
        patch: Patch,
        live: Collection[str],
    ) -> None:
        self._recorded = recorded
        self._patch = patch
        self._at = at
        self._live = live
        self._renewed = {tool.name for tool in patch.tools}
        self._root = f"/{config.name}"
        messages, self.earlier = recorded.trace.input()
        self._messages = list(messages)
        self._results: dict[str, Any] = {}
        self._decisions: dict[str, Decision] = {}
        self._named: dict[str, Any] = {}
        self._check(config)
        self._check_live()
        if at is not None and patch.result is not None:
            self._answer(at, patch.result)
        for name, answer in patch.answers.items():
            self._answer_named(name, answer)
        # What a sub-agent called is reached by running the tool that it was.
        changed = {*live, *patch.answers}
        self._around = {
            up
            for one in recorded.effects.values()
            if not changed.isdisjoint({one.at, one.name if one.kind == "tool" else one.at})
            for up in ancestors(one.at)
        }
        for index, message in patch.messages.items():
            self._replace(index, message)

    def _check(self, config: AgentConfig) -> None:
        """Refuse a patch that changes nothing, or that does not fit the agent or the trace."""
        at, patch = self._at, self._patch
        if at is None and patch == Patch() and not self._live:
            raise ConfigurationError(
                "The fork changes nothing: give at=, live= or answers=, or say what is different."
            )
        if at is None and (patch.result is not None or patch.messages):
            raise ConfigurationError("result= and messages= need at=ADDRESS.")
        tools = {tool.name: tool for tool in config.fixed_tools}
        if missing := sorted(self._renewed - tools.keys()):
            raise ConfigurationError(
                f"tools= has a tool {missing[0]!r}, which the agent does not have; it has "
                f"{', '.join(sorted(tools)) or 'none'}."
            )
        if at is None:
            return
        known = self._check_address(at)
        if patch != Patch() or known.kind != "tool":
            return
        name = known.name
        if (decision := known.decision) is not None and decision.kind in ("deny", "answer"):
            was = "denied" if decision.kind == "deny" else "answered from outside"
            raise ConfigurationError(
                f"{name} at {at} would not be run: it was {was}, and nothing else is changed. "
                "result=Decision.approve() lets it run."
            )
        if not known.begun:
            return
        effect = tools[name].effect if name in tools else known.effect
        if effect != "read" and not {name, at} & {*self._live}:
            raise ConfigurationError(
                f"{name} at {at} would not be run: it may write, and nothing else is changed. "
                f"live=[{name!r}] lets it run, and result= replaces its result."
            )

    def _check_live(self) -> None:
        """Refuse addresses in `live=` at which nothing would run, and contradictions."""
        live, answers, at = {*self._live}, self._patch.answers, self._at
        if both := sorted(live & answers.keys()):
            raise ConfigurationError(
                f"{both[0]!r} is in live= and in answers=: it either runs or is answered."
            )
        if self._patch.result is not None and at in answers:
            raise ConfigurationError(f"result= and answers= both have an outcome for {at}.")
        addresses = [one for one in self._live if one.startswith("/")]
        alone = at is None and self._patch == Patch() and len(addresses) == len(live)
        for one in addresses:
            known = self._recorded.effects.get(one)
            if known is None:
                if alone:
                    self._check_address(one)
                continue  # it may be asked for in the fork
            if known.kind != "tool":
                kind = "model call" if known.kind == "model" else "function"
                raise ConfigurationError(
                    f"live= has {one!r}, which is a {kind}, and lets calls of tools run. "
                    f"at={one!r} does it again."
                )
            if (kept := known.decision) is not None and kept.kind in ("deny", "answer"):
                was = "denied" if kept.kind == "deny" else "answered from outside"
                raise ConfigurationError(
                    f"{known.name} at {one} would not be run: it was {was}. "
                    f"answers={{{one!r}: Decision.approve()}} lets it run."
                )
            if self._is_early(known.at) and not f"{at}/".startswith(f"{one}/"):
                raise ConfigurationError(
                    f"live= has {one!r}, which stands before at={at!r} and so stays as recorded. "
                    "Leave at= out, or fork at an address before it."
                )

    def _check_address(self, at: str) -> RecordedEffect:
        effects = self._recorded.effects
        if (known := effects.get(at)) is not None:
            return known
        close = ", ".join(difflib.get_close_matches(at, effects, n=3, cutoff=0))
        raise ConfigurationError(
            f"The trace has nothing at {at!r}; the closest: {close or 'none'}."
        )

    def choose(self, effect: Effect) -> Choice:
        if effect.at in self._results:
            return _patched(effect, self._results[effect.at])
        if isinstance(effect, ToolInvocation) and not self._is_early(effect.at):
            if self._is_live(effect):
                return Do.PERFORM
            given = self._named.get(effect.call.name)
            if given is not None and not isinstance(given, Decision):
                return _patched(effect, given)
            if effect.at in self._around:
                return Do.PERFORM if self._runs(effect) else Do.HOLD_BACK
        if self._holds(effect):
            return Do.ANSWER
        if not isinstance(effect, ToolInvocation) or self._runs(effect):
            return Do.PERFORM
        return Do.HOLD_BACK

    def strictness(self, effect: Effect) -> Strictness | None:
        # Of the requests of an agent with other instructions nothing can be said.
        other = self._patch.instructions is not None and effect.at.parent == self._root
        return None if other else "structural"

    def decision(self, pending: PendingCall) -> Decision | None:
        given = self._decision_about(pending)
        if given is not None or pending.kind == "question" or self._is_early(pending.at):
            return given
        named = None if self._is_live(pending) else self._named.get(pending.call.name)
        return Decision.answer(named) if isinstance(named, str) else None

    def changed(self, config: AgentConfig) -> AgentConfig:
        """Return the agent of the fork."""
        changes: dict[str, Any] = {}
        if self._patch.instructions is not None:
            changes["instructions"] = self._patch.instructions
        if self._patch.model is not None:
            changes["model"] = self._patch.model
        if self._patch.tools:
            renewed = {tool.name: tool for tool in self._patch.tools}
            changes["tools"] = [
                renewed.get(one.name, one) if isinstance(one, Tool) else one for one in config.tools
            ]
        return config.with_(**changes) if changes else config

    def input(self) -> tuple[Message, ...]:
        """Return the messages that the fork begins with."""
        if self._patch.prompt is None:
            return tuple(self._messages)
        return (*self._messages[: self.earlier], *prompt_messages(self._patch.prompt))

    def _holds(self, effect: Effect) -> bool:
        """Return whether what was recorded is still the answer to this effect."""
        if isinstance(effect, Compute) and self._is_patched(effect):
            return False
        if self._at is not None and f"{effect.at}/".startswith(f"{self._at}/"):
            return False  # it is to be done again, or stands below what is
        if self._at is not None and self._at.startswith(f"{effect.at}/"):
            # Above the place: a model's answer holds, a tool is run to get there.
            return isinstance(effect, ModelCall)
        if not self._recorded.finished(effect):
            return False
        if isinstance(effect, ToolInvocation) and effect.call.name in self._renewed:
            return self._is_early(effect.at)
        return self._is_early(effect.at) or self._recorded.compare(effect) is None

    def _runs(self, call: ToolInvocation) -> bool:
        """Return whether a call that has no recorded answer may run."""
        decision = self._decision_about(call)
        return (
            call.effect == "read"
            or call.call.name in self._renewed
            or self._is_live(call)
            or (decision is not None and decision.kind in ("approve", "edit"))
            or (self._at is not None and self._at.startswith(f"{call.at}/"))  # on the way
        )

    def _is_live(self, call: ToolInvocation | PendingCall) -> bool:
        return not {call.call.name, call.at}.isdisjoint(self._live)

    def _decision_about(self, call: ToolInvocation | PendingCall) -> Decision | None:
        """Return the decision of the patch about a call, by its address or its tool."""
        named = None if self._is_early(call.at) else self._named.get(call.call.name)
        return self._decisions.get(call.at) or (named if isinstance(named, Decision) else None)

    def _is_patched(self, effect: Compute) -> bool:
        """Return whether the patch replaces what this function of the agent gives."""
        if effect.at == f"{self._root}/instructions":
            return self._patch.instructions is not None
        ours = effect.at.parent.parent == self._root and effect.name == "settings"
        return ours and self._patch.settings is not None and not self._is_early(effect.at)

    def _is_early(self, at: str) -> bool:
        """Return whether an address stands before the place of the fork, so that it may not change.

        Of two agents that a tool asks, nobody knows which needs the other's answer: what
        they do is compared.
        """
        if self._at is None:
            return False
        ours, theirs = place(at), place(self._at)
        for one, other in zip(ours, theirs, strict=False):
            if one != other:
                return one < other and not (one[2] and other[2])
        return len(ours) < len(theirs)

    def _replace(self, index: int, message: str | Message | JsonObject) -> None:
        """Change what a message of the request comes from, so that the history has it, too."""
        known = self._recorded.effects.get(self._at or "")
        if known is None or known.kind != "model":
            raise ConfigurationError(
                f"messages= needs the address of a model call; {self._at!r} is not one."
            )
        names = known.messages
        if not 0 <= index < len(names):
            raise ConfigurationError(
                f"messages={{{index}: …}}: the request at {self._at} has {len(names)} "
                "messages, counted from 0."
            )
        if (origin := self._origin(names, index)) is not None:
            self._answer(origin, message)
            return
        given = self._input_names()
        head = next((n for n, name in enumerate(names) if name in given[:1]), 0)
        if not 0 <= index - head < len(given) or names[index] != given[index - head]:
            raise ConfigurationError(
                f"messages={{{index}: …}}: message {index} is neither what an effect "
                "came to nor part of the input. Use instructions= for the system "
                "message; what the loop itself says follows from what it answers."
            )
        old = self._messages[index - head]
        self._messages[index - head] = (
            UserMessage(content=message)
            if isinstance(message, str) and isinstance(old, UserMessage)
            else _message(message)
        )

    def _answer_named(self, name: str, answer: Any) -> None:
        """Keep what `answers=` has for a tool, or for the effect at an address."""
        option = f"answers={{{name!r}: …}}"
        if not name.startswith("/"):
            decides = isinstance(answer, Decision)
            self._named[name] = answer if decides else _content(answer, option)
            return
        self._check_address(name)
        waits = self._recorded.pending(name) is not None and self._recorded.begun(name) is None
        if waits and not isinstance(answer, Decision):
            content = _content(answer, option)
            answer = Decision.answer(content) if isinstance(content, str) else answer
        self._answer(name, answer, option)

    def _answer(self, at: str, given: Any, option: str = "result=") -> None:
        """Keep the outcome of the effect at an address, as it needs it.

        Raises:
            ConfigurationError: Such an effect cannot have this outcome.
        """
        known = self._recorded.begun(at)
        waits = self._recorded.pending(at) is not None
        skipped = self._recorded.skipped(at)
        if skipped is not None and not waits:
            raise ConfigurationError(
                f"No tool ran the call at {at} ({skipped}), so it has no result to replace. "
                f"Fork at {Address(at).parent}, whose answer asks for it."
            )
        if not waits if isinstance(given, Decision) else known is None:
            what = "asks for" if waits else "does not ask for"
            raise ConfigurationError(f"What is at {at} {what} a Decision; given is {given!r}.")
        if isinstance(given, Decision):
            self._decisions[at] = given
            return
        if known is not None and known.kind == "model":
            given = AssistantMessage(content=given) if isinstance(given, str) else _message(given)
            if not isinstance(given, AssistantMessage):
                raise ConfigurationError(
                    f"At {at} a model answers: {option} needs text or an assistant message, "
                    f"not {given!r}."
                )
        elif known is not None and known.kind == "tool":
            given = _content(given, option)
        self._results[at] = given

    def _input_names(self) -> list[str]:
        trace = self._recorded.trace
        return trace.blob(trace.agent_start["input"])["messages"]

    def _origin(self, names: Sequence[str], index: int) -> str | None:
        """Return the effect that this message came from: of equal ones, the one in its place."""
        found = defaultdict[str, list[str]](list)
        agent = Address(self._at or "").parent
        for at, one in sorted(self._recorded.effects.items(), key=lambda item: place(item[0])):
            if agent in (one.at.parent, one.at.parent.parent) and one.message is not None:
                found[one.message].append(at)
        number = names[: index + 1].count(names[index])
        places = found[names[index]]
        return places[number - 1] if number <= len(places) else None


_PART = re.compile(r"([mt])([0-9]+)")


def place(at: str) -> list[tuple[int, int, str]]:
    """Return where an address stands among the others: the order of causes, not of time."""
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


def _patched(effect: Effect, given: Any) -> Outcome:
    """Return the outcome that the patch gives an effect."""
    match effect:
        case ToolInvocation():
            return outcome_of(effect, "ok", given)
        case ModelCall():
            finish = "tool_calls" if given.tool_calls else "stop"
            return ModelResponse(message=given, finish=finish)
        case _:
            return Value(value=given, recorded=True)


def _content(given: Any, option: str = "result=") -> Any:
    """Return the content of a tool's answer: of text, a message, its JSON, or any value."""
    if isinstance(given, str):
        return given
    if is_object(given) and "role" in given:
        given = message_from_json(given)
    content = getattr(given, "content", None)
    try:
        return content if content is not None else json.dumps(given, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{option} {safe_repr(given)}: a tool answers with text, a message or JSON: {error}."
        ) from error


def _message(given: Any) -> Message:
    if is_object(given):
        return message_from_json(given)
    if not hasattr(given, "to_json"):
        raise ConfigurationError(f"Expected a message or its JSON, not {safe_repr(given)}.")
    return cast("Message", given)
