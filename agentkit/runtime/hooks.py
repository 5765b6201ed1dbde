"""Who answers the runs of this process instead of their models: a test's recordings.

Private, and the only thing in agentkit that a whole process shares: the pytest plugin puts
an interceptor here while a marked test runs. A context variable would not do. It does not
reach the tasks and threads that a fixture has started before, such as the runner of an
async test or the portal of a web framework's test client; and pytest runs one test at a
time in a process. Whoever wants to replay a run in a program calls `agentkit.replay.replay`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from agentkit.events import Emit
from agentkit.messages import Message
from agentkit.redaction import Redactor
from agentkit.runtime.driver import Driver, Program
from agentkit.runtime.options import TraceTo
from agentkit.runtime.result import Origin
from agentkit.runtime.run import OpenDriver

__all__ = ["Beginning", "Interceptor", "OpenLive", "intercepted_by", "interceptor"]


@dataclass(frozen=True, slots=True)
class Beginning:
    """A run that is about to begin: checked, and nothing has happened yet.

    Attributes:
        program: The agent, with the settings and limits of this run.
        messages: What it begins with; the first `earlier` are history.
        redact: Takes secrets out of what is recorded of it.
        deps: Given to its tools.
    """

    program: Program[Any]
    messages: tuple[Message, ...]
    earlier: int
    redact: Redactor
    deps: object = None


class OpenLive(Protocol):
    """Begins the run for real. What is not given is as the run itself has it."""

    def __call__(
        self,
        listener: Emit,
        *,
        program: Program[Any] = ...,
        to: TraceTo = ...,
        redact: Redactor = ...,
    ) -> tuple[Driver[Any], Origin]:
        """Open its trace in `to` and make its driver."""
        ...


Interceptor: TypeAlias = Callable[[Beginning, OpenLive], OpenDriver[Any]]
"""Says what happens instead of a run. To go live it checks the model and calls `OpenLive`."""

_interceptors: list[Interceptor] = []


@contextmanager
def intercepted_by(intercept: Interceptor) -> Generator[None, None, None]:
    """Hand every run that begins in this process to `intercept`; the innermost block counts."""
    _interceptors.append(intercept)
    try:
        yield
    finally:
        _interceptors.remove(intercept)


def interceptor() -> Interceptor | None:
    """Who is asked now; None outside of tests."""
    return _interceptors[-1] if _interceptors else None
