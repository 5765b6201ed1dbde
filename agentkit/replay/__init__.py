"""Run a recorded run again: offline, exactly, and with the first difference named."""

from agentkit.replay.differences import Difference, TraceDiff
from agentkit.replay.diffing import diff
from agentkit.replay.forking import Patch, fork
from agentkit.replay.policy import Policy
from agentkit.replay.replaying import replay

__all__ = ["Difference", "Patch", "Policy", "TraceDiff", "diff", "fork", "replay"]
