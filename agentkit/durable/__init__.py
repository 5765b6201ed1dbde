"""Runs that outlive their process: resumed from traces, or hosted by a durable engine."""

from __future__ import annotations

from agentkit.durable.resume import Resumed, resume_all
from agentkit.durable.unfinished import unfinished

__all__ = ["Resumed", "resume_all", "unfinished"]
