"""Instructions that a unit of work takes, counted by valgrind: `--instructions`.

The count of a whole process with few units is subtracted from that with more, so neither
the start nor the imports are in it. Other work on the machine does not change it; the
kernel's share, as of sockets and files, is not in it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FEW, MORE = 1, 4
ROOT = Path(__file__).parents[2]


def compare(row: Any, contenders: Sequence[Any], url: str) -> None:
    """Print what a unit of a row takes, for each contender."""
    if shutil.which("valgrind") is None:
        raise SystemExit("--instructions needs valgrind, which is not installed.")
    counts = {
        one.name: (refs(row, one, url, MORE) - refs(row, one, url, FEW)) for one in contenders
    }
    for name, count in counts.items():
        each = count / (MORE - FEW)
        ratio = count / counts["hand"]
        print(f"{row.name:10} {name:14} {each / 1e6:10.2f} million {ratio:6.2f}", flush=True)


def refs(row: Any, contender: Any, url: str, units: int) -> int:
    """Return the instructions of a process that does so many units."""
    valgrind = "valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null".split()
    done = subprocess.run(
        [*valgrind, *contender.command(url), "--once", row.job, str(units)],
        cwd=ROOT,
        env=contender.variables() | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )
    found = re.search(r"I *refs: *([\d,]+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"{contender.name}, {row.name}: {done.stderr[-2000:]}")
    return int(found[1].replace(",", ""))
