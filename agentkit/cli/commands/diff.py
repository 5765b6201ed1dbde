"""`agentkit diff`: what differs between two recorded runs."""

from __future__ import annotations

import sys
from pathlib import Path

from agentkit import replay
from agentkit.cli.console import AsJson, print_json, shown
from agentkit.cli.find import find


def diff(a: Path, b: Path, /, *, as_json: AsJson = False) -> None:
    """Compare two recorded runs by address: what differs first, what follows, what both used.

    Args:
        a: A trace file, or the end of a run's id.
        b: Another one.
        as_json: Print everything as JSON.
    """
    compared = replay.diff(find(a), find(b))
    if as_json:
        print_json(compared.to_json())
    else:
        print(shown(compared.text()), end="")
    if not compared.same:
        sys.exit(1)
