"""The hand-written reference pages name every public option, field, event and error."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import Any, get_args

import pytest

from agentkit import Agent, ChatSettings, Limits, RunContext, RunResult, Session, Usage, events
from agentkit.errors import AgentKitError
from agentkit.models import PROFILES
from agentkit.replay import Replayed
from agentkit.tools.options import ToolOptions
from tests.support import ROOT

DOCS = ROOT / "docs"


def public_fields(cls: Any) -> set[str]:
    """Return the names of a dataclass's public fields."""
    return {field.name for field in fields(cls) if not field.name.startswith("_")}


def parameters(function: Any) -> set[str]:
    """Return the names of a function's parameters."""
    return {*inspect.signature(function).parameters} - {"self", "prompt"}


def public_names(cls: Any) -> set[str]:
    """Return the names of a class's public methods and properties."""
    return {name for name in vars(cls) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("reference/agent.md", parameters(Agent)),
        ("reference/agent.md", parameters(Agent.run)),
        ("reference/agent.md", parameters(Agent.resume)),
        ("reference/agent.md", parameters(Agent.replay)),
        ("reference/agent.md", parameters(Agent.fork)),
        ("reference/agent.md", public_fields(Replayed)),
        ("reference/agent.md", public_names(Agent) - {"config", "program"}),
        ("reference/agent.md", public_names(Session)),
        ("reference/agent.md", public_fields(Limits)),
        ("reference/agent.md", public_fields(ChatSettings)),
        ("reference/agent.md", public_fields(RunResult) | public_names(RunResult)),
        ("reference/agent.md", public_fields(Usage)),
        ("reference/agent.md", public_fields(RunContext) - {"emit", "threads", "services", "home"}),
        ("reference/events.md", {event.__name__ for event in get_args(events.Event)}),
        ("reference/errors.md", {*AgentKitError.known, "AgentKitError"}),
        ("how-to/tools.md", {*ToolOptions.__annotations__}),
        ("how-to/models.md", {f"{name}:" for name in PROFILES}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pages_name_everything(page: str, names: set[str]) -> None:
    """A page names everything that it documents."""
    text = (DOCS / page).read_text(encoding="utf-8")
    code = " ".join(re.findall(r"```.*?```|`[^`]+`", text, re.DOTALL))
    missing = [name for name in sorted(names) if not re.search(rf"\b{name}(\b|\W)", code)]
    assert missing == []


@pytest.mark.parametrize("lists", ["zensical.toml", "docs/index.md"])
def test_every_page_is_listed(lists: str) -> None:
    """In the navigation and on the first page, apart from docs/design, which is for developers."""
    text = (ROOT / lists).read_text(encoding="utf-8")
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {"index.md"}
    listed = {page for page in pages if page in text or page.startswith("design/")}
    assert pages - listed == set()
