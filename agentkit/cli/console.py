"""Where the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

from rich.console import Console

__all__ = ["ERR", "OUT"]

OUT = Console()
ERR = Console(stderr=True)
