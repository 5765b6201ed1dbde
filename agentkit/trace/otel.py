"""Runs as OpenTelemetry spans, while they go on or from their traces (the extra `otel`).

Both ways share the mapping of `spans`, and ids that are made of the run and the address, so
a span is the same span whenever it is exported.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from agentkit.core.effects import Address, ancestors
from agentkit.errors import AgentKitError, ConfigurationError
from agentkit.messages import JsonObject
from agentkit.trace.index import RecordedEffects
from agentkit.trace.logs import follow
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import installed_version
from agentkit.trace.source import Source
from agentkit.trace.spans import (
    DURATION_BUCKETS,
    MEASURED,
    SCHEMA_URL,
    TOKEN_BUCKETS,
    Span,
    effect_spans,
    parent_in,
    spans_of,
)

if TYPE_CHECKING:
    from opentelemetry import trace as api
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.sdk.trace import ReadableSpan

_SCOPE = "agentkit"
_PATIENCE = 5.0
"""Seconds until a receiver has to accept a connection."""
_BATCH = 512
"""Spans of one request, as of the SDK's processors."""
_CONTENTS = tuple(
    f'{{"event":"{name}"'.encode()
    for name in ("blob", "model.chunks", "tool.chunks", "det", "log", "warning")
)
"""How lines begin that no span is made of; those of blobs hold contents."""


@contextmanager
def _extra() -> Generator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            "OpenTelemetry needs an extra that is not installed. "
            'Run: pip install "agentkit-replay[otel]"'
        ) from error


def to_otel(
    tracer_provider: api.TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    *,
    content: bool = False,
) -> Callable[[], None]:
    """Send all runs that begin or are resumed from now on to OpenTelemetry, as they go on.

    A run that begins within a span of the application is part of it. While tools and models
    work, the current span is theirs, so spans that are made there are part of it.

    Replays are not sent. A fork has a link to the run that it comes from, and no metrics,
    because some of its answers are recorded ones.

    Example:
        >>> from agentkit.trace import to_otel
        >>> stop = to_otel(provider)        # doctest: +SKIP

    Args:
        tracer_provider: Makes the spans; by default the one that the application has set.
        meter_provider: Takes the duration and the tokens of model calls; by default the one
            that the application has set.
        content: Whether spans hold messages, instructions, arguments, results and the texts
            of errors, as the run's trace has them: redacted.

    Returns:
        A function that ends it, for the runs that begin then.

    Raises:
        ConfigurationError: The extra is missing, or there is no provider.
    """
    with _extra():
        from opentelemetry import metrics, trace

    provider = tracer_provider or trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        raise ConfigurationError(
            f"to_otel needs a TracerProvider that makes spans, not {type(provider).__name__}. "
            "Pass one of opentelemetry.sdk.trace, or call "
            "opentelemetry.trace.set_tracer_provider before."
        )
    spans = _Spans(provider)
    meters = _Meters(meter_provider or metrics.get_meter_provider())

    def begin(run: str, earlier: Trace | None, replayed: bool) -> _LiveRun | None:
        return None if replayed else _LiveRun(run, earlier, spans, meters, content)

    return follow(begin)


def otel_spans(trace: Trace, *, content: bool = False) -> list[ReadableSpan]:
    """Return the spans of a trace.

    Raises:
        ConfigurationError: The extra is missing.
        TraceCorrupt: The trace lacks what it has to have.
    """
    with _extra():
        from opentelemetry.context import Context
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    ended: list[ReadableSpan] = []

    class Keeping(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            ended.append(span)

    # Not `Resource.create`: its random id of an instance would make each export another.
    resource = Resource({SERVICE_NAME: _SCOPE}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(Keeping())
    spans, clock, run = _Spans(provider), _Clock(), trace.run
    for event in trace.events:
        clock.take(event)
    for span in spans_of(trace.effects, content=content):
        within = spans.within(Context(), run, span.parent, None)
        spans.end(spans.start(span, run, within, clock), span, clock)
    return ended


def send(spans: Sequence[ReadableSpan], endpoint: str | None = None) -> str:
    """Send spans to an OTLP receiver over HTTP, and return its URL.

    Args:
        spans: The spans.
        endpoint: The receiver's base URL; by default by `OTEL_EXPORTER_OTLP_ENDPOINT` and
            the other variables of the specification.

    Raises:
        AgentKitError: The receiver cannot be reached, or did not take them.
        ConfigurationError: The extra is missing, or the URL is not valid.
    """
    with _extra():
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult

    url = endpoint and f"{endpoint.rstrip('/').removesuffix('/v1/traces')}/v1/traces"
    with _heard("opentelemetry.exporter") as heard:
        exporter = OTLPSpanExporter(endpoint=url)
        where: str = exporter._endpoint  # pyright: ignore[reportPrivateUsage]  # by the variables
        try:
            _reach(where)
            starts = range(0, len(spans), _BATCH)
            results = [exporter.export(spans[start : start + _BATCH]) for start in starts]
        finally:
            exporter.shutdown()
    if any(result is not SpanExportResult.SUCCESS for result in results):
        why = f": {heard[0].rstrip('.')}" if heard else ""  # what follows is about retries
        raise AgentKitError(f"The receiver at {where!r} did not take the spans{why}.")
    return where


def _reach(url: str) -> None:
    """Refuse a receiver that is not there at once: the exporter would try for ten seconds."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it does not begin with http:// or https:// and a host")
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is not a valid URL of a receiver: {error}.") from error
    if getproxies():
        return  # then it is the proxy that is asked
    try:
        socket.create_connection((parts.hostname, port), timeout=_PATIENCE).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise AgentKitError(f"No receiver can be reached at {url!r}: {why}.") from error


@contextmanager
def _heard(name: str) -> Generator[list[str]]:
    """Collect what a logger gets, instead of letting it reach stderr."""
    texts: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    logger, handler = logging.getLogger(name), Keeping()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


# Ids and times


def trace_id(run: str) -> int:
    """Return the id of the trace of a run that is in no span of an application.

    It begins as the run's id. The rest is a hash, because samplers take it for random, and
    the second half of a UUID always begins with the same bits.
    """
    known = re.fullmatch("[0-9a-f]{32}", run)
    half = run[:16] if known else _hash(f"trace {run}")
    return int(half + _hash(run), 16)


def span_id(run: str, at: str) -> int:
    """Return the id of the span of an address in a run."""
    return int(_hash(run + at), 16) or 1


def _hash(text: str) -> str:
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


class _Clock:
    """When the times of a trace were, in nanoseconds since 1970.

    The clock of a trace stands still from a pause or a crash until the run is resumed.
    """

    def __init__(self) -> None:
        self._since: list[tuple[int, int]] = []

    def take(self, event: JsonObject) -> None:
        """Set the time by an event that has that of the wall."""
        if "wall" in event:
            try:
                wall = int(datetime.fromisoformat(event["wall"]).timestamp() * 1e6)
            except (ValueError, TypeError, OverflowError):
                wall = 0  # the trace is damaged there, and its spans are in order all the same
            self._since.append((event["t"], wall - event["t"]))

    def __call__(self, t: int) -> int:
        wall = next((wall for since, wall in reversed(self._since) if since <= t), 0)
        return min(max(wall + t, 0) * 1000, 2**63 - 1)


class _Ids:
    """Gives the SDK the ids of the next span, and other users of its tracer their random ones."""

    def __init__(self, others: Any) -> None:
        self._others = others
        self._next = threading.local()

    @contextmanager
    def given(self, trace: int, span: int) -> Generator[None]:
        """Give these ids to what this thread starts in the block."""
        self._next.ids = trace, span
        try:
            yield
        finally:
            del self._next.ids

    def generate_trace_id(self) -> int:
        """Return the id of a trace."""
        ids = getattr(self._next, "ids", None)
        return ids[0] if ids else self._others.generate_trace_id()

    def generate_span_id(self) -> int:
        """Return the id of a span."""
        ids = getattr(self._next, "ids", None)
        return ids[1] if ids else self._others.generate_span_id()

    def is_trace_id_random(self) -> bool:
        """Return whether samplers may take the end of a trace's id for random."""
        return True


class _Spans:
    """Makes and ends spans. Those of another provider than the SDK's have ids of its own."""

    def __init__(self, provider: api.TracerProvider) -> None:
        from opentelemetry import trace

        self._api = trace
        version = installed_version("agentkit-replay")
        tracer: Any = provider.get_tracer(_SCOPE, version, SCHEMA_URL)
        self._tracer, self._ids = tracer, _Ids(getattr(tracer, "id_generator", None))
        if isinstance(getattr(tracer, "id_generator", None), _Ids):
            self._ids = tracer.id_generator
        elif hasattr(tracer, "id_generator"):
            tracer.id_generator = self._ids

    def within(
        self, outer: Context, run: str, parent: str | None, known: api.Span | None
    ) -> Context:
        """Return the context of a span: its parent, or what is around the run."""
        api = self._api
        if parent is None:
            return outer
        if known is None:
            around = api.get_current_span(outer).get_span_context()
            trace = around.trace_id if around.is_valid else trace_id(run)
            known = api.NonRecordingSpan(self._context(trace, span_id(run, parent)))
        return api.set_span_in_context(known, outer)

    def start(self, span: Span, run: str, within: Context, clock: _Clock) -> api.Span:
        """Start a span in the context of its parent."""
        kind = self._api.SpanKind.CLIENT if span.client else self._api.SpanKind.INTERNAL
        known, links = {"agentkit.run": run, **span.attributes}, []
        if span.origin is not None:
            origin, at = span.origin
            links = [self._api.Link(self._context(trace_id(origin), span_id(origin, at)))]
        with self._ids.given(trace_id(run), span_id(run, span.at)):
            start = self._tracer.start_span
            return start(span.name, within, kind, known, links, clock(span.start))

    def end(self, made: api.Span, span: Span, clock: _Clock) -> None:
        """End a span with all that is known of it now."""
        assert span.end is not None
        end = clock(span.end)
        made.set_attributes(span.attributes)
        if span.error is not None:
            kind, message = span.error
            made.set_status(self._api.StatusCode.ERROR, message or None)
            if span.traceback is not None:
                names = "exception.type", "exception.message", "exception.stacktrace"
                values = kind, message, span.traceback
                made.add_event("exception", dict(zip(names, values, strict=True)), end)
        made.end(end)

    def _context(self, trace: int, span: int) -> api.SpanContext:
        flags = self._api.TraceFlags(self._api.TraceFlags.SAMPLED)
        return self._api.SpanContext(trace, span, is_remote=False, trace_flags=flags)


class _Meters:
    """The two histograms of the conventions."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(_SCOPE, installed_version("agentkit-replay"), SCHEMA_URL)
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )

    def record(self, span: Span) -> None:
        """Measure a model call that has ended."""
        assert span.end is not None
        found = span.attributes
        facts = {name: found[name] for name in MEASURED if name in found}
        failed = {"error.type": found["error.type"]} if "error.type" in found else {}
        self._seconds.record((span.end - span.start) / 1e6, facts | failed)
        for kind in ("input", "output"):
            if count := found.get(f"gen_ai.usage.{kind}_tokens"):
                self._tokens.record(count, facts | {"gen_ai.token.type": kind})


class _LiveRun:
    """A run that goes on: its effects so far, and the spans that are open."""

    def __init__(
        self, run: str, earlier: Trace | None, spans: _Spans, meters: _Meters, content: bool
    ) -> None:
        from opentelemetry import context

        self._context = context
        self._outer = context.get_current()
        self._run, self._spans, self._meters, self._content = run, spans, meters, content
        self._without = _CONTENTS[1:] if content else _CONTENTS
        self._effects: RecordedEffects | None = None
        self._clock = _Clock()
        self._open: dict[str, api.Span] = {}
        self._ended: set[str] = set()
        self._lock = threading.RLock()  # tools in threads write lines, too
        for line in earlier.raw() if earlier is not None else ():
            self._take(line)

    def line(self, line: bytes) -> None:
        """Start and end the spans that a line of the trace is about."""
        with self._lock:
            event = self._take(line)
            if event is None or self._effects is None:
                return
            match event["event"].split("."):
                case ["trace", "resume"]:
                    self._reopen(self._effects)
                case ["trace", "close"]:
                    self._effects = None
                case ["http", what]:
                    self._show(event["at"].rpartition("/")[0], content=what == "end")
                case ["agent" | "model" | "tool" | "compute", "start"]:
                    self._show(event["at"])
                case ["agent" | "model" | "tool" | "compute", "end"] | ["tool", "skip"]:
                    self._show(event["at"], content=True, over=True)
                case _:
                    pass

    def enter(self, at: Address) -> Callable[[], None] | None:
        """Make the span of an effect, or the one that it is in, the current one."""
        for up in (at, *reversed(ancestors(at))):
            if (made := self._open.get(up)) is not None:
                within = self._spans.within(self._context.get_current(), self._run, up, made)
                token = self._context.attach(within)
                return lambda: self._context.detach(token)
        return None

    def _take(self, line: bytes) -> JsonObject | None:
        """Keep a line that spans are made of, and return its event."""
        if line.startswith(self._without):
            return None
        if self._effects is None:
            self._effects = RecordedEffects(Source([line], None))
            event = self._effects.source.event(0)
            self._forked = bool(event.get("fork"))
        else:
            event = self._effects.append(line)
        self._clock.take(event)
        return event

    def _reopen(self, effects: RecordedEffects) -> None:
        """Start the spans of the agents that go on; those in tools begin anew."""
        for one in effects.values():
            parent = parent_in(effects, one.at)
            if one.kind == "agent" and not one.finished and (not parent or parent in self._open):
                self._show(one.at)

    def _show(self, at: str, *, content: bool = False, over: bool = False) -> None:
        """Start what has begun, and end what has ended, of an effect and its HTTP attempts.

        Args:
            at: The effect's address.
            content: Whether contents are looked at, which takes time.
            over: Whether the effect has ended, and is not one that goes on.
        """
        assert self._effects is not None
        effect, content = self._effects[at], self._content and content
        for span in effect_spans(self._effects, effect, content=content, live=True):
            if span.at in self._ended:
                continue
            made = self._open.get(span.at)
            if made is None:
                known = self._open.get(span.parent or "")
                within = self._spans.within(self._outer, self._run, span.parent, known)
                made = self._open[span.at] = self._spans.start(span, self._run, within, self._clock)
            if span.end is not None and (over or span.at != at):
                self._spans.end(made, span, self._clock)
                del self._open[span.at]
                self._ended.add(span.at)
                if span.at == at and effect.kind == "model" and not self._forked:
                    self._meters.record(span)
