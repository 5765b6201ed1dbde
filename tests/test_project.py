"""Rules that hold for the whole project."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import grimp
import pytest

from tests.support import ROOT, run_python

PUBLIC = {
    "agentkit",
    "agentkit.agent",
    "agentkit.core.effects",
    "agentkit.durable",
    "agentkit.durable.temporal",
    "agentkit.errors",
    "agentkit.events",
    "agentkit.history",
    "agentkit.mcp",
    "agentkit.messages",
    "agentkit.middleware",
    "agentkit.models",
    "agentkit.redaction",
    "agentkit.replay",
    "agentkit.serve",
    "agentkit.session",
    "agentkit.settings",
    "agentkit.testing",
    "agentkit.testing.host_conformance",
    "agentkit.testing.strategies",
    "agentkit.tools",
    "agentkit.trace",
    "agentkit.viewer",
}
"""What users may import; everything else is private and may change without notice."""


def order(name: str) -> tuple[bool, bool, str]:
    """Constants, then classes, then functions, as ruff sorts them."""
    return (not name.isupper(), not name[0].isupper(), name)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_are_listed_in_order(name: str) -> None:
    """Every public module lists its names: sorted, without repetition, all there."""
    module = importlib.import_module(name)
    assert module.__all__ == sorted(set(module.__all__), key=order)
    assert [missing for missing in module.__all__ if not hasattr(module, missing)] == []


@pytest.mark.parametrize("folder", ["README.md", "docs", "examples", "tools"])
def test_only_public_modules_are_imported(folder: str) -> None:
    """What a stranger copies from a page, an example or a ready-made tool is public API."""
    place = ROOT / folder
    files = [place] if place.is_file() else [*place.rglob("*.md"), *place.rglob("*.py")]
    imported = {
        (file.relative_to(ROOT).as_posix(), name)
        for file in files
        for name in re.findall(
            r"^\s*(?:from|import) (agentkit(?:\.\w+)*)\b", file.read_text(encoding="utf-8"), re.M
        )
    }
    assert {(file, name) for file, name in imported if name not in PUBLIC} == set()


def test_import_is_light() -> None:
    """`import agentkit` loads no extra, and nothing heavy that only some runs need."""
    code = "import agentkit, sys; print(*sys.modules)"
    loaded = run_python("-c", code).stdout.split()
    heavy = {"cyclopts", "docstring_parser", "jsonschema_rs", "pip", "pytest", "rich"}
    heavy |= {
        "aiohttp",
        "genai_prices",
        "hypothesis",
        "starlette",
        "uvicorn",
        "dbos",
        "mcp",
        "opentelemetry",
        "temporalio",
        "trio",
        "xllamacpp",
    }
    assert heavy & set(loaded) == set()


def test_only_declared_packages_are_imported() -> None:
    """What agentkit imports is among its dependencies, not only what those happen to bring."""
    core = {"anyio", "docstring_parser", "httpx2", "jsonschema_rs", "pydantic"}
    core |= {"httpcore2", "pydantic_core"}  # parts of httpx2 and pydantic, pinned by them
    core |= {"structlog", "typing_extensions"}
    extras = {"aiohttp", "cyclopts", "genai_prices", "pip", "platformdirs", "rich", "xllamacpp"}
    extras |= {"hypothesis", "starlette", "uvicorn"}
    extras |= {"mcp", "mcp_types"}
    extras |= {"fsspec", "temporalio"}
    extras |= {"opentelemetry"}
    extras |= {"trio"}  # only under trio, where it is there
    graph = grimp.build_graph("agentkit", include_external_packages=True, cache_dir=None)
    used = {module.split(".")[0] for module in graph.modules} - {"agentkit"}
    assert used - set(sys.stdlib_module_names) - core - extras == set()


def test_imports_go_down_the_floors() -> None:
    """The contracts of pyproject.toml hold, among them that the loop is pure."""
    # In a process of its own: import-linter configures logging for all of its own.
    code = "import importlinter.cli as c, sys; sys.exit(c.lint_imports(no_cache=True))"
    run_python("-c", code)


def test_no_file_names_an_index_or_a_machine() -> None:
    """The project installs from wherever its user's pip is told to."""
    hosts = ["pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "--" + "index-url"]
    paths = ["/ro" + "ot/", "/wo" + "rk/", "/opt/" + "pypi"]
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of what belongs to the project")
    found = [
        f"{name}: {text}"
        for name in listed.stdout.splitlines()
        if (ROOT / name).is_file()
        for text in hosts + paths
        if text.encode() in (ROOT / name).read_bytes()
    ]
    assert found == []
