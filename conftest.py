"""Run the Python blocks of README.md and docs/ as tests.

The blocks of a page run from top to bottom and share one namespace. Top-level
`await` works as in a notebook. Put `<!-- skip: next "reason" -->` before a
block that cannot run.
"""

from __future__ import annotations

import ast
import gc
import inspect
import os
import tempfile
from typing import Any

import anyio
import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

# What is collected stays to the end: to look for garbage in it takes a fifth of the time.
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage again, from here on only in what tests leave."""
    gc.enable()
    gc.freeze()


def run_block(example: Example) -> None:
    """Run one block in the page's namespace, with the page's line numbers in tracebacks."""
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
    code = compile(source, example.path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    outcome: Any = eval(code, example.namespace)
    if inspect.iscoroutine(outcome):

        async def main() -> None:
            await outcome

        anyio.run(main)


def enter_page(names: dict[str, Any]) -> None:
    """Give a page its own working folder for the files that its blocks write."""
    names["_folder"] = tempfile.TemporaryDirectory()
    names["_home"] = os.getcwd()
    os.chdir(names["_folder"].name)


def leave_page(names: dict[str, Any]) -> None:
    """Return to the folder that the tests run in."""
    os.chdir(names["_home"])
    names["_folder"].cleanup()


# What takes longest, and waits most. Where it came last, all but one worker would be idle.
SLOW = """
    testing/test_plugin durable/temporal/test_survival viewer/test_runs cli/test_test_from
    models/local/test_model viewer/test_page cli/test_cli viewer/test_live cli/test_terminal
    durable/test_kill agentkit_tools/test_programs models/local/test_weights cli/test_demo
    mcp/test_client mcp/test_server mcp/test_foreign durable/temporal/test_refusals
    durable/temporal/test_contract durable/temporal/test_runs cli/test_load cli/test_show
    agentkit_tools/test_sql serve/test_endpoint docs/test_examples trace/test_recorder
""".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow files; workers take one file after the other."""
    places = {f"tests/{name}.py": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return twice the number of cores: half of their time, tests wait for others."""
    return 2 * (os.cpu_count() or 1)


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove API keys and settings of this machine."""
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
