"""What comes of comparing, replaying and forking recorded runs.

A run is replayed, forked and resumed by its agent: `Agent.replay`, `Agent.fork`, `Agent.resume`.
"""

from agentkit.replay.diff import diff
from agentkit.replay.report import Difference, TraceDiff
from agentkit.runtime.result import Replayed

__all__ = ["Difference", "Replayed", "TraceDiff", "diff"]
