"""Between a run's trace and the application's own log, both ways.

`use_structlog` shows what happens in runs in the application's log; `to_trace` puts
what the application logs inside a run into that run's trace. Both use structlog as
the application has configured it, at the moment of each line, and configure nothing.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, TypeAlias, cast

from agentkit.core.effects import Address
from agentkit.messages import JsonObject
from agentkit.trace.file import Tap
from agentkit.trace.reader import Trace

_diagnostics = logging.getLogger("agentkit")
_WIDTH = 200
"""Characters of a field in the application's log."""
_UNSEEN = ("blob", "model.chunks", "log")
"""Contents, pieces of contents, and what comes from the application's log itself."""
_NAMED = {"name": "function", "message": "blob"}
"""Fields that the standard library's log records have too, and what they are called instead."""


class Follower(Protocol):
    """Follows one run while it goes on."""

    def line(self, line: bytes) -> None:
        """Take a line of its trace."""
        ...

    def enter(self, at: Address) -> Callable[[], None] | None:
        """Prepare the context in which an effect is performed; return what restores it."""
        ...


Begin: TypeAlias = Callable[[str, Trace | None, bool], Follower | None]
"""Follows a run, or does not: its id, the trace so far if it is resumed, and whether it is a
replay."""


class LogTaker(Protocol):
    """What the application's log needs of a run's recorder."""

    followers: Sequence[Follower]

    def log(self, at: Address, level: str, text: Any, data: Mapping[str, Any]) -> None:
        """Record a line of the application's log."""
        ...


_inside: ContextVar[tuple[LogTaker, Address] | None] = ContextVar("_inside", default=None)
_listening: ContextVar[bool] = ContextVar("_listening", default=False)
_following: list[Begin] = []
_unlog: Callable[[], None] | None = None
"""Ends the last `use_structlog`."""


def use_structlog(logger: Any = None) -> Callable[[], None]:
    """Show all runs that begin from now on in the application's own structlog log.

    Each event of a run becomes one line with its fields, cut to 200 characters each: at
    level `warning` if something failed, else `debug`. No contents of messages are among
    them. While a tool or another function of yours runs, `run` and `at` are bound in
    `structlog.contextvars`, so that your own lines say where they come from.

    Example:
        >>> from agentkit import use_structlog
        >>> stop = use_structlog()
        >>> stop()

    Args:
        logger: Takes the lines; `structlog.get_logger()` by default, as configured then.

    Returns:
        A function that ends it, for the runs that begin then.
    """
    global _unlog
    import structlog  # here: it takes 60 ms to import

    chosen: Callable[[], Any] = structlog.get_logger if logger is None else lambda: logger
    if _unlog is not None:  # one log has a run's lines once
        _unlog()
    _unlog = follow(lambda run, earlier, replayed: _Logged(run, chosen))
    return _unlog


def follow(begin: Begin) -> Callable[[], None]:
    """Follow all runs of this process that begin or are resumed from now on.

    Args:
        begin: Called where a run begins.

    Returns:
        A function that ends it, for the runs that begin then.
    """
    _following.append(begin)

    def stop() -> None:
        if begin in _following:
            _following.remove(begin)

    return stop


def followers(run: str, earlier: Trace | None = None, *, replayed: bool = False) -> list[Follower]:
    """Return those who follow a run that begins now, or that is resumed."""
    found = (begin(run, earlier, replayed) for begin in _following)
    return [one for one in found if one is not None]


def to_trace(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Copy what is logged inside a run to its trace, redacted: a structlog processor.

    Put it into the application's own configuration, before the processor that renders the
    event as text. Outside a run it does nothing.

        structlog.configure(processors=[..., to_trace, structlog.dev.ConsoleRenderer()])
    """
    now = _inside.get()
    if now is not None and not _listening.get():
        taker, at = now
        data = {name: value for name, value in event.items() if name not in ("event", "level")}
        if data.get("exc_info"):
            data["exc_info"] = _traced(data["exc_info"])
        taker.log(at, str(event.get("level", method)), event.get("event", ""), data)
    return event


class inside:
    """Context manager in which the application's code belongs to an effect."""

    __slots__ = ("_at", "_leave", "_taker", "_token")

    def __init__(self, taker: LogTaker, at: Address) -> None:
        self._taker, self._at = taker, at
        self._leave: Sequence[Callable[[], None] | None] = ()

    def __enter__(self) -> None:
        self._token = _inside.set((self._taker, self._at))
        if self._taker.followers:
            self._leave = [follower.enter(self._at) for follower in self._taker.followers]

    def __exit__(self, *_: object) -> None:
        try:
            _inside.reset(self._token)
        except ValueError:
            # A coroutine that was thrown away is closed in another context, where nothing is bound.
            return
        for leave in reversed(self._leave):
            if leave is not None:
                leave()


def in_effect() -> bool:
    """Return whether this code runs inside an effect of a recorded run."""
    return _inside.get() is not None


class _Logged:
    """Shows a run in the application's log."""

    def __init__(self, run: str, logger: Callable[[], Any]) -> None:
        self._run, self._logger = run, logger

    def line(self, line: bytes) -> None:
        """Show an event, with its fields."""
        event: JsonObject = json.loads(line)
        name = event.pop("event")
        if name not in _UNSEEN:
            fields = {_NAMED.get(key, key): _short(value) for key, value in event.items()}
            level = getattr(self._logger(), _level(name, event))
            level(name, **{**fields, "run": self._run})

    def enter(self, at: Address) -> Callable[[], None]:
        """Say in the application's own lines where they come from."""
        from structlog.contextvars import bind_contextvars, reset_contextvars

        bound = bind_contextvars(run=self._run, at=str(at))
        return lambda: reset_contextvars(**bound)


def tap(follower: Follower) -> Tap:
    """Return what gives a follower its lines: its first exception is logged, and ends that."""
    broken = False

    def take(line: bytes) -> None:
        nonlocal broken
        if broken:
            return
        token = _listening.set(True)
        try:
            follower.line(line)
        except Exception:
            broken = True
            _diagnostics.exception("A listener of the trace failed; it gets no more of this run")
        finally:
            _listening.reset(token)

    return take


def _level(name: str, event: JsonObject) -> str:
    failed = name == "warning" or event.get("status") in ("error", "timeout", "limit")
    return "warning" if failed or "error" in event else "debug"


def _short(value: Any) -> Any:
    """Return a field as at most one short line."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"


def _traced(raised: Any) -> str:
    """Return the traceback of what structlog takes as `exc_info`."""
    error: Any = cast("tuple[Any, ...]", raised)[1] if isinstance(raised, tuple) else raised
    if not isinstance(error, BaseException):
        error = sys.exc_info()[1]
    return "".join(traceback.format_exception(error)) if error is not None else ""
