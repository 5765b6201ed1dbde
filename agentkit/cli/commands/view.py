"""`agentkit view`: a recorded run, or two, as a page in a browser."""

from __future__ import annotations

import asyncio
import secrets
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from agentkit import viewer
from agentkit._listen import listen, url_of
from agentkit.cli.console import command_line, print_diagnostics, print_line, print_note
from agentkit.cli.find import find, traces_folder
from agentkit.cli.load import application, without_server
from agentkit.cli.view.describe import damage_named
from agentkit.errors import ConfigurationError
from agentkit.trace.reader import Trace


def view(
    trace: Path | None = None,
    other: Path | None = None,
    /,
    *,
    to: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    app: str | None = None,
    model: str | None = None,
    deps: str | None = None,
    show: Annotated[bool, Parameter(name="--open", negative="")] = False,
    live: Annotated[bool, Parameter(negative="")] = False,
    port: int = 0,
) -> None:
    """Make a page of a recorded run, to look at in a browser; or of two, side by side.

    The page is one file that needs no network and can be sent to others. It holds everything
    that the trace holds.

    With --live, pages on this machine follow a run, or the runs of a folder, as they go on,
    until Ctrl-C.

    Args:
        trace: The trace file, or the end of a run's id; with --live also a folder, by default
            the one where traces go.
        other: A second one, to compare with.
        to: A new file for the page; by default TRACE.html beside the trace, made anew each time.
        app: The agent, as FILE.py:NAME: the page shows the code of its tools, too. With --live,
            calls that wait are decided about in the page, and their runs go on here.
        model: With --live, the model of those runs, if it was not the agent's own.
        deps: With --live, what the agent's tools need, as FILE.py:NAME.
        show: Open the page in the browser.
        live: Follow what is recorded.
        port: With --live, the port; by default a free one.
    """
    if live:
        if other is not None or to is not None:
            raise ConfigurationError("--live takes one trace or folder, and writes no page.")
        _live(trace, app, model, deps, show, port)
        return
    if trace is None:
        raise ConfigurationError("Name a trace; or give --live to follow a folder.")
    if model or deps or port:
        raise ConfigurationError("--model, --deps and --port are for --live.")
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


def _live(
    trace: Path | None, app: str | None, model: str | None, deps: str | None, show: bool, port: int
) -> None:
    """Serve live pages until Ctrl-C."""
    try:
        import uvicorn

        from agentkit.viewer.live import Live
    except ImportError as error:
        raise without_server("agentkit view --live", error) from None
    place = trace or traces_folder()
    place = place if place.is_dir() else find(place)
    if not place.exists():
        raise ConfigurationError(f"There is no folder and no trace {str(place)!r} to follow.")
    what = Live(place=place.absolute(), token=secrets.token_urlsafe(24), program=command_line())
    with ExitStack() as end:
        if app is None:
            runner = end.enter_context(asyncio.Runner())
        else:
            recorded = Trace.load(place) if place.is_file() else None
            loaded = end.enter_context(application(app, recorded, model=model, deps=deps))
            loaded.check_deps()
            what.agent, what.app, what.deps, runner = loaded.agent, app, loaded.deps, loaded.loop
        listener = end.enter_context(listen("127.0.0.1", port))
        number = listener.getsockname()[1]
        names = [f"{name}:{number}" for name in ("127.0.0.1", "localhost")]
        config = uvicorn.Config(what.application(names), log_level="warning")
        server = uvicorn.Server(config)
        what.ending = lambda: server.should_exit
        url = f"{url_of(listener)}/{what.token}/"
        print_line(f"{place} is followed at {url} (Ctrl-C ends it)")
        if show and not webbrowser.open(url):
            print_note("No browser could be opened: open the address in one.")
        print_diagnostics()
        runner.run(server.serve([listener]))
        if server.should_exit:  # whether the event loop has said so depends on the moment
            raise KeyboardInterrupt
