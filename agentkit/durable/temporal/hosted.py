"""What a worker hosts, as its workflows see it, and how they have activities run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

from agentkit.runtime.assemble import Program

HOSTED = "agentkit_hosted"
"""The name under which a workflow gets what its worker hosts."""
_CRASHES = ["TemporalTimeout:Heartbeat", "TemporalTimeout:StartToClose"]
_MINUTE = 60.0


def hosted_program(programs: Mapping[str, Program[Any]], name: str) -> Program[Any]:
    """Return the agent of a name.

    Raises:
        RuntimeError: This worker does not host it. That fails one attempt: another worker may.
    """
    if name not in programs:
        known = ", ".join(map(repr, programs))
        raise RuntimeError(f"This worker does not host the agent {name!r}; it has {known}.")
    return programs[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hosted:
    """The agents that a worker hosts, by name, and its options; see `worker`."""

    programs: Mapping[str, Program[Any]]
    heartbeat: float = 30.0
    patience: float = 3600.0
    timeout: float = 3600.0
    attempts: int = 5
    history_events: int | None = None

    async def activity(
        self,
        name: str,
        at: str,
        *args: Any,
        summary: str | None = None,
        patience: float | None = None,
        attempts: int = 0,
        crashes: bool = True,
        seconds: float | None = None,
    ) -> Any:
        """Run an activity whose id is the address of its effect.

        Args:
            name: Its type, after `agentkit.`.
            at: The address.
            *args: JSON.
            summary: What people see of it.
            patience: Seconds for which it may be tried again, waits included.
            attempts: How often it may be tried; 0 for as often as it takes.
            crashes: Whether it may begin again when its worker is lost.
            seconds: How long its own function may take, if that is bounded.
        """
        limit = max(self.timeout, 0.0 if seconds is None else seconds + _MINUTE)
        return await workflow.execute_activity(
            f"agentkit.{name}",
            args=args,
            activity_id=at,
            start_to_close_timeout=timedelta(seconds=limit),
            schedule_to_close_timeout=None if patience is None else timedelta(seconds=patience),
            heartbeat_timeout=timedelta(seconds=self.heartbeat),
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            retry_policy=RetryPolicy(
                maximum_attempts=attempts,
                maximum_interval=timedelta(seconds=_MINUTE),
                non_retryable_error_types=None if crashes else _CRASHES,
            ),
            summary=summary,
        )
