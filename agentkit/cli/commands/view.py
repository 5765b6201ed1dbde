"""`agentkit view`: a recorded run, or two, as a page in a browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from agentkit import viewer
from agentkit.cli.console import command_line, print_line
from agentkit.cli.find import find
from agentkit.cli.load import application
from agentkit.cli.view.describe import damage_named
from agentkit.errors import ConfigurationError
from agentkit.trace.reader import Trace


def view(
    trace: Path,
    other: Path | None = None,
    /,
    *,
    to: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    app: str | None = None,
    show: Annotated[bool, Parameter(name="--open", negative="")] = False,
) -> None:
    """Make a page of a recorded run, to look at in a browser; or of two, side by side.

    The page is one file that needs no network and can be sent to others. It holds everything
    that the trace holds.

    Args:
        trace: The trace file, or the end of a run's id.
        other: A second one, to compare with.
        to: A new file for the page; by default TRACE.html beside the trace, made anew each time.
        app: The agent, as FILE.py:NAME: the page shows the code of its tools, too.
        show: Open the page in the browser.
    """
    first = Trace.load(find(trace))
    second = None if other is None else Trace.load(find(other))
    page = to or _beside(first, second)
    with damage_named(first):
        if app is None:
            viewer.write(page, first, second, program=command_line())
        else:
            with application(app, first) as loaded:
                agent = loaded.agent
                viewer.write(page, first, second, agent=agent, app=app, program=command_line())
    print_line(str(page))
    if show and not webbrowser.open(page.absolute().as_uri()):
        raise ConfigurationError(f"No browser could be opened. Open {str(page)!r} in one.")


def _beside(first: Trace, second: Trace | None) -> Path:
    """Return the file of a page beside its trace."""
    assert first.path is not None
    name = first.path.stem
    if second is not None and second.path is not None:
        name += f"-{second.path.stem}"
    return first.path.with_name(f"{name}.html")
