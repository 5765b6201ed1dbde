"""The code of an agent's tools, for the page: a trace has none."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentkit.agent import Agent
from agentkit.messages import JsonObject


def sources(agent: Agent[Any] | None) -> Iterator[JsonObject]:
    """Yield a record for each tool whose function has a file."""
    if agent is None:
        return
    for name, tool in agent.program().tools.items():
        if (record := _source(tool.function)) is not None:
            yield {"type": "source", "name": name, **record}


def _source(function: Any) -> JsonObject | None:
    try:
        function = inspect.unwrap(function)
        file = inspect.getsourcefile(function)
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError, ValueError):
        return None  # it was made by another program, or its file has gone
    if file is None:
        return None
    path, here = Path(file), Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return {"file": str(shown), "line": first, "text": "".join(lines)}
