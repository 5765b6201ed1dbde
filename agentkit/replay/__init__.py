"""Run a recorded run again: offline, exactly, and with the first difference named."""

from agentkit.replay.replaying import replay

__all__ = ["replay"]
