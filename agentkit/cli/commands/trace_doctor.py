"""`agentkit trace doctor`: runs an agent twice and shows where the second run differs.

The second run gets the model's answers of the first, so whatever differs comes from
the application: its instructions, toolsets, settings, validators and tools.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from agentkit.agent import Agent
from agentkit.cli.console import print_line, print_note
from agentkit.cli.load import Application, agents_in, application, imported, load_agent, split_name
from agentkit.cli.view.run import effects_of, print_held_back
from agentkit.core.effects import ancestors
from agentkit.errors import ConfigurationError, ReplayDivergence
from agentkit.messages import JsonObject
from agentkit.replay.replay import ReplayOptions, replay
from agentkit.replay.report import excerpt
from agentkit.runtime.result import RunResult, result_of
from agentkit.tools import Tool, Toolset
from agentkit.trace.compare import Found, differences
from agentkit.trace.reader import Trace


def trace_doctor(
    prompt: str,
    /,
    *,
    app: str,
    deps: str | None = None,
    all_tools: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Run an agent twice and show what is not deterministic in its own prompts and tools.

    The first run is real. The second is given the model's answers of the first, and runs
    the application's functions for real again, and the tools whose effect is "read".

    Args:
        prompt: The prompt of both runs.
        app: The agent, as FILE.py:NAME or MODULE:NAME.
        deps: What its tools need, as FILE.py:NAME: the value, or a function that returns it.
        all_tools: Run the tools that write a second time, too.
    """
    with application(app, deps=deps) as loaded:
        loaded.check_deps()
        agent = loaded.agent
        trace, second = loaded.run(lambda: _twice(agent, prompt, all_tools, loaded.deps))
        divergences = second.divergences
        agents = [*agents_in(imported(app)).values(), agent]
        _print_differences(trace, divergences, {one.name: _functions(one) for one in agents})
        again = _imported_again(loaded, app)
    for one in again:
        print_line("When the file is imported again:", "bold")
        _print_both(one.pointer, one.position, one.expected, one.actual)
    assert second.replayed is not None
    print_held_back(trace, second.replayed.held_back, "--all-tools")
    answered = any(one.kind == "model" and one.status == "ok" for one in trace.effects.values())
    if not answered:
        print_line("No run reached an end: the model answered nothing.", "red")
    if divergences or again or not answered:
        sys.exit(1)
    print_line("Nothing differed: given the same answers of the model, the run repeats.", "green")


async def _twice(
    agent: Agent[Any, Any], prompt: str, all_tools: bool, deps: Any
) -> tuple[Trace, RunResult[Any]]:
    """Run live, then again with the model's answers; return the trace and the second result."""
    trace = await _record(agent, prompt, deps)
    options = ReplayOptions(
        plan="tools_live",
        live=effects_of(trace, agent) if all_tools else (),
        functions=True,
        ordered=False,
        on_divergence="warn",
    )
    try:
        return trace, await replay(agent.config, trace, options, deps=deps)
    except Exception as error:
        if (reached := result_of(error)) is None:
            raise
        return trace, reached


async def _record(agent: Agent[Any], prompt: str, deps: Any) -> Trace:
    """Run live and return the trace, also of a run that failed."""
    try:
        result = await agent.run(prompt, deps=deps, trace=True)
    except Exception as error:
        reached = result_of(error)
        if reached is None or reached.trace is None:
            raise
        print_note(f"The run failed, and is checked as far as it went: {error}")
        return reached.trace
    if result.status != "ok":
        print_note(f"The run is {result.status}, and is checked as far as it went.")
    assert result.trace is not None
    return result.trace


def _print_differences(
    trace: Trace,
    divergences: Iterable[ReplayDivergence],
    functions: Mapping[str, Mapping[str, str]],
) -> None:
    """Print each function and tool once: the first place in full, the others by address.

    Args:
        trace: The first run.
        divergences: Where the second one differed.
        functions: Where functions are defined, by the names of agents and of effects.
    """
    agents = {at: one.name for at, one in trace.effects.items() if one.kind == "agent"}
    names = {at: one.name for at, one in trace.effects.items() if one.kind in ("tool", "compute")}
    places: dict[tuple[str, str | None], list[ReplayDivergence]] = {}
    for one in divergences:
        name = names.get(one.at) or one.kind
        above = [agents[at] for at in ancestors(one.at) if at in agents]
        source = one.source or functions.get(above[-1] if above else "", {}).get(name)
        places.setdefault((name, source), []).append(one)
    for (name, source), here in places.items():
        first, others = here[0], [one.at for one in here[1:]]
        print_line(f"{first.at}  {name}{f'  ({source})' if source else ''}", "bold")
        _print_both(first.pointer or "", first.position, first.expected, first.actual)
        if others:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            print_line(f"  also at {', '.join(others[:3])}{more}")


def _print_both(pointer: str, position: int | None, first: Any, second: Any) -> None:
    print_line(f"  {pointer or '/'}{f', character {position}' if position else ''}")
    print_line(f"    first:  {excerpt(first, position)}")
    print_line(f"    second: {excerpt(second, position)}")


def _functions(agent: Agent[Any]) -> dict[str, str]:
    """Return where the agent's own functions are defined, by the names of their effects."""
    toolsets = [type(one).tools for one in agent.config.tools if isinstance(one, Toolset)]
    functions: dict[str, list[Any]] = {
        "instructions": [agent.config.instructions],
        "toolsets": toolsets,
        "settings": [agent.config.step_settings],
        "compact": [agent.config.compact],
        "output": [agent.config.output],
    }
    for index, validator in enumerate(agent.config.output_validators):
        functions[f"validator{index}"] = [validator]
    for tool in agent.config.tools:
        if isinstance(tool, Tool):
            functions[f"approval:{tool.name}"] = [tool.approval]
    lines = {name: ", ".join(filter(None, map(_line, some))) for name, some in functions.items()}
    return {name: line for name, line in lines.items() if line}


def _line(function: Any) -> str | None:
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else None


def _imported_again(loaded: Application, app: str) -> list[Found]:
    """Return what a new import of the file makes different, before anything runs."""
    if not split_name(app)[0].endswith(".py"):
        return []  # a module is imported once in a process
    try:
        again = load_agent(loaded.loop, app)
    except ConfigurationError as error:
        print_note(f"It cannot be imported twice: {error.message}")
        return []
    return list(differences(_fixed(loaded.agent), _fixed(again)))


def _fixed(agent: Agent[Any]) -> JsonObject:
    """Return what each request of an agent has, whatever the prompt is."""
    spec = agent.program().spec
    return {
        "instructions": spec.instructions,
        "tools": [one.definition.to_json() for one in spec.tools],
        "settings": dict(spec.settings),
    }
