"""A real OTLP receiver over HTTP: parses the protobuf that it is sent."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MESSAGES = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


@dataclass
class Receiver:
    """What has arrived, the bodies by their path."""

    url: str = ""
    bodies: dict[str, list[bytes]] = field(default_factory=lambda: {path: [] for path in MESSAGES})

    def _parsed(self, path: str) -> list[Any]:
        return [MESSAGES[path].FromString(body) for body in self.bodies[path]]

    @property
    def spans(self) -> list[Any]:
        """All spans, in order of beginning."""
        found = [
            span
            for request in self._parsed("/v1/traces")
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: (span.start_time_unix_nano, span.name))

    @property
    def named(self) -> dict[str, Any]:
        """The spans by name, the last of each."""
        return {span.name: span for span in self.spans}

    @property
    def metrics(self) -> dict[str, Any]:
        """All metrics by name."""
        return {
            metric.name: metric
            for request in self._parsed("/v1/metrics")
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def attributes(one: Any) -> dict[str, Any]:
    """Return the attributes of a span, a data point or an event."""

    def value(any_value: Any) -> Any:
        kind = any_value.WhichOneof("value")
        found = getattr(any_value, kind)
        return [value(item) for item in found.values] if kind == "array_value" else found

    return {pair.key: value(pair.value) for pair in one.attributes}


@contextmanager
def receiver(status: int = 200) -> Generator[Receiver]:
    """Start a receiver on a free port, which answers with this status."""
    got = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.headers["content-type"] == "application/x-protobuf"
            MESSAGES[self.path].FromString(body)
            got.bodies[self.path].append(body)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        got.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield got
        server.shutdown()
        thread.join()
