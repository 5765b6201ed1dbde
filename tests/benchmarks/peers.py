"""Other frameworks, each in an environment of its own: `make bench PEERS=1`.

They are installed from the package index that pip is configured for, once, into
`.cache/bench/`, in the versions that are named here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ENVIRONMENTS = Path(__file__).parents[2] / ".cache" / "bench"
PEERS = {
    "pydantic-ai": ["pydantic-ai-slim[openai]==2.68.0"],
    "openai-agents": ["openai-agents==0.24.0"],
    "langgraph": ["langgraph==1.2.24", "langchain==1.5.2", "langchain-openai==1.7.4"],
}


def install(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and the Python of each peer; those that cannot be installed are left out."""
    for name in names:
        packages = PEERS[name]
        folder = ENVIRONMENTS / name
        python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        stamp = folder / "installed.txt"
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != "\n".join(packages):
            print(f"Installing {name} into {folder} …", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            done = subprocess.run([*pip, *packages], capture_output=True, text=True)
            if done.returncode:
                print(f"{name} is left out: pip failed.\n{done.stderr[-2000:]}", file=sys.stderr)
                continue
            stamp.write_text("\n".join(packages), encoding="utf-8")
        yield name, str(python)
