"""Finds the agent that `FILE.py:NAME` names, as in `--app`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from agentkit.agent import Agent
from agentkit.errors import ConfigurationError

__all__ = ["agent_named", "load_agent", "load_module", "split_name"]


def load_agent(app: str) -> Agent[Any]:
    """Import `path/to/file.py:name` or `package.module:name` and return the agent of that name.

    Without a name the module's only agent is taken.

    Raises:
        ConfigurationError: There is no such file, module or agent.
    """
    place, name = split_name(app)
    module = load_module(place)
    if not name:
        agents = _agents(module)
        if len(agents) != 1:
            raise ConfigurationError(
                f"--app {app!r} names no agent, and {place} has {_listed(agents)}. "
                f"Write --app {place}:NAME."
            )
        name = agents[0]
    return agent_named(module, name, place)


def split_name(app: str) -> tuple[str, str]:
    """The file or module, and the name after the colon; empty if there is none."""
    # A colon at index 1 stands after a drive letter.
    place, _, name = app.rpartition(":") if ":" in app[2:] else (app, "", "")
    return place, name


def agent_named(module: ModuleType, name: str, place: str) -> Agent[Any]:
    """The agent of this name in a module that was imported from `place`.

    Raises:
        ConfigurationError: There is none.
    """
    agents = _agents(module)
    if not hasattr(module, name):
        raise ConfigurationError(f"{place} has no {name!r}; it has {_listed(agents)}.")
    found = getattr(module, name)
    if not isinstance(found, Agent):
        raise ConfigurationError(
            f"{name!r} in {place} is a {type(found).__name__}, not an Agent; "
            f"the module has {_listed(agents)}."
        )
    return cast("Agent[Any]", found)


def load_module(place: str) -> ModuleType:
    """Import a file, or a module by its dotted name.

    Raises:
        ConfigurationError: It does not exist, or it fails while it is imported.
    """
    path = Path(place)
    if not place.endswith(".py") and "/" not in place:
        try:
            sys.path.insert(0, str(Path.cwd()))
            return importlib.import_module(place)
        except (Exception, SystemExit) as error:
            raise ConfigurationError(
                f"The module {place!r} cannot be imported: {type(error).__name__}: {error}"
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
            f"{place} fails while it is imported: {type(error).__name__}: {error}"
        ) from error
    return module


def _agents(module: ModuleType) -> list[str]:
    return sorted(key for key, value in vars(module).items() if isinstance(value, Agent))


def _listed(agents: list[str]) -> str:
    return f"the agents {', '.join(agents)}" if agents else "no agents"
