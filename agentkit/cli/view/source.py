"""Python as a person would write it: the text of a test that expects what a run gave."""

from __future__ import annotations

import json
import math
import re
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
    """What a test is written of.

    Attributes:
        name: The function's, without `test_`.
        fixture: The recording, relative to the test.
        agent: The name of the agent in its module.
        model: The name of the model that it runs with, if not with its own.
        module: The module's dotted name.
        messages: What the run began with; the first `earlier` are history.
        asked: What the run was given instead of its agent's settings and limits.
        ended: How a replay of it ends.
        anew: How it is recorded anew; empty if it cannot be.
        live_tools: The tools that the test runs for real.
        path: The folder that has to be on `sys.path` to import the module, as an expression.
    """

    name: str
    fixture: str
    agent: str
    module: str
    messages: Sequence[Message]
    earlier: int
    asked: Mapping[str, Any]
    ended: RunResult[Any] | AgentKitError
    anew: str
    live_tools: Sequence[str] = ()
    model: str | None = None
    path: str | None = None


def source_of(case: Case) -> str:
    """The test file."""
    call, before = _call(case)
    live = f", live_tools={literal([*case.live_tools])}" if case.live_tools else ""
    marked = f"{literal(case.fixture)}{live}"
    marker = f"@pytest.mark.agentkit_replay({marked})"
    body = [*before, *_expected(case, call)]
    text = "\n".join(f"    {line}" if line else "" for part in body for line in part.split("\n"))
    return "\n".join(
        [
            _docstring(case.anew),
            "",
            *_imports(case, text),
            "",
            "",
            marker if len(marker) <= 88 else f"@pytest.mark.agentkit_replay(\n    {marked}\n)",
            f"def test_{case.name}() -> None:",
            text,
            "",
        ]
    )


def _docstring(anew: str) -> str:
    """What the file is, in one line if that fits."""
    flat = f"A recorded run as a test. {anew}".rstrip()
    if len(flat) <= _WIDTH - 6:
        return f'"""{flat}"""'
    return f'"""A recorded run as a test.\n\n{anew}\n"""'


def _imports(case: Case, text: str) -> list[str]:
    """What `text` needs, sorted as ruff and isort do."""
    ended = case.ended
    used = re.findall(r"\b(?:ChatSettings|Limits|Trace)\b(?=[.(])", text)
    ours = [f"from agentkit import {', '.join(sorted(set(used)))}"] if used else []
    if isinstance(ended, AgentKitError):
        ours.append(f"from agentkit.errors import {type(ended).__name__}")
    standard = ["import sys"] if case.path else []
    standard += ["from pathlib import Path"] if "Path(" in text or case.path else []
    third = ["import pytest"]
    third += (
        ["from pydantic_core import to_jsonable_python"] if "to_jsonable_python(" in text else []
    )
    agent = f"from {case.module} import {case.agent}"
    blocks = [standard, [*third, *ours]]
    if case.path:
        # The application is not installed, and pytest would not find it.
        blocks += [[f"sys.path.insert(0, str({case.path}))"], [f"{agent}  # noqa: E402"]]
    else:
        blocks += [[agent]]
    return "\n\n".join("\n".join(block) for block in blocks if block).split("\n")


def _call(case: Case) -> tuple[str, list[str]]:
    """The call of the agent, and what stands before it."""
    prompt = case.messages[-1] if len(case.messages) == case.earlier + 1 else None
    text = prompt.content if isinstance(prompt, UserMessage) and not prompt.name else None
    plain = isinstance(text, str) and len(text) <= _LONG
    before: list[str] = []
    if plain and not case.earlier:
        arguments = [literal(text, indent=4)]
    else:
        before = [
            f"trace = Trace.load(Path(__file__).parent / {literal(case.fixture)})",
            "messages, earlier = trace.input()" if plain else "messages, _ = trace.input()",
        ]
        history = "messages[:earlier]" if plain else "messages"
        arguments = [literal(text if plain else None, indent=4), f"history={history}"]
    if (settings := settings_of(case.asked)) is not None:
        arguments.append(f"settings={_constructed(settings)}")
    if (limits := limits_of(case.asked)) is not None:
        arguments.append(f"limits={_constructed(limits)}")
    agent = case.agent
    if case.model is not None:
        agent += f".with_(model={literal(case.model)})"
    flat = ", ".join(arguments)
    if len(flat) < _WIDTH - 32 and "\n" not in flat:
        return f"{agent}.run_sync({flat})", before
    if len(arguments) == 1 and flat.startswith("(\n"):
        return f"{agent}.run_sync{literal(case.messages[-1].text)}", before
    lines = "".join(f"    {argument},\n" for argument in arguments)
    return f"{agent}.run_sync(\n{lines})", before


def _constructed(value: Any) -> str:
    """A dataclass as the call that makes it, without what is the default."""
    default = type(value)()
    given = ((one.name, getattr(value, one.name)) for one in fields(value))
    changed = [f"{key}={literal(v)}" for key, v in given if v != getattr(default, key)]
    return f"{type(value).__name__}({', '.join(changed)})"


def _expected(case: Case, call: str) -> list[str]:
    """The call, and the assertions about how it ends."""
    ended = case.ended
    if isinstance(ended, AgentKitError):
        indented = call.replace("\n", "\n    ")
        foreign = isinstance(ended, RecordedError)
        raised = f"with pytest.raises({type(ended).__name__}){' as failure' * foreign}:"
        more = ["", f"assert failure.value.type == {literal(ended.type)}"] if foreign else []
        return [raised, f"    {indented}", *more]
    asserted = [*_assertions("result.output", ended.output)]
    if len(asserted) > _MANY:
        asserted = [_equal("to_jsonable_python(result.output)", _jsonable(ended.output))]
    if ended.status == "paused":
        waiting = [pending.call.name for pending in ended.pending]
        asserted = [
            'assert result.status == "paused"',
            _equal("[pending.call.name for pending in result.pending]", waiting),
        ]
    return [f"result = {call}", "", *asserted]


def _assertions(name: str, value: Any) -> Iterator[str]:
    """What to assert of a value: of a typed one field by field."""
    if value is None or isinstance(value, bool):
        yield f"assert {name} is {value}"
    elif isinstance(value, str) and len(value) > _LONG:
        yield f"assert len({name}) == {len(value)}"
        for method, part in (("startswith", value[:_END]), ("endswith", value[-_END:])):
            yield f"assert {name}.{method}({_flat(part)})"
    elif _is_literal(value):
        yield _equal(name, value)
    elif isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        names = type(value).model_fields if isinstance(value, BaseModel) else _field_names(value)
        for part in names:
            yield from _assertions(f"{name}.{part}", getattr(value, part))
    elif isinstance(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        yield f"assert len({name}) == {len(items)}"
        for index, item in enumerate(items):
            yield from _assertions(f"{name}[{index}]", item)
    else:
        yield _equal(f"to_jsonable_python({name})", _jsonable(value))


def _field_names(value: Any) -> list[str]:
    return [one.name for one in fields(value)]


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
    """A JSON value as Python, on one line where it fits, else part by part.

    Args:
        value: The value.
        indent: How far in its further lines stand.
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
    """A long text in lines: its own, and those cut between words."""
    return [
        part
        for line in text.splitlines(keepends=True)
        for part in re.findall(r"[\s\S]{1,72}\Z|[\s\S]{1,72}(?<=\s)|[\s\S]{1,72}", line)
    ]
