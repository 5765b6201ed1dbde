"""One run of an agent: its call checked, and not begun.

`RunRequest.open` is where every run begins. The pytest plugin has the runs of a test
answered from their recordings there, through `intercepted_by`: private, and the only thing
in agentkit that a whole process shares. A context variable would not do. It does not reach
the tasks and threads that a fixture has started before, such as the runner of an async test
or the portal of a web framework's test client; and pytest runs one test at a time in a process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar, get_args

from agentkit import _checks
from agentkit._checks import Check
from agentkit.errors import ConfigurationError, safe_repr
from agentkit.events import Emit, ignore
from agentkit.history import check_history, repair_history
from agentkit.messages import Message, Part, UserMessage, messages_from_json
from agentkit.models import Model
from agentkit.redaction import PLACEHOLDER, Redactor
from agentkit.runtime.assemble import Program, assemble, program_hash
from agentkit.runtime.config import CHECKS, AgentConfig, check
from agentkit.runtime.driver import Driver
from agentkit.runtime.handlers import live
from agentkit.runtime.scope import LISTENER, Approver, Scope, guarded, new_run_id
from agentkit.settings import ChatSettings, Limits, asked_of
from agentkit.trace.naming import canonical
from agentkit.trace.open import TraceTo, open_recorder
from agentkit.trace.recorder import Durability
from agentkit.trace.schema import Capture

OutputT = TypeVar("OutputT")
Prompt: TypeAlias = str | Sequence[Part] | None
History: TypeAlias = Sequence[Message | Mapping[str, Any]] | None
_SHARED = ("settings", "limits", "trace", "capture", "durability", "redact")
RUN_CHECKS: Mapping[str, Check] = {
    **{name: CHECKS[name].or_none() for name in _SHARED},
    "model": CHECKS["model"].or_none(),
    "history": _checks.items("a list of messages, such as result.messages").or_none(),
    "repair": _checks.FLAG,
    "on_event": LISTENER,
    "approver": _checks.function("a function of a pending call").or_none(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest(Generic[OutputT]):
    """One run of an agent: checked, and not begun.

    Attributes:
        program: The agent, with the settings and limits of this run.
        messages: The conversation so far, ending with the prompt.
        earlier: How many of the messages are history from before.
        deps: Given to tools.
        trace: Where the run is recorded.
        capture: How much of it is recorded.
        durability: When what was recorded is brought to the disk.
        redact: Takes secrets out of what is recorded.
        stream: Models are to send their answers piece by piece.
        on_event: Gets the events.
        approver: Decides about calls that need approval.
        asked: What the run was given instead of the agent's, for the trace.
    """

    program: Program[OutputT]
    messages: tuple[Message, ...]
    earlier: int
    deps: object
    trace: TraceTo
    capture: Capture
    durability: Durability
    redact: Redactor
    stream: bool
    on_event: Emit
    approver: Approver | None
    asked: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of(
        cls,
        config: AgentConfig,
        prompt: Prompt,
        deps: object = None,
        history: History = (),
        repair: bool = False,
        settings: ChatSettings | None = None,
        limits: Limits | None = None,
        trace: TraceTo | None = None,
        capture: Capture | None = None,
        durability: Durability | None = None,
        redact: Redactor | None = None,
        on_event: Emit = ignore,
        approver: Approver | None = None,
        model: str | Model | None = None,
        *,
        stream: bool = False,
    ) -> RunRequest[Any]:
        """Check the arguments of `Agent.run`, and fill in what the agent says of them.

        Raises:
            ConfigurationError: An argument does not fit.
        """
        given = {name: value for name, value in locals().items() if name in RUN_CHECKS}
        check(given, RUN_CHECKS)
        if model is not None:
            config = config.for_model(model)
        earlier, prompted = opening(history, prompt, repair=repair)
        return cls(
            program=assemble(config, settings, limits),
            messages=(*earlier, *prompted),
            earlier=len(earlier),
            deps=deps,
            trace=_first(trace, config.trace, _environment_folder()),
            capture=capture or config.capture,
            durability=durability or config.durability,
            redact=redact or config.redact,
            stream=stream,
            on_event=on_event,
            approver=approver,
            asked=asked_of(settings, limits, None if model is None else config.resolved.name),
        )

    def open(self, listener: Emit | None = None) -> Driver[OutputT]:
        """Begin the run: open its trace and make its driver.

        Args:
            listener: Gets the events, instead of `on_event`.

        Raises:
            ConfigurationError: The model cannot be used, or tools need other deps.
            TraceError: The trace cannot be written, with durability "effects".
        """
        listener = listener or self.on_event
        return _interceptors[-1](self, listener) if _interceptors else self.open_live(listener)

    def open_live(self, listener: Emit) -> Driver[OutputT]:
        """Begin the run for real, whatever is intercepted."""
        self.program.model.check()
        self.program.config.check_deps(self.deps)
        run = new_run_id()
        recorder, recorded = open_recorder(
            self.trace,
            run=run,
            program=lambda: program_hash(self.program, self.redact),
            redact=self.redact,
            stream=self.stream,
            capture=self.capture,
            durability=self.durability,
        )
        scope = Scope(
            run=run,
            handler=live,
            limits=self.program.spec.limits,
            deps=self.deps,
            listener=guarded(listener),
            recorder=recorder,
            trace=recorded,
            redact=self.redact,
            stream=self.stream,
            approver=self.approver,
            asked=self.asked,
        )
        return Driver(scope, self.program, self.messages, earlier=self.earlier)


Interceptor: TypeAlias = Callable[[RunRequest[Any], Emit], Driver[Any]]
"""Begins a run in place of `RunRequest.open_live`, which it may call."""
_interceptors: list[Interceptor] = []


@contextmanager
def intercepted_by(intercept: Interceptor) -> Generator[None, None, None]:
    """Have every run that begins in this process opened by `intercept`; the innermost counts."""
    _interceptors.append(intercept)
    try:
        yield
    finally:
        _interceptors.remove(intercept)


def check_not_intercepted(what: str) -> None:
    """Refuse what no recording of a test answers, and what would so run for real.

    Raises:
        ConfigurationError: The runs of this process are answered from recordings.
    """
    if _interceptors:
        raise ConfigurationError(
            f"{what} asks models and runs tools, and this test is answered from recordings "
            "(agentkit_replay), which have no answer to it. Use it in a test without the marker, "
            "with a ScriptedModel."
        )


def _first(*choices: TraceTo | None) -> TraceTo:
    return next((choice for choice in choices if choice is not None), True)


def _environment_folder() -> str | None:
    """Return the folder of `AGENTKIT_TRACE_DIR`, whatever its name looks like."""
    folder = os.environ.get("AGENTKIT_TRACE_DIR")
    return f"{folder}{os.sep}" if folder else None


def check_credentials(options: Mapping[str, Any], settings: ChatSettings | None) -> None:
    """Check that what a run was given can be sent again, unless there are other settings.

    Raises:
        ConfigurationError: Credentials are among its settings.
    """
    text = canonical(options.get("settings", {})).decode(errors="replace")
    if settings is None and PLACEHOLDER.search(text):
        raise ConfigurationError(
            "The run was given settings that hold credentials, which its trace does not have. "
            "Give settings= as the run was given them."
        )


def check_model(options: Mapping[str, Any], model: str | Model | None) -> None:
    """Check that a run which was given a model goes on with one that is given again.

    Raises:
        ConfigurationError: It would go on with the agent's own, under another key.
    """
    if model is None and "model" in options:
        raise ConfigurationError(
            f"The run was given model={options['model']!r}, of which its trace has only the name. "
            "Give model= as the run was given it."
        )


def opening(
    history: History, prompt: Prompt, *, repair: bool = False
) -> tuple[tuple[Message, ...], tuple[UserMessage, ...]]:
    """Return the messages that a run begins with, checked: its history, and its prompt.

    Raises:
        ConfigurationError: There is neither, or one of them does not fit.
        InvalidHistory: No server would accept the history.
    """
    earlier = () if history is None else messages_from_json(history)
    prompted = prompt_messages(prompt)
    if repair:
        earlier = repair_history(earlier)
    check_history(earlier)
    if not (earlier or prompted):
        raise ConfigurationError("There is nothing to answer: give a prompt or a history.")
    return earlier, prompted


def prompt_messages(prompt: Prompt) -> tuple[UserMessage, ...]:
    """Return the prompt as messages: none if it is None.

    Raises:
        ConfigurationError: The prompt is empty, or neither text nor content parts.
    """
    if prompt is None:
        return ()
    parts = isinstance(prompt, (list, tuple)) and all(isinstance(p, get_args(Part)) for p in prompt)
    if not (isinstance(prompt, str) or parts):
        raise ConfigurationError(
            f"The prompt is {safe_repr(prompt)}: expected text, or a list of content parts."
        )
    content = prompt if isinstance(prompt, str) else tuple(prompt)
    if not content:
        raise ConfigurationError("The prompt is empty; give text, or None to go on from history.")
    return (UserMessage(content=content),)
