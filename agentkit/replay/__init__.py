"""Run a recorded run again: offline, exactly, and with the first difference named."""

from agentkit.replay.diff import diff
from agentkit.replay.fork import Patch, fork
from agentkit.replay.policy import Policy
from agentkit.replay.replay import replay
from agentkit.replay.report import Difference, TraceDiff

__all__ = ["Difference", "Patch", "Policy", "TraceDiff", "diff", "fork", "replay"]
