"""The recordings of one test: they answer its runs, or are made by them.

The pytest plugin puts a cassette between a test and every run inside it; see
`agentkit.runtime.request`. A run takes the recording that began with the same messages, and
where none did, the first that is left: then the replay names what differs.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from agentkit.errors import AgentKitError, ReplayDivergence, TraceError
from agentkit.events import Emit
from agentkit.messages import Message
from agentkit.redaction import PLACEHOLDER, Redactor
from agentkit.replay.engine import Engine
from agentkit.replay.replay import ReplayOptions, prepared
from agentkit.runtime.driver import Driver
from agentkit.runtime.request import RunRequest
from agentkit.trace.check import check_replayable
from agentkit.trace.compare import Strictness
from agentkit.trace.logs import in_effect
from agentkit.trace.naming import Namer, canonical, without_ids
from agentkit.trace.reader import Trace

Record: TypeAlias = Literal["none", "missing", "all"]
"""Which recordings are made: none, those whose file is missing, or all of them anew."""


@dataclass(slots=True)
class _Replayed:
    """A recording, and the run that took it."""

    path: Path
    trace: Trace
    driver: Driver[Any] | None = None
    engine: Engine | None = None

    @property
    def at(self) -> str:
        """The address of its agent."""
        return self.trace.agent_start["at"]

    def divergence(self, *, checked: bool = False) -> ReplayDivergence | None:
        """Return the divergence that has ended the run, or that its end is one."""
        if self.driver is None or self.engine is None:
            return None
        if (finish := self.driver.finish) is None:
            return self.engine.left_over() if checked else None
        if checked:
            finish = self.engine.checked(finish)
        error = finish.error.to_error() if finish.error is not None else None
        return error if isinstance(error, ReplayDivergence) else None


@dataclass(slots=True)
class _Recorded:
    """A recording that is made, and the lines of its run, once that has begun."""

    path: Path
    lines: Callable[[], list[bytes]] | None = None

    def whole(self) -> list[bytes]:
        """Return the lines of a run that has ended."""
        if self.lines is None:
            raise TraceError(
                f"The test makes no run for {str(self.path)!r}: its marker names too many files.",
                path=str(self.path),
            )
        lines = self.lines()
        trace = Trace([*lines])
        check_replayable(trace)
        if trace.status == "interrupted":
            raise TraceError(
                f"The test ends before the run of {str(self.path)!r} does: nothing was recorded.",
                path=str(self.path),
            )
        return lines


class Cassette:
    """The recordings of one test.

    Args:
        paths: Their files, one for each run, in the order in which the runs begin.
        record: Which of them are made anew.
        advice: How they are recorded, for messages.
        live: The names of tools that run, and whose results have to be the recorded ones.
        strictness: What has to be the same.
        kept: Those that another test has just made, and that are not made anew.

    Raises:
        TraceError: A file is missing that is not to be made, or cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        record: Record = "none",
        *,
        advice: str,
        live: Collection[str] = (),
        strictness: Strictness = "exact",
        kept: Collection[Path] = (),
    ) -> None:
        anew = {*paths} - {*kept} if record == "all" else set[Path]()
        made = {path for path in paths if path in anew or not path.exists()}
        if made and record == "none":
            absent = ", ".join(repr(str(path)) for path in paths if path in made)
            raise TraceError(f"There is no recording {absent}. {advice}", path=str(min(made)))
        self._replayed: list[_Replayed] = []
        self._recorded = [_Recorded(path) for path in paths if path in made]
        for path in paths:
            if path not in made:
                trace = Trace.load(path)
                check_replayable(trace)
                self._replayed.append(_Replayed(path, trace))
        self._advice = advice
        # The order is free, because nothing stands beside a run's driver that could watch it.
        self._options = ReplayOptions(
            plan="tools_live" if live else "exact", live=live, strictness=strictness, ordered=False
        )
        self._problems: list[Callable[[], AgentKitError | None]] = []  # one of each run, in order
        self._numbers = defaultdict[str, int](itertools.count(1).__next__)
        self._lock = threading.Lock()

    @property
    def records(self) -> bool:
        """Whether a run may go live, because a recording is to be made."""
        return bool(self._recorded)

    def intercept(self, request: RunRequest[Any], listener: Emit) -> Driver[Any]:
        """Answer a run from its recording, or let it go live and record it."""
        if in_effect():
            # A tool's own run: a replay has the tool's result, and does not make it.
            return request.open_live(listener)
        with self._lock:
            taken = self._taken(request)
            if isinstance(taken, _Replayed):
                return self._answer(request, taken, listener)
            redact = _Numbering(
                patterns=request.redact.patterns,
                fields=request.redact.fields,
                # It names these placeholders only: messages remember how they were redacted.
                key=os.urandom(32),
                numbers=self._numbers,
            )
            driver = replace(request, trace=True, redact=redact).open_live(listener)
            assert callable(driver.scope.trace)
            taken.lines = driver.scope.trace
            return driver

    def problem(self) -> AgentKitError | None:
        """Return what first went wrong with the runs, though the application may have caught it."""
        return next((one for of_run in self._problems if (one := of_run()) is not None), None)

    def finish(self) -> tuple[Path, ...]:
        """Check that a test which has passed used all, and write what it recorded.

        Returns:
            The files that were written. They are fixtures, to be committed, and have the
            usual mode of a file; an old one is replaced at once or not at all.

        Raises:
            AgentKitError: That of `problem`.
            ReplayDivergence: A recording was not used, or not to its end.
            TraceError: No run was recorded for a file, or it cannot be written.
        """
        if (problem := self.problem()) is not None:
            raise problem
        for one in self._replayed:
            if (found := one.divergence(checked=True)) is not None:
                raise found
            if one.driver is None:
                run = _described(one.at, one.trace.input()[0], Redactor())
                text = f"no run of the test has used {str(one.path)!r}, a run of {run}."
                raise ReplayDivergence(
                    f"missing_call: {text} {self._advice}", kind="missing_call", at=one.at
                )
        whole = [(recorded.path, recorded.whole()) for recorded in self._recorded]
        for path, lines in whole:
            _write(path, lines)
        return tuple(path for path, _ in whole)

    def _taken(self, request: RunRequest[Any]) -> _Replayed | _Recorded:
        """Find the recording of this run: by agent and input, then a new one, then by order."""
        free = [one for one in self._replayed if one.driver is None]
        at, redact = str(request.program.spec.at), request.redact
        key = (at, *_identities(request.messages, redact))
        for one in free:
            if (one.at, *_identities(one.trace.input()[0], redact)) == key:
                return one
        for recorded in self._recorded:
            if recorded.lines is None:
                return recorded
        if free:
            return next((one for one in free if one.at == at), free[0])
        count = len(self._replayed) + len(self._recorded)
        described = _described(at, request.messages, redact)
        refused = ReplayDivergence(
            f"unexpected_call at {at}: the test makes one run more than its {count} "
            f"recording{'s'[: count != 1]}: {described}. Name another file in its marker. "
            + self._advice,
            kind="unexpected_call",
            at=at,
        )
        self._note(refused)
        raise refused

    def _answer(self, request: RunRequest[Any], taken: _Replayed, listener: Emit) -> Driver[Any]:
        """Answer a run from a recording, or refuse it where that is of another agent."""
        try:
            taken.driver, taken.engine = prepared(
                taken.trace,
                request.program,
                request.messages,
                request.earlier,
                self._options,
                deps=request.deps,
                redact=request.redact,
                emit=listener,
            )
        except AgentKitError as error:
            error.args = (f"{error.message}\nThe recording is {str(taken.path)!r}.",)
            self._note(error)
            raise
        self._problems.append(taken.divergence)
        return taken.driver

    def _note(self, refused: AgentKitError) -> None:
        """Note a run that does not begin: its application may swallow the error."""
        self._problems.append(lambda: refused)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Numbering(Redactor):
    """Numbers secrets in the order in which they appear, instead of hashing them.

    A fixture is committed and read by many. Recording it anew should not change its
    placeholders, so a random key will not do; with one that everybody knows, everybody
    could try passwords against the hashes. Numbers tell equal from different, and no more.
    """

    numbers: Mapping[str, int]

    def secret(self, text: str, kind: str) -> str:
        """Return the placeholder of a text that is known to be a secret."""
        if PLACEHOLDER.fullmatch(text):
            return text
        return f"⟦{kind}:{self.numbers[text]:08x}⟧"


def _identities(messages: Sequence[Message], redact: Redactor) -> list[str]:
    """Return what two inputs are compared by: no ids, and nothing that a key decides."""
    namer = Namer(redact)
    texts = (canonical(without_ids(namer.message(message)[1])) for message in messages)
    return [PLACEHOLDER.sub(r"⟦\1⟧", text.decode(errors="surrogatepass")) for text in texts]


def _described(at: str, messages: Sequence[Message], redact: Redactor) -> str:
    prompt = redact(messages[-1].text)
    short = prompt if len(prompt) <= 60 else f"{prompt[:60]}…"
    return f"{at.strip('/')!r} with {short!r}"


def _write(path: Path, lines: Sequence[bytes]) -> None:
    """Put a recording in its place: whole, or not at all."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(b"".join(lines))
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise TraceError(
            f"The recording {str(path)!r} cannot be written: {error.strerror}.", path=str(path)
        ) from error
