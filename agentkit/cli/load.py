"""Loads what a command needs of an application: the agent of `--app`, the deps of `--deps`."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Annotated, Any, TypeAlias, TypeVar, cast

from cyclopts import Parameter

from agentkit.agent import Agent
from agentkit.errors import ConfigurationError
from agentkit.models import resolve_model
from agentkit.trace.reader import Trace

Many: TypeAlias = Annotated[list[str] | None, Parameter(negative="")]
"""An option that may be repeated."""
ValueT = TypeVar("ValueT")
_OURS = Path(__file__).resolve().parents[1]
"""agentkit itself: a line of it is of no help to the author of an application."""


def without_server(command: str, error: ImportError) -> ConfigurationError:
    """Return the error for a command that serves, where the extra for that is not installed."""
    return ConfigurationError(
        f"{command} needs the extra serve ({error.name} is missing): "
        'pip install "agentkit-replay[serve]".'
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Application:
    """An agent and its deps, and the event loop in which they are made and run.

    Attributes:
        names: The values of `--app`, `--model` and `--deps`.
    """

    agent: Agent[Any]
    deps: Any
    names: tuple[str, str | None, str | None]
    loop: asyncio.Runner

    def options(self, model: str | None = None) -> list[str]:
        """Return the options by which another command finds the same, or with another model."""
        app, own, deps = self.names
        return options_of(app, model or own, deps)

    def run(self, work: Callable[[], Coroutine[Any, Any, ValueT]]) -> ValueT:
        """Run a coroutine to its end."""
        return self.loop.run(work())

    def check_deps(self) -> None:
        """Check that the agent has the deps that its tools need, before anything runs."""
        try:
            self.agent.config.check_deps(self.deps)
        except ConfigurationError as error:
            option = "give --deps FILE.py:NAME, the deps or a function that returns them."
            raise ConfigurationError(error.message.replace("pass deps=….", option)) from None


@contextmanager
def application(
    app: str, trace: Trace | None = None, *, model: str | None = None, deps: str | None = None
) -> Generator[Application]:
    """Load an agent, and what its tools depend on.

    Args:
        app: `path/to/file.py:NAME` or `package.module:NAME`: an agent, or a function that
            returns one. Without a name, the module's only agent, or the one of the trace.
        trace: The run that the agent has made.
        model: The name of a model, instead of the agent's own.
        deps: `FILE.py:NAME` or `MODULE:NAME`: the deps, or a function that returns them.
    """
    with asyncio.Runner() as loop:
        agent = with_model(load_agent(loop, app, trace), model, trace)
        value = None if deps is None else load_deps(loop, deps)
        yield Application(agent=agent, deps=value, names=(app, model, deps), loop=loop)


@contextmanager
def applications(
    app: str, *, deps: str | None = None
) -> Generator[tuple[asyncio.Runner, list[Agent[Any]], Any]]:
    """Load all agents of a file or module, or the one that is named, and their deps.

    Args:
        app: As of `application`.
        deps: As of `application`.

    Yields:
        The event loop in which they are made and run, the agents, and the deps.
    """
    with asyncio.Runner() as loop:
        place, name = split_name(app)
        if name:
            agents = [load_agent(loop, app)]
        else:
            module = load_module(place)
            agents = [*{id(one): one for one in agents_in(module).values()}.values()]
            if not agents:
                raise ConfigurationError(f"{place} has no agent at its top level. Name a function.")
        yield loop, agents, None if deps is None else load_deps(loop, deps)


def options_of(app: str, model: str | None, deps: str | None) -> list[str]:
    """Return the options by which a command finds this application."""
    options = {"--app": app, "--model": model, "--deps": deps}
    return [word for name, value in options.items() if value for word in (name, value)]


def load_agent(loop: asyncio.Runner, app: str, trace: Trace | None = None) -> Agent[Any]:
    """Import an application and return its agent; see `application`."""
    place, name = split_name(app)
    module = load_module(place)
    if not name:
        agents = agents_in(module)
        root = trace.agent_start.get("agent") if trace is not None else None
        named = [key for key, one in agents.items() if len(agents) == 1 or one.name == root]
        if len({id(agents[key]) for key in named}) != 1:
            known = f", and the run's agent is {root!r}" if root and agents else ""
            raise ConfigurationError(
                f"--app {app!r} names no agent, and {place} has {_listed(agents)}{known}. "
                f"Write --app {place}:NAME."
            )
        name = named[0]
    return agent_of(loop, module, name, place)


def agent_of(loop: asyncio.Runner, module: ModuleType, name: str, place: str) -> Agent[Any]:
    """Return the agent of this name in a module that was imported from `place`."""
    if not hasattr(module, name):
        raise ConfigurationError(f"{place} has no {name!r}; it has {_listed(agents_in(module))}.")
    agent = value_of(loop, getattr(module, name), f"{name!r} in {place}", place)
    if not isinstance(agent, Agent):
        raise ConfigurationError(
            f"{name!r} in {place} gives a value of type {type(agent).__name__}; expected an Agent, "
            f"or a function that returns one. {place} has {_listed(agents_in(module))}."
        )
    return cast("Agent[Any]", agent)


def load_deps(loop: asyncio.Runner, deps: str) -> Any:
    """Return the deps of `--deps`; see `application`."""
    place, name = split_name(deps)
    if not name:
        raise ConfigurationError(f"--deps {deps!r} names no value: write --deps {deps}:NAME.")
    file = str(Path(place).resolve())
    # The classes of another import of the same file would be others.
    known = (one for one in [*sys.modules.values()] if is_file(place) and _file(one) == file)
    module = next(known, None) or load_module(place)
    if not hasattr(module, name):
        raise ConfigurationError(f"--deps {deps!r}: {place} has no {name!r}.")
    return value_of(loop, getattr(module, name), f"--deps {deps!r}", place)


def _file(module: object) -> str | None:
    file = getattr(module, "__file__", None)
    return str(Path(file).resolve()) if isinstance(file, str) else None


def value_of(loop: asyncio.Runner, value: Any, what: str, place: str) -> Any:
    """Return a value, or what the function returns that is in its place."""
    if not is_factory(value):
        return value
    try:
        inspect.signature(value).bind()
    except TypeError as error:
        raise ConfigurationError(f"{what} is called without arguments: {error}.") from None
    except ValueError:  # of some built-in classes it is not known
        pass
    try:
        result = value()  # outside the event loop, as a program calls it
        return loop.run(_awaited(result)) if inspect.isawaitable(result) else result
    except (Exception, SystemExit) as error:
        folder = Path(place).parent if is_file(place) else Path.cwd()
        raise ConfigurationError(f"{what} fails: {_where(error, folder)}") from error


def is_factory(value: Any) -> bool:
    """Return whether a value is a function, or a class, which is called for the value to use."""
    return isinstance(value, (FunctionType, MethodType, BuiltinFunctionType, type, partial))


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def with_model(agent: Agent[Any], model: str | None, trace: Trace | None) -> Agent[Any]:
    """Return the agent with the model of this name, if there is one."""
    if model is None:
        return agent
    try:
        resolve_model(model)
    except ConfigurationError as error:
        effects = trace.effects.values() if trace is not None else ()
        if model not in {one.name for one in effects if one.kind == "model"}:
            raise
        raise ConfigurationError(
            f"The run used a model named {model!r}, which cannot be made from its name alone. "
            "Name an agent that has it with --app, as the program that ran, and no --model; or, "
            "for a replay, use --strictness structural, which does not compare models."
        ) from error
    return agent.with_(model=model)


def split_name(app: str) -> tuple[str, str]:
    """Return the file or module, and the name after the colon; empty if there is none."""
    # A colon at index 1 stands after a drive letter.
    place, _, name = app.rpartition(":") if ":" in app[2:] else (app, "", "")
    return place, name


def imported(app: str) -> ModuleType:
    """Return the module of an `--app` that was loaded."""
    place, _ = split_name(app)
    return sys.modules[Path(place).stem if is_file(place) else place]


def is_file(place: str) -> bool:
    """Return whether an `--app` names a file, and not a module."""
    return place.endswith(".py") or "/" in place


def agents_in(module: ModuleType) -> dict[str, Agent[Any]]:
    """Return the agents at the top level of a module, by their names there."""
    named = vars(module).items()
    return {key: cast("Agent[Any]", one) for key, one in named if isinstance(one, Agent)}


def load_module(place: str) -> ModuleType:
    """Import a file, or a module by its dotted name."""
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
    """Return the error, and the innermost line in this folder that it came through."""
    text = f"{type(error).__name__}: {error}"
    lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        text = f"{type(error).__name__}: {error.msg}"  # its text names the line once more
        lines.append((error.filename or "", error.lineno))
    for file, line in reversed(lines):
        path, here = Path(file).resolve(), Path.cwd()
        theirs = "site-packages" in path.parts or path.is_relative_to(_OURS)
        if path.is_file() and path.is_relative_to(folder.resolve()) and not theirs:
            return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line}: {text}"
    return text


def _listed(agents: Iterable[str]) -> str:
    names = ", ".join(sorted(agents))
    return f"the agents {names}" if names else "no agents"
