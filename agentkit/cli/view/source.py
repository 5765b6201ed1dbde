"""Python as a person would write it: the text of a test that expects what a run returned."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from agentkit.errors import AgentKitError, RecordedError
from agentkit.messages import Message, UserMessage, is_object
from agentkit.runtime.result import RunResult
from agentkit.settings import limits_of, settings_of

_WIDTH = 88
_MANY = 25
"""Assertions; an output that would need more is compared as a whole."""
_LONG, _END = 2000, 40
"""Characters of a text that is not written out, and of its beginning and end, which are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What a test is made from.

    Attributes:
        name: The function's, without `test_`.
        fixture: The recording, relative to the test.
        agent: The expression that gives the agent.
        deps: The one that gives its deps.
        model: The name of the model that it runs with, if not with its own.
        imports: The names that these need, by module; the first is the agent's.
        messages: What the run began with; the first `earlier` are history.
        given: What the run was given instead of its agent's settings and limits.
        ended: How a replay of it ends.
        anew: How it is recorded anew; empty if it cannot be.
        live: The tools that the test runs for real.
        path: The folder that has to be on `sys.path` to import the module, as an expression.
    """

    name: str
    fixture: str
    agent: str
    imports: Mapping[str, set[str]]
    messages: Sequence[Message]
    earlier: int
    given: Mapping[str, Any]
    ended: RunResult[Any] | AgentKitError
    anew: str
    live: Sequence[str] = ()
    deps: str | None = None
    model: str | None = None
    path: str | None = None


def source_of(case: Case) -> str:
    """Return the test file."""
    call, before = _call(case)
    live = f", live={literal([*case.live])}" if case.live else ""
    marked = f"{literal(case.fixture)}{live}"
    marker = f"@pytest.mark.agentkit_replay({marked})"
    if len(marker) > _WIDTH:
        marker = f"@pytest.mark.agentkit_replay(\n    {marked}\n)"
    body = textwrap.indent("\n".join([*before, *_expected(case, call)]), "    ")
    doc = f"A recorded run as a test. {case.anew}".rstrip()
    if len(doc) > _WIDTH - 6:
        doc = f"A recorded run as a test.\n\n{case.anew}\n"
    head = "\n\n".join([f'"""{doc}"""', *_imports(case, body)])
    return f"{head}\n\n\n{marker}\ndef test_{case.name}() -> None:\n{body}\n"


def _imports(case: Case, body: str) -> list[str]:
    """Return the blocks of imports that the test needs, sorted as ruff and isort do."""
    ours = sorted({*re.findall(r"\b(?:ChatSettings|Limits|Trace)\b(?=[.(])", body)})
    standard = ["import sys"] if case.path else []
    standard += ["from pathlib import Path"] if "Path(" in body or case.path else []
    third = ["import anyio"] if "anyio.run(" in body else []
    third += ["import pytest"]
    third += [f"from agentkit import {', '.join(ours)}"] if ours else []
    if isinstance(case.ended, AgentKitError):
        third.append(f"from agentkit.errors import {type(case.ended).__name__}")
    if "to_jsonable_python(" in body:
        third.append("from pydantic_core import to_jsonable_python")
    own = [f"from {one} import {', '.join(sorted(names))}" for one, names in case.imports.items()]
    blocks = [standard, third, sorted(own)]
    if case.path:
        # The application is not installed, and pytest would not find it.
        blocks[2:] = [
            [f"sys.path.insert(0, str({case.path}))"],
            [f"{one}  # noqa: E402" for one in sorted(own)],
        ]
    return ["\n".join(block) for block in blocks if block]


def _call(case: Case) -> tuple[str, list[str]]:
    """Return the call of the agent, and the lines before it."""
    prompt = case.messages[-1] if len(case.messages) == case.earlier + 1 else None
    text = prompt.content if isinstance(prompt, UserMessage) and not prompt.name else None
    plain = isinstance(text, str) and len(text) <= _LONG
    before: list[str] = []
    arguments = [literal(text if plain else None, indent=4)]
    if case.earlier or not plain:
        before = [
            f"trace = Trace.load(Path(__file__).parent / {literal(case.fixture)})",
            "messages, earlier = trace.input()" if plain else "messages, _ = trace.input()",
        ]
        arguments.append(f"history={'messages[:earlier]' if plain else 'messages'}")
    arguments += [f"deps={case.deps}"] if case.deps else []
    for name, value in (("settings", settings_of(case.given)), ("limits", limits_of(case.given))):
        arguments += [f"{name}={_constructed(value)}"] if value is not None else []
    agent = case.agent + (f".with_(model={literal(case.model)})" if case.model else "")
    flat = ", ".join(arguments)
    if len(flat) < _WIDTH - 32 and "\n" not in flat:
        return f"{agent}.run_sync({flat})", before
    if len(arguments) == 1 and flat.startswith("(\n"):
        return f"{agent}.run_sync{literal(case.messages[-1].text)}", before
    lines = "".join(f"    {argument},\n" for argument in arguments)
    return f"{agent}.run_sync(\n{lines})", before


def _constructed(value: Any) -> str:
    """Return a dataclass as the call that makes it, without its defaults."""
    default = type(value)()
    values = ((one.name, getattr(value, one.name)) for one in fields(value))
    changed = [f"{key}={literal(v)}" for key, v in values if v != getattr(default, key)]
    return f"{type(value).__name__}({', '.join(changed)})"


def _expected(case: Case, call: str) -> list[str]:
    """Return the call, and the assertions about how it ends."""
    ended = case.ended
    if isinstance(ended, AgentKitError):
        indented = call.replace("\n", "\n    ")
        foreign = isinstance(ended, RecordedError)
        raised = f"with pytest.raises({type(ended).__name__}){' as failure' * foreign}:"
        more = ["", f"assert failure.value.type == {literal(ended.type)}"] if foreign else []
        return [raised, f"    {indented}", *more]
    if ended.status == "paused":
        waiting = [pending.call.name for pending in ended.pending]
        asserted = [
            'assert result.status == "paused"',
            _equal("[pending.call.name for pending in result.pending]", waiting),
        ]
    else:
        asserted = [*_assertions("result.output", ended.output)]
        if len(asserted) > _MANY:
            asserted = [_equal("to_jsonable_python(result.output)", _jsonable(ended.output))]
    return [f"result = {call}", "", *asserted]


def _assertions(name: str, value: Any) -> Iterator[str]:
    """Yield what to assert of a value: of a typed one, field by field."""
    if value is None or isinstance(value, bool):
        yield f"assert {name} is {value}"
    elif isinstance(value, str) and len(value) > _LONG:
        yield f"assert len({name}) == {len(value)}"
        for method, part in (("startswith", value[:_END]), ("endswith", value[-_END:])):
            yield f"assert {name}.{method}({_flat(part)})"
    elif _is_literal(value):
        yield _equal(name, value)
    elif isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        model = isinstance(value, BaseModel)
        names = type(value).model_fields if model else [one.name for one in fields(value)]
        for part in names:
            yield from _assertions(f"{name}.{part}", getattr(value, part))
    elif isinstance(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        yield f"assert len({name}) == {len(items)}"
        for index, item in enumerate(items):
            yield from _assertions(f"{name}[{index}]", item)
    else:
        yield _equal(f"to_jsonable_python({name})", _jsonable(value))


def _jsonable(value: Any) -> Any:
    return to_jsonable_python(value, fallback=repr)


def _equal(name: str, value: Any) -> str:
    return f"assert {name} == {literal(value, used=len(name) + 15)}"


def _is_literal(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_literal, cast("list[Any]", value)))
    if is_object(value):
        return all(_is_literal(key) and _is_literal(item) for key, item in value.items())
    known = type(value) in (type(None), bool, int, str)
    return known or (isinstance(value, float) and math.isfinite(value))


def literal(value: Any, *, indent: int = 0, used: int = 0) -> str:
    """Return a JSON value as Python, on one line where it fits, else part by part.

    Args:
        value: The value.
        indent: How far its further lines are indented.
        used: Columns that stand before it on its first line.
    """
    flat = _flat(value)
    if len(flat) + indent + used <= _WIDTH:
        return flat
    pad, end = " " * (indent + 4), " " * indent
    if isinstance(value, str) and len(parts := _parts(value)) > 1:
        lines = "".join(f"{pad}{_flat(part)}\n" for part in parts)
        return f"(\n{lines}{end})"
    if isinstance(value, list):
        items = (literal(item, indent=indent + 4) for item in cast("list[Any]", value))
        lines = "".join(f"{pad}{item},\n" for item in items)
        return f"[\n{lines}{end}]"
    if is_object(value):
        keys = ((_flat(key), item) for key, item in value.items())
        lines = "".join(
            f"{pad}{key}: {literal(item, indent=indent + 4, used=len(key) + 3)},\n"
            for key, item in keys
        )
        return f"{{\n{lines}{end}}}"
    return flat


def _flat(value: Any) -> str:
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)
        if '"' in value and "'" not in value:
            quoted = "'" + quoted[1:-1].replace('\\"', '"') + "'"
        # What cannot be seen is written so that it can.
        return "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode()
            for char in quoted
        )
    if isinstance(value, list):
        return f"[{', '.join(map(_flat, cast('list[Any]', value)))}]"
    if is_object(value):
        return f"{{{', '.join(f'{_flat(key)}: {_flat(item)}' for key, item in value.items())}}}"
    return repr(value)


def _parts(text: str) -> list[str]:
    """Split a long text into lines: its own, and where these are long, between words."""
    return [
        part
        for line in text.splitlines(keepends=True)
        for part in re.findall(r"[\s\S]{1,72}\Z|[\s\S]{1,72}(?<=\s)|[\s\S]{1,72}", line)
    ]
