"""Public callables of well-known libraries: each becomes a tool, or is refused with a reason."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from agentkit.errors import InvalidTool
from agentkit.tools import Tool

# Installed with agentkit's development extra, and how many of their callables are tools at least.
LIBRARIES = {
    "anyio": 60,
    "httpx2": 25,
    "hypothesis.strategies": 20,
    "json": 0,
    "pydantic": 25,
    "pytest": 15,
    "rich.console": 20,
    "rich.table": 5,
    "shutil": 0,
    "structlog.processors": 5,
    "structlog.stdlib": 15,
}


def callables(library: str) -> Iterator[tuple[str, Any]]:
    """Public functions and classes of a module, and the public functions in its classes."""
    module = importlib.import_module(library)
    for name in getattr(module, "__all__", dir(module)):
        found = getattr(module, name)
        if name.startswith("_") or not callable(found) or inspect.ismodule(found):
            continue
        yield name, found
        for key, member in vars(found).items() if inspect.isclass(found) else ():
            if not key.startswith("_") and isinstance(member, (classmethod, staticmethod)):
                yield f"{name}.{key}", getattr(found, key)
            elif not key.startswith("_") and inspect.isfunction(member):
                yield f"{name}.{key}", member.__get__(object())


@pytest.mark.storm_only
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_callable_is_a_tool_or_is_refused_with_a_reason(library: str) -> None:
    """Nothing crashes, every schema is valid, and every refusal says what to do."""
    tools, refused = 0, dict[str, str]()
    for name, function in callables(library):
        try:
            tool = Tool(function, name="x")
            schema = tool.parameters
        except InvalidTool as error:
            refused[name] = str(error)
            continue
        jsonschema_rs.meta.validate(schema)
        assert isinstance(tool.description, str)
        assert tool.strict or tool.warnings
        tools += 1
    advice = ("Annotate it", "Wrap it", "Give it a type", "set `__signature__`")
    assert not [n for n in refused if not any(text in refused[n] for text in advice)]
    assert tools >= LIBRARIES[library]
