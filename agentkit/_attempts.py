"""Who tries again: agentkit itself, or an engine around it that owns the retries of an effect."""

from __future__ import annotations

from contextvars import ContextVar

attempt_outside: ContextVar[int | None] = ContextVar("attempt_outside", default=None)
"""Earlier attempts of the running effect that an engine has made. It is then tried once here;
None where agentkit itself tries again."""
