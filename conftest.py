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
    viewer/ durable/temporal/ testing/test_plugin models/local/test_model cli/test_cli
    cli/test_terminal agentkit_tools/test_programs durable/test_kill agentkit_tools/test_sql
    cli/test_test_from models/local/test_weights cli/test_demo mcp/test_foreign mcp/test_client
    mcp/test_server cli/test_load cli/test_show serve/test_endpoint docs/test_examples
    trace/test_recorder runtime/test_pausing models/chat/test_connection trace/test_reader
""".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow files; workers take one file after the other."""
    names = [f"tests/{name}" for name in SLOW]

    def place(item: pytest.Item) -> int:
        found = (place for place, name in enumerate(names) if item.nodeid.startswith(name))
        return next(found, len(names))

    items.sort(key=place)


# What starts one server, or one browser, for all files of a folder.
TOGETHER = ("tests/durable/temporal/", "tests/viewer/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a worker a whole file, as `--dist loadfile` does, or a whole such folder."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = next(filter(nodeid.startswith, TOGETHER), None)
            return folder or super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


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
