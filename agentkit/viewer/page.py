"""Makes pages of recorded runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from agentkit.agent import Agent
from agentkit.messages import JsonObject
from agentkit.replay import diff
from agentkit.trace.derived import write_anew
from agentkit.trace.reader import Trace
from agentkit.trace.summary import prompt_of
from agentkit.trace.words import as_text
from agentkit.viewer.assembly import START, document, packed
from agentkit.viewer.records import line_of, records, words
from agentkit.viewer.sources import sources

_TITLE = 80
"""Characters of a prompt in the title of a window."""


def page(
    trace: Trace | str | os.PathLike[str],
    other: Trace | str | os.PathLike[str] | None = None,
    *,
    agent: Agent[Any] | None = None,
    app: str | None = None,
    program: str = "agentkit",
) -> str:
    """Return a run, or two side by side, as one HTML file that needs no network.

    What a trace holds is data in it and nothing else: it cannot become markup or script.

    Args:
        trace: The run, or its path.
        other: A run to compare it with.
        agent: The agent, to show the code of its tools.
        app: How a command finds that agent, as FILE.py:NAME.
        program: How the commands begin that the page offers.

    Raises:
        TraceError: A trace cannot be read.
        TraceCorrupt: An event is damaged.
    """
    first = trace if isinstance(trace, Trace) else Trace.load(trace)
    second = other if isinstance(other, Trace) or other is None else Trace.load(other)
    found = chain([words(program, app)], _records(first, second), sources(agent))
    return document(title_of(first, second), packed(map(line_of, found)))


def _records(first: Trace, second: Trace | None) -> Iterator[JsonObject]:
    yield from records(first)
    if second is not None:
        yield from records(second, "b")
        yield {"type": "diff", **diff(first, second).to_json()}


def title_of(first: Trace, second: Trace | None = None) -> str:
    """Return the title of a page: what was asked, or which runs are compared."""
    if second is not None:
        return f"{_name(first)} and {_name(second)}"
    prompt = " ".join(as_text(prompt_of(first) or "").split())
    return f"{prompt[:_TITLE]} · {_name(first)}" if prompt else _name(first)


def _name(trace: Trace) -> str:
    return trace.run[-8:] if trace.path is None else trace.path.name


def write(
    path: str | os.PathLike[str],
    trace: Trace | str | os.PathLike[str],
    other: Trace | str | os.PathLike[str] | None = None,
    *,
    agent: Agent[Any] | None = None,
    app: str | None = None,
    program: str = "agentkit",
) -> Path:
    """Write `page` to a file, readable by its owner only, as traces are.

    An earlier page is replaced; any other file stays as it is.

    Raises:
        TraceError: A trace cannot be read, or the file is not a page or cannot be written.
        TraceCorrupt: An event is damaged.
    """
    text = page(trace, other, agent=agent, app=app, program=program)
    target = Path(path)
    write_anew(target, text, mark=START, what="page", other="file that is not a page of a run")
    return target
