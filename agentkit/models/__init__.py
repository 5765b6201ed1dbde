"""Models: what answers the loop's requests.

`Model` is the seam. `ChatModel` speaks to servers, `FallbackModel` and the
limiters wrap other models, and `resolve_model` reads strings such as
`openai:gpt-4o`.
"""

from __future__ import annotations

from agentkit.models.chat_model import ChatModel
from agentkit.models.fallback import FallbackModel
from agentkit.models.limits import ConcurrencyLimit, RateLimit
from agentkit.models.model import DIRECT, Model
from agentkit.models.profiles import PROFILES, Profile
from agentkit.models.resolving import resolve_model

__all__ = [
    "DIRECT",
    "PROFILES",
    "ChatModel",
    "ConcurrencyLimit",
    "FallbackModel",
    "Model",
    "Profile",
    "RateLimit",
    "resolve_model",
]
