"""`agentkit export`: a recorded run for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from agentkit.cli.console import json_text, print_line
from agentkit.cli.find import find
from agentkit.cli.view.describe import damage_named
from agentkit.trace.derived import write_anew
from agentkit.trace.otel import otel_spans, send
from agentkit.trace.perfetto import MARK, perfetto
from agentkit.trace.reader import Trace


def export_otel(
    trace: Path,
    /,
    *,
    endpoint: str | None = None,
    content: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Send a recorded run to an OpenTelemetry receiver, over HTTP.

    Ids are made of the run and its addresses: a run that is sent twice is the same run.

    Args:
        trace: The trace file, or the end of a run's id.
        endpoint: The receiver's base URL; by default OTEL_EXPORTER_OTLP_ENDPOINT, or
            http://localhost:4318. The other OTEL_EXPORTER_OTLP_ variables count, too.
        content: Send messages, instructions, arguments, results and the texts of errors, too.
    """
    recorded = Trace.load(find(trace))
    with damage_named(recorded):
        spans = otel_spans(recorded, content=content)
    where = send(spans, endpoint)
    print_line(f"Sent {len(spans)} spans of run {recorded.run} to {where}")


def export_perfetto(
    trace: Path,
    /,
    *,
    to: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    content: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a recorded run for Perfetto (ui.perfetto.dev) and Chrome (chrome://tracing).

    Args:
        trace: The trace file, or the end of a run's id.
        to: A new file; by default TRACE.perfetto.json beside the trace, made anew each time.
        content: Write messages, instructions, arguments, results and the texts of errors, too.
    """
    file = find(trace)
    recorded = Trace.load(file)
    with damage_named(recorded):
        text = json_text(perfetto(recorded, content=content))
    to = to or file.with_name(f"{file.stem}.perfetto.json")
    write_anew(to, text, mark=MARK, what="file", other="file of another kind", option="--out")
    print_line(str(to))
