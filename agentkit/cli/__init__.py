"""The command line, `agentkit`: one file a command in `agentkit.cli.commands`.

It needs the extra `cli`; the library never imports it.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def main() -> None:
    """Run the command line, as the script `agentkit` and as `python -m agentkit`."""
    _open_streams()
    missing = [name for name in ("cyclopts", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f'The command line needs {" and ".join(missing)}: pip install "agentkit-replay[cli]"'
        )
    from agentkit.cli.main import run  # the extra is there only from here on

    run()


def _open_streams() -> None:
    """Replace streams that the caller has closed by empty ones: everything expects three."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # to the end
