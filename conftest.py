"""Runs the Python blocks of README.md and of the pages in docs/ as tests.

The blocks of one page share their names, from top to bottom. Top-level `await`
works as it does in a notebook. A block that cannot run here is skipped by the
comment `<!--- skip: next "reason" -->` before it.
"""

from __future__ import annotations

import ast
import inspect
import os
import tempfile
from typing import Any

import anyio
import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser


def run_block(example: Example) -> None:
    """Run one block in the page's names, with the lines of the page in its traceback."""
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
    code = compile(source, example.path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    outcome: Any = eval(code, example.namespace)
    if inspect.iscoroutine(outcome):

        async def main() -> None:
            await outcome

        anyio.run(main)


def enter_page(names: dict[str, Any]) -> None:
    """What the blocks of a page write goes into a folder of its own."""
    names["_folder"] = tempfile.TemporaryDirectory()
    names["_home"] = os.getcwd()
    os.chdir(names["_folder"].name)


def leave_page(names: dict[str, Any]) -> None:
    """Back to where the tests run."""
    os.chdir(names["_home"])
    names["_folder"].cleanup()


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and settings of this machine do not count."""
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("AGENTKIT_TRACE_DIR", raising=False)


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser("python", run_block), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    excludes=["docs/design/*"],
    setup=enter_page,
    teardown=leave_page,
    fixtures=["no_keys"],
).pytest()
