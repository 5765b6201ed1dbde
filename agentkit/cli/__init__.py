"""The command line, `agentkit`; its commands are listed in `agentkit.cli.main`.

It needs the extra `cli`; the library never imports it.
"""

from __future__ import annotations

import importlib.util
import os
import sys

__all__ = ["main"]


def main() -> None:
    """The console script."""
    _open_streams()
    missing = [name for name in ("cyclopts", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f'The command line needs {" and ".join(missing)}: pip install "agentkit-replay[cli]"'
        )
    from agentkit.cli.main import run  # the extra is there only from here on

    run()


def _open_streams() -> None:
    """Give a program whose caller has closed a stream an empty one: everything expects three."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # to the end
