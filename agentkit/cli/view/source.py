"""The text of a test that expects what a recorded run returned."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pprint import pformat
from typing import Any

from pydantic_core import to_jsonable_python

from agentkit.errors import AgentKitError, RecordedError
from agentkit.messages import UserMessage, is_object
from agentkit.runtime.result import RunResult
from agentkit.settings import limits_of, settings_of
from agentkit.trace.reader import Trace

_WIDTH = 88
_LONG = 2000
"""Characters of a prompt that stays in the recording."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What a test is made from.

    Attributes:
        name: The function's, without `test_`.
        fixture: The recording, relative to the test.
        agent: The expression for the agent.
        deps: The one for its deps.
        imports: The names that these need, by module.
        model: The name of the model that it runs with, if not with its own.
        trace: The recorded run.
        ended: How a replay of it ends.
        live: The tools that the test runs for real.
        path: The folder that has to be on `sys.path` to import the module, as an expression.
    """

    name: str
    fixture: str
    agent: str
    deps: str | None
    imports: Mapping[str, set[str]]
    model: str | None
    trace: Trace
    ended: RunResult[Any] | AgentKitError
    live: Sequence[str]
    path: str | None = None


def source_of(case: Case) -> str:
    """Return the test file."""
    body = textwrap.indent("\n".join(_body(case)), "    ")
    anew = _anew(case.trace)
    doc = f"A recorded run as a test. {anew}".rstrip()
    if len(doc) > _WIDTH - 6:
        doc = f"A recorded run as a test.\n\n{anew}\n"
    head = "\n\n".join([f'"""{doc}"""', *_imports(case, body)])
    live = f", live={[*case.live]}" if case.live else ""
    marker = f"@pytest.mark.agentkit_replay({case.fixture!r}{live})"
    return f"{head}\n\n\n{marker}\ndef test_{case.name}() -> None:\n{body}\n"


def _anew(trace: Trace) -> str:
    """Return how the run can be recorded anew; empty if it cannot."""
    result = trace.patch.get("result")
    decision = is_object(result) and "kind" in result
    if trace.patch.get("messages") or (result is not None and not decision):
        return ""  # a new run would not have what the fork had
    call = "pytest --agentkit-record=all"
    if any(one.decision is not None for one in trace.effects.values()):
        return f"To record it anew, give the call below an approver=, and: {call}"
    return f"Record it anew: {call}"


def _imports(case: Case, body: str) -> list[str]:
    """Return the blocks of imports that the test needs, sorted as ruff and isort do."""
    ours = sorted({*re.findall(r"\b(?:ChatSettings|Limits|Trace)\b(?=[.(])", body)})
    error = type(case.ended).__name__ if isinstance(case.ended, AgentKitError) else None
    own = [f"from {one} import {', '.join(sorted(names))}" for one, names in case.imports.items()]
    lines = {
        "import sys": case.path,
        "from pathlib import Path": case.path or "Path(" in body,
        "": True,
        "import anyio": "anyio.run(" in body,
        "import pytest": True,
        f"from agentkit import {', '.join(ours)}": ours,
        f"from agentkit.errors import {error}": error,
        "from pydantic_core import to_jsonable_python": "to_jsonable_python(" in body,
    }
    blocks = "\n".join(line for line, needed in lines.items() if needed).strip().split("\n\n")
    if not case.path:
        return [*blocks, "\n".join(sorted(own))]
    # The application is not installed, and pytest would not find it.
    found_so = [f"{one}  # noqa: E402" for one in sorted(own)]
    return [*blocks, f"sys.path.insert(0, str({case.path}))", "\n".join(found_so)]


def _body(case: Case) -> list[str]:
    """Return the lines of the test: the call, and what it expects."""
    call, before = _call(case)
    ended = case.ended
    if isinstance(ended, AgentKitError):
        foreign = isinstance(ended, RecordedError)
        raised = f"with pytest.raises({type(ended).__name__}){' as failure' * foreign}:"
        more = ["", f"assert failure.value.type == {ended.type!r}"] if foreign else []
        return [*before, raised, textwrap.indent(call, "    "), *more]
    if ended.status == "paused":
        expected = ['assert result.status == "paused"']
        name, value = "[one.call.name for one in result.pending]", _called(ended)
    else:
        expected = []
        name, value = "result.output", to_jsonable_python(ended.output, fallback=repr)
        if type(value) is not type(ended.output) or value != ended.output:
            name = f"to_jsonable_python({name})"
    if isinstance(value, (bool, type(None))):
        return [*before, f"result = {call}", "", f"assert {name} is {value}"]
    head = f"assert {name} == "
    expected.append(head + literal(value, used=len(head)))
    return [*before, f"result = {call}", "", *expected]


def _called(ended: RunResult[Any]) -> list[str]:
    return [one.call.name for one in ended.pending]


def _call(case: Case) -> tuple[str, list[str]]:
    """Return the call of the agent, and the lines before it."""
    messages, earlier = case.trace.input()
    prompt = messages[-1] if len(messages) == earlier + 1 else None
    text = prompt.content if isinstance(prompt, UserMessage) and not prompt.name else None
    plain = isinstance(text, str) and len(text) <= _LONG
    before: list[str] = []
    arguments = [literal(text if plain else None)]
    if earlier or not plain:
        before = [
            f"trace = Trace.load(Path(__file__).parent / {case.fixture!r})",
            "messages, earlier = trace.input()" if plain else "messages, _ = trace.input()",
        ]
        arguments.append(f"history={'messages[:earlier]' if plain else 'messages'}")
    arguments += [f"deps={case.deps}"] if case.deps else []
    given = case.trace.options()
    for name, value in (("settings", settings_of(given)), ("limits", limits_of(given))):
        arguments += [f"{name}={_constructed(value)}"] if value is not None else []
    agent = case.agent + (f".with_(model={case.model!r})" if case.model else "")
    flat = ", ".join(arguments)
    if len(flat) > _WIDTH - 32 or "\n" in flat:
        flat = "\n" + "".join(f"{textwrap.indent(one, '    ')},\n" for one in arguments)
    return f"{agent}.run_sync({flat})", before


def _constructed(value: Any) -> str:
    """Return a dataclass as the call that makes it, without its defaults."""
    default = type(value)()
    values = ((one.name, getattr(value, one.name)) for one in fields(value))
    changed = [f"{key}={v!r}" for key, v in values if v != getattr(default, key)]
    return f"{type(value).__name__}({', '.join(changed)})"


def literal(value: Any, *, used: int = 0) -> str:
    """Return a JSON value as Python; its further lines stand below the first.

    Args:
        value: The value.
        used: Columns that stand before it on its first line.
    """
    text = pformat(value, width=max(_WIDTH - 4 - used, _WIDTH // 2), sort_dicts=False)
    return text.replace("\n", "\n" + " " * used)
