"""Models: what answers the loop's requests.

`Model` is the seam. `ChatModel` speaks to servers, `FallbackModel` and the
limiters wrap other models, and `resolve_model` reads strings such as
`openai:gpt-4o`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentkit.models.base import DIRECT, Model
from agentkit.models.chat.model import ChatModel
from agentkit.models.fallback import FallbackModel
from agentkit.models.limits import ConcurrencyLimit, RateLimit
from agentkit.models.profiles import PROFILES, Profile
from agentkit.models.resolving import resolve_model

if TYPE_CHECKING:
    from agentkit.models.local.model import LocalModel

__all__ = [
    "DIRECT",
    "PROFILES",
    "ChatModel",
    "ConcurrencyLimit",
    "FallbackModel",
    "LocalModel",
    "Model",
    "Profile",
    "RateLimit",
    "resolve_model",
]


def __getattr__(name: str) -> Any:
    """Import `LocalModel` when it is first used: few programs need what it brings."""
    if name == "LocalModel":
        from agentkit.models.local.model import LocalModel

        return LocalModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
