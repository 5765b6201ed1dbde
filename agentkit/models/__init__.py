"""Models: what answers the model calls of a run.

`Model` is the seam. `ChatModel` speaks to servers, `FallbackModel` and the limits
wrap other models, `LocalModel` runs on this machine, and `resolve_model` reads
strings such as `openai:gpt-4o`. What a server supports is a `Profile`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.models.base import DIRECT, Model
from agentkit.models.chat.model import ChatModel
from agentkit.models.fallback import FallbackModel
from agentkit.models.limits import ConcurrencyLimit, RateLimit
from agentkit.models.names import resolve_model
from agentkit.models.prices import Price
from agentkit.models.profiles import COMPATIBLE, LOCAL, PROFILES, OutputMode, Profile

if TYPE_CHECKING:
    from agentkit.models.local.model import LocalModel

__all__ = [
    "COMPATIBLE",
    "DIRECT",
    "LOCAL",
    "PROFILES",
    "ChatModel",
    "ConcurrencyLimit",
    "FallbackModel",
    "LocalModel",
    "Model",
    "OutputMode",
    "Price",
    "Profile",
    "RateLimit",
    "resolve_model",
]


def __getattr__(name: str) -> Any:
    """Import `LocalModel` on first use: few programs need what it imports."""
    if name == "LocalModel":
        from agentkit.models.local.model import LocalModel

        return LocalModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
