"""Finds the agent that `FILE.py:NAME` names, as in `--app`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from agentkit.agent import Agent
from agentkit.errors import ConfigurationError
from agentkit.models import resolve_model
from agentkit.trace.reader import Trace

_OURS = Path(__file__).resolve().parents[1]
"""agentkit itself: what its lines say is no help to whoever wrote an application."""


def load_agent(app: str, trace: Trace | None = None, model: str | None = None) -> Agent[Any]:
    """Import `path/to/file.py:name` or `package.module:name` and return the agent of that name.

    Without a name the module's only agent is taken, or the one that a trace names.

    Args:
        app: The file or module, and the agent's name in it.
        trace: The run that the agent has made.
        model: A model string, instead of the agent's own model.

    Raises:
        ConfigurationError: There is no such file, module, agent or model.
    """
    place, name = split_name(app)
    module = load_module(place)
    if not name:
        agents, root = agents_in(module), _root(trace)
        named = [key for key, one in agents.items() if len(agents) == 1 or one.name == root]
        if len({id(agents[key]) for key in named}) != 1:
            known = f", and the run's agent is {root!r}" if root and agents else ""
            raise ConfigurationError(
                f"--app {app!r} names no agent, and {place} has {_listed(agents)}{known}. "
                f"Write --app {place}:NAME."
            )
        name = named[0]
    return with_model(agent_named(module, name, place), model, trace)


def _root(trace: Trace | None) -> str | None:
    """The name of the agent that the run was of."""
    return trace.agent_start.get("agent") if trace is not None else None


def with_model(agent: Agent[Any], model: str | None, trace: Trace | None) -> Agent[Any]:
    """The agent with the model of this name, if one is given.

    Raises:
        ConfigurationError: There is no such model, or none that a name alone makes.
    """
    if model is None:
        return agent
    try:
        resolve_model(model)
    except ConfigurationError as error:
        asked = (one for one in (trace.events if trace else ()) if one["event"] == "model.start")
        if model not in {one.get("model") for one in asked}:
            raise
        raise ConfigurationError(
            f"The run was made with a model that calls itself {model!r}, and which cannot be made "
            "from that name alone. Give --app an agent that has it, as the program that was run, "
            "and no --model; or, for a replay, --strictness request, which does not compare models."
        ) from error
    return agent.with_(model=model)


def split_name(app: str) -> tuple[str, str]:
    """The file or module, and the name after the colon; empty if there is none."""
    # A colon at index 1 stands after a drive letter.
    place, _, name = app.rpartition(":") if ":" in app[2:] else (app, "", "")
    return place, name


def options_of(app: str | None, model: object) -> list[str]:
    """Return the options by which a command finds this agent with the model of this name."""
    named = ["--app", app or "FILE.py:NAME"]
    return [*named, "--model", model] if isinstance(model, str) else named


def agent_named(module: ModuleType, name: str, place: str) -> Agent[Any]:
    """The agent of this name in a module that was imported from `place`.

    Raises:
        ConfigurationError: There is none.
    """
    agents = agents_in(module)
    if not hasattr(module, name):
        raise ConfigurationError(f"{place} has no {name!r}; it has {_listed(agents)}.")
    found = getattr(module, name)
    if not isinstance(found, Agent):
        raise ConfigurationError(
            f"{name!r} in {place} is a {type(found).__name__}, not an Agent; "
            f"the module has {_listed(agents)}."
        )
    return cast("Agent[Any]", found)


def imported(app: str) -> ModuleType:
    """The module of an `--app` that was loaded."""
    place, _ = split_name(app)
    return sys.modules[Path(place).stem if is_file(place) else place]


def is_file(place: str) -> bool:
    """Whether an `--app` names a file, and not a module."""
    return place.endswith(".py") or "/" in place


def agents_in(module: ModuleType) -> dict[str, Agent[Any]]:
    """The agents at the top level of a module, by their names there."""
    named = vars(module).items()
    return {key: cast("Agent[Any]", one) for key, one in named if isinstance(one, Agent)}


def load_module(place: str) -> ModuleType:
    """Import a file, or a module by its dotted name.

    Raises:
        ConfigurationError: It does not exist, or it fails while it is imported.
    """
    path = Path(place)
    if not is_file(place):
        try:
            sys.path.insert(0, str(Path.cwd()))
            return importlib.import_module(place)
        except (Exception, SystemExit) as error:
            raise ConfigurationError(
                f"The module {place!r} cannot be imported: {_where(error, Path.cwd())}"
            ) from error
        finally:
            sys.path.pop(0)
    if not path.is_file():
        raise ConfigurationError(f"There is no file {place!r} (from {str(Path.cwd())!r}).")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"{place} fails while it is imported: {_where(error, path.parent)}"
        ) from error
    return module


def _where(error: BaseException, folder: Path) -> str:
    """The error, and the innermost line in this folder that it came through."""
    said = f"{type(error).__name__}: {error}"
    lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        said = f"{type(error).__name__}: {error.msg}"  # its text names the line once more
        lines.append((error.filename or "", error.lineno))
    for file, line in reversed(lines):
        path, here = Path(file).resolve(), Path.cwd()
        theirs = "site-packages" in path.parts or path.is_relative_to(_OURS)
        if path.is_file() and path.is_relative_to(folder.resolve()) and not theirs:
            return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line}: {said}"
    return said


def _listed(agents: Iterable[str]) -> str:
    names = ", ".join(sorted(agents))
    return f"the agents {names}" if names else "no agents"
