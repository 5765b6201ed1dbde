"""The command that compares two recorded runs."""

from __future__ import annotations

import sys
from pathlib import Path

from agentkit.cli.console import AsJson, print_json
from agentkit.cli.find import found
from agentkit.cli.view.tree import shown
from agentkit.replay import diff

__all__ = ["diff_command"]


def diff_command(a: Path, b: Path, /, *, as_json: AsJson = False) -> None:
    """Compare two recorded runs by address: what differs first, what follows, what both used.

    Args:
        a: A trace file, or the end of a run's id.
        b: Another one.
        as_json: Print everything as JSON.
    """
    compared = diff(found(a), found(b))
    if as_json:
        print_json(compared.to_json())
    else:
        print(shown(compared.text()), end="")
    if not compared.same:
        sys.exit(1)
