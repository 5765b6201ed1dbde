"""Tests of agents: models that follow a script, and a real server that does.

`ScriptedModel` and `FunctionModel` answer in this process. `ChatServer` answers
over a socket, and can misbehave in every way that servers do.
"""

from __future__ import annotations

from agentkit.testing.assertions import assert_trace
from agentkit.testing.faults import Fault, fault
from agentkit.testing.guard import ModelCallBlocked, block_models
from agentkit.testing.replies import HOLD, ServerRequest, drop, raw, reply, sse
from agentkit.testing.scripted import FunctionModel, ScriptedModel
from agentkit.testing.server import ChatServer

__all__ = [
    "HOLD",
    "ChatServer",
    "Fault",
    "FunctionModel",
    "ModelCallBlocked",
    "ScriptedModel",
    "ServerRequest",
    "assert_trace",
    "block_models",
    "drop",
    "fault",
    "raw",
    "reply",
    "sse",
]
