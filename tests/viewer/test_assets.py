"""The page's script and style: typed, small, and without a way for data to become markup."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from agentkit.viewer.assembly import script, style
from tests.support import ROOT, from_npm

ASSETS = ROOT / "agentkit" / "viewer" / "assets"
MODULES = sorted(ASSETS.glob("*.js"))


@pytest.mark.storm_only
def test_types_of_the_script_hold() -> None:
    """TypeScript checks every module, strictly, by its JSDoc."""
    node, modules = from_npm("typescript", {"typescript": "5.9.3"})
    compiler = modules / "typescript" / "bin" / "tsc"
    command = [node, str(compiler), "--project", str(Path(__file__).parent), "--pretty", "false"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_script_and_style_are_small() -> None:
    """Together no more than 150 kB, without anything to compress them."""
    assert len(script().encode()) + len(style().encode()) <= 150_000


def test_nothing_makes_markup_or_code_of_text() -> None:
    """What a trace holds gets into the page as text: no other way is used anywhere."""
    ways = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment"
        r"|srcdoc|\beval\b|new Function|setHTML|javascript:|cssText|\bimport\("
    )
    assert re.findall(ways, script()) == []


def test_every_module_is_checked_and_named() -> None:
    """By TypeScript, and with a sentence that says what it is for."""
    for module in MODULES:
        head = module.read_text(encoding="utf-8").splitlines()[:2]
        assert head[0] == "// @ts-check", module.name
        assert re.fullmatch(r"/\*\* .*\.( \*/)?|/\*\* .*", head[1]), module.name


def test_joined_modules_are_one_script() -> None:
    """No import or export is left, and no comment."""
    assert re.findall(r"^(?:import|export)\b.*", script(), re.M) == []
    assert "/**" not in script()
