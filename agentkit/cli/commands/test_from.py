"""`agentkit test-from`: a recorded run becomes a test."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import entry_points
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from typing import Any

from agentkit.cli.console import command_line, print_line
from agentkit.cli.find import replayable
from agentkit.cli.load import (
    Application,
    Many,
    application,
    imported,
    is_factory,
    is_file,
    options_of,
    split_name,
)
from agentkit.cli.view.source import Case, source_of
from agentkit.core.effects import ancestors
from agentkit.errors import AgentKitError, ConfigurationError, TraceError
from agentkit.runtime.result import RunResult
from agentkit.trace.reader import Trace
from agentkit.trace.summary import state_of

_WORDS, _LONGEST = 6, 40


def test_from(
    trace: Path,
    /,
    *,
    app: str,
    to: Path | None = None,
    live: Many = None,
    model: str | None = None,
    deps: str | None = None,
) -> None:
    """Make a pytest test from a recorded run: it replays the run, and expects its result.

    The trace is copied beside the test, into traces/, and the test is run once.

    Args:
        trace: The trace file, or the end of a run's id.
        app: The agent, as FILE.py:NAME or MODULE:NAME.
        to: The new test file; by default test_PROMPT.py beside the agent's file.
        live: A tool that the test runs for real: its results have to be the recorded ones.
        model: The model of the recorded run, if it was not the agent's own.
        deps: What its tools need, as FILE.py:NAME: the value, or a function that returns it.
    """
    if find_spec("pytest") is None:
        raise ConfigurationError("The test is run with pytest: pip install pytest")
    recorded = replayable(trace)
    if recorded.status == "interrupted":
        resume = command_line("resume", str(recorded.path), *options_of(app, model, deps))
        raise TraceError(
            f"The run of {str(recorded.path)!r} is {state_of(recorded)}: it has no end that a test "
            f"could expect. Go on with it (`{resume}`), or take another one.",
            path=str(recorded.path),
        )
    live = live or []
    with application(app, recorded, model=model, deps=deps) as loaded:
        loaded.check_deps()
        ended = _replayed(recorded, loaded, live)
        agent = loaded.agent
    module, root, folder = _module_of("--app", app)
    name = split_name(app)[1]
    name = name or next(key for key, one in vars(imported(app)).items() if one is agent)
    imports = {module: {name}}
    if deps is not None:
        imports.setdefault(_module_of("--deps", deps)[0], set()).add(split_name(deps)[1])
    slug = _slug(recorded)
    test = (to or folder / f"test_{slug}.py").absolute()
    fixture = _fixture(test, recorded)
    case = Case(
        name=slug,
        fixture=fixture.relative_to(test.parent).as_posix(),
        agent=_expression(app, name),
        deps=None if deps is None else _expression(deps, split_name(deps)[1]),
        imports=imports,
        model=model,
        trace=recorded,
        ended=ended,
        live=live,
    )
    # Whether pytest finds the application depends on its settings: tried, not guessed.
    further = replace(case, path=_path_from(test, root))
    _write(test, fixture, recorded, [source_of(case), source_of(further)])
    _print_written(test, fixture)
    if not live:
        _print_hidden(recorded)


def _path_from(test: Path, root: Path) -> str:
    """Return a folder as an expression in a test file."""
    above = [*test.resolve().parents]
    if root in above:
        return f"Path(__file__).resolve().parents[{above.index(root)}]"
    return f"Path(__file__).parent / {os.path.relpath(root, test.parent)!r}"


def _expression(app: str, name: str) -> str:
    """Return the expression by which a test gets the value of this name."""
    value = getattr(imported(app), name)
    if not is_factory(value):
        return name
    return f"anyio.run({name})" if inspect.iscoroutinefunction(value) else f"{name}()"


def _module_of(option: str, app: str) -> tuple[str, Path, Path]:
    """Return a module's dotted name, the folder in which it is found, and that of its file."""
    place = split_name(app)[0]
    file = imported(app).__file__
    assert file is not None
    path = Path(file).resolve()
    names = [path.stem] if path.stem != "__init__" else []
    root = path.parent
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    dotted = names if is_file(place) else place.split(".")
    if wrong := [one for one in dotted if not one.isidentifier() or iskeyword(one)]:
        raise ConfigurationError(
            f"{option} {app!r}: a test cannot import {wrong[0]!r}, which is not a name in Python. "
            f"Rename it, or give a module that imports it: {option} MODULE:NAME."
        )
    return ".".join(dotted), root, path.parent


def _slug(trace: Trace) -> str:
    """Return a name for the test: the first words of the prompt, or of the agent and its run."""
    prompt = trace.input()[0][-1].text
    text = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode()
    words = re.findall("[a-z0-9]+", text.lower())[:_WORDS]
    at = trace.agent_start["at"]
    return "_".join(words)[:_LONGEST] or re.sub(r"\W", "_", f"{at[1:]}_{trace.run[-6:]}".lower())


def _fixture(test: Path, trace: Trace) -> Path:
    """Return where the trace goes, and check that nothing there is overwritten."""
    if not re.fullmatch(r"test_.*\.py|.*_test\.py", test.name):
        raise ConfigurationError(
            f"--to {test.name!r}: pytest looks for tests in files named test_*.py."
        )
    stem = re.sub(r"^test_|_test$", "", test.stem)
    fixture = test.parent / "traces" / f"{stem}.jsonl"
    for path in (test, fixture):
        its_own = trace.path is not None and fixture == trace.path.absolute() and path != test
        if path.exists() and not its_own:
            raise ConfigurationError(
                f"{str(path)!r} exists already and is not overwritten. Give the test another "
                "name: --to test_NAME.py."
            )
    return fixture


def _replayed(
    trace: Trace, loaded: Application, live: Sequence[str]
) -> RunResult[Any] | AgentKitError:
    """Return how a replay of the run ends, now."""

    async def main() -> RunResult[Any]:
        return await loaded.agent.replay(
            trace,
            plan="tools_live" if live else "exact",
            live=live,
            strictness="exact",
            on_divergence="raise",
            deps=loaded.deps,
        )

    try:
        return loaded.run(main)
    except AgentKitError as error:
        if error.result is None or trace.status in ("ok", "paused"):
            raise  # it is not the run's own end
        return error


def _write(test: Path, fixture: Path, trace: Trace, sources: list[str]) -> None:
    """Write the test and its fixture: the first of these texts that passes, or nothing."""
    copied = trace.path is None or fixture != trace.path.absolute()
    files = [test, *([fixture] if copied else [])]
    folders = [one for one in fixture.parents if not one.exists()]
    report = ""
    try:
        test.parent.mkdir(parents=True, exist_ok=True)
        if copied:
            assert trace.path is not None
            fixture.parent.mkdir(exist_ok=True)
            shutil.copyfile(trace.path, fixture)  # for others to read, unlike a trace
        for source in sources:
            test.write_text(source, encoding="utf-8")
            report = _failure(test)
            if not report:
                return
    except OSError as error:
        report = f"{error.strerror}: {error.filename}"
    for path in files:
        path.unlink(missing_ok=True)
    for folder in folders:
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()
    raise AgentKitError(f"The test fails, so it was not kept. pytest reports:\n\n{report}")


def _failure(test: Path) -> str:
    """Return what pytest reports if the test fails: run like `pytest`, not `python -m pytest`."""
    command = [sys.executable, "-P", "-m", "pytest", "-q", *plugin_arguments(), str(test)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"{done.stdout}{done.stderr}"


def plugin_arguments() -> list[str]:
    """Return what makes pytest load the plugin: nothing where agentkit is installed."""
    installed = any(one.name == "agentkit" for one in entry_points(group="pytest11"))
    return [] if installed else ["-p", "agentkit_pytest"]


def _print_written(test: Path, fixture: Path) -> None:
    here = Path.cwd()
    names = [
        str(one.relative_to(here) if one.is_relative_to(here) else one) for one in (test, fixture)
    ]
    print_line("\n".join(names))
    print_line(
        "The second has the contents of the run: look through it before you commit it.", "dim"
    )
    print_line(f"The test passes: pytest {shlex.quote(names[0])}", "green")


def _print_hidden(trace: Trace) -> None:
    """Print what the test does not look at: agents inside tools."""
    agents = (one.at.parent for one in trace.effects.values() if one.kind == "agent")
    tools = {at: trace.effects[at].name for at in agents if at in trace.effects}
    outermost = [at for at in tools if not tools.keys() & {*ancestors(at)}]
    if names := list(dict.fromkeys(tools[at] for at in outermost)):
        options = " ".join(f"--live {name}" for name in names)
        tools_text = ", ".join(names)
        print_line(
            f"The test does not look inside {tools_text}, where agents run; {options} does.", "dim"
        )
