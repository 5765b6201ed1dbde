"""Writes a trace: one structlog logger, one line per event.

The logger is private and fully specified: it reads nothing that
`structlog.configure` sets, so an application's own logging neither changes a
trace nor is changed by it. The last processor gives the line's bytes; the sink
writes them in one call, with no await in between, so lines never interleave.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from functools import cache
from typing import Any

from pydantic_core import to_json

from agentkit.messages import JsonObject
from agentkit.trace.file import NoSink, Sink
from agentkit.trace.schema import Capture, kept

__all__ = ["Tap", "TraceWriter"]

Tap = Callable[[bytes], None]
"""Gets each line after it was written. It must not raise."""
_diagnostics = logging.getLogger("agentkit")


class TraceWriter:
    """Numbers, times and writes the events of one run.

    A sink that fails is said once and then left alone: a recorder never kills a run.

    Attributes:
        lines: How many lines the trace has.
        failure: Why the sink was left alone, if it was.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        lines: int = 0,
        t: int = 0,
        capture: Capture = "full",
        taps: Sequence[Tap] = (),
        clock: Callable[[], int] | None = None,
    ) -> None:
        """Write to `sink`, which has `lines` lines of this run already, the last at `t` µs.

        `clock` gives monotonic nanoseconds, for a trace that is written later.
        """
        self.sink = sink
        self.failure: Exception | None = None
        self.closed = False
        self.lines = lines
        self._taps = taps
        self._process = os.getpid()
        less = () if capture == "full" else (kept(capture),)
        self._processors = [*less, _line]
        self._log = self._logger(sink)
        self._clock = clock or time.monotonic_ns
        self._start = self._clock() - t * 1000  # after structlog was imported
        # Tools in worker threads write too, also such as were abandoned by their run; and what
        # is said of a failing sink may come back here, as a line of the application's log.
        self._lock = threading.RLock()

    def write(self, event: str, *, held: bool = False, **fields: Any) -> None:
        """Write one event. `fields` are JSON values, redacted by the caller, in their order.

        A blob's `data` is its canonical JSON, as bytes. An event that is `held` is there for
        the one that follows at once, and is written with it.
        """
        with self._lock:
            if self.closed or os.getpid() != self._process:
                return  # what a forked process does is not in this run's order
            t = (self._clock() - self._start) // 1000
            if "at" in fields:
                fields["at"] = str(fields["at"])  # a plain text is rendered three times as fast
            try:
                line = self._log({"event": event, "seq": self.lines, "t": t, **fields}, held)
            except Exception as error:  # whatever it is: a recorder never kills a run
                self._fail(error)
                return
            if line is None:
                return
            self.lines += 1
        for tap in self._taps:
            tap(line)

    def keep(self, name: str, data: bytes) -> str | None:
        """Put a large blob beside the lines; None: it has to stand in its line."""
        if self.failure is None:
            try:
                return self.sink.keep(name, data)
            except Exception as error:  # as above
                self._fail(error)
        return None

    def sync(self) -> None:
        """Have what was written survive a power failure. It blocks for milliseconds."""
        if self.failure is None and not self.closed:
            try:
                self.sink.sync()
            except Exception as error:  # as above
                self._fail(error)

    def close(self) -> None:
        """Release the sink. What comes later is dropped."""
        with self._lock:
            if not self.closed:
                self.closed = True
                self.sink.close()

    def _logger(self, sink: Sink) -> Callable[[JsonObject, bool], bytes | None]:
        return _logger_type()(sink, self._processors, {}).log

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self._log = self._logger(NoSink())  # whoever taps still gets the lines
        _diagnostics.warning("The trace ends here, the run goes on: %s", error)


def _line(logger: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
    content = event.get("data")
    if isinstance(content, bytes):  # a blob's, which is JSON already
        del event["data"]
        return to_json(event)[:-1] + b',"data":' + content + b"}\n"
    try:
        return to_json(event) + b"\n"
    except ValueError:  # it is nested deeper than that serializer goes
        return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


@cache
def _logger_type() -> Callable[..., Any]:
    """The smallest structlog logger: every event through the processors to the sink."""
    # Here: structlog takes 60 ms to import and loads rich where that is installed.
    import structlog

    class Logger(structlog.BoundLoggerBase):
        def log(self, event: JsonObject, held: bool) -> bytes | None:
            # As `_proxy_to_logger` does, but for the context: nothing is ever bound here.
            line: Any = event
            try:
                for processor in self._processors:
                    line = processor(self._logger, "emit", line)
            except structlog.DropEvent:
                return None
            self._logger.emit(line, held)
            return line

    return Logger
