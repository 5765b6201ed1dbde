"""Where this platform keeps what programs make for their user.

Linux and other Unixes follow the XDG base directory specification.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["cache_folder", "state_folder"]


def cache_folder() -> Path:
    """For what can be fetched again. `AGENTKIT_CACHE_DIR` overrides it."""
    return _folder("AGENTKIT_CACHE_DIR", "XDG_CACHE_HOME", ".cache", "Library/Caches", "Cache")


def state_folder() -> Path:
    """For what should stay, such as traces. `AGENTKIT_STATE_DIR` overrides it."""
    return _folder(
        "AGENTKIT_STATE_DIR",
        "XDG_STATE_HOME",
        ".local/state",
        "Library/Application Support",
        "State",
    )


def _folder(own: str, xdg: str, unix: str, mac: str, windows: str) -> Path:
    if given := os.environ.get(own):
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / mac / "agentkit"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        base = Path(local) if local else Path.home() / "AppData" / "Local"
        return base / "agentkit" / windows
    base = os.environ.get(xdg, "")
    # The specification wants relative paths ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / unix) / "agentkit"
