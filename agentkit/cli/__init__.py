"""The command line: `agentkit demo`, `show`, `replay`, `tools`, `models`, `doctor`.

It needs the extra `cli`; the library never imports it.
"""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]


def main() -> None:
    """The console script."""
    missing = [name for name in ("cyclopts", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f'The command line needs {" and ".join(missing)}: pip install "agentkit-replay[cli]"'
        )
    from agentkit.cli.commands import run  # the extra is there only from here on

    run()
