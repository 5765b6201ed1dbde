"""What the contenders that are frameworks share: an agent for each scenario."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Tools: TypeAlias = Sequence[Callable[..., Any]]


class Framework:
    """A framework at work; each has `run` and `stream` of `worker.Contender` too."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.agents: dict[str, Any] = {}

    def make(self, base_url: str, tools: Tools, output: Any) -> Any:
        """Return an agent that asks this server."""
        raise NotImplementedError

    def agent(self, scenario: str, tools: Tools, output: Any) -> Any:
        """Return the agent of a scenario, made on first use."""
        if scenario not in self.agents:
            base_url = f"{self.url}/{scenario}/v1"
            self.agents[scenario] = self.make(base_url, tools, output)
        return self.agents[scenario]

    async def close(self) -> None:
        """Close nothing: the process ends."""
