"""MCP in both directions: an agent that uses an MCP server's tools, and is itself served by MCP.

pip install "agentkit-replay[local,mcp]" mcp-server-time
python examples/planner.py                                   (a program starts it, by stdio)
python examples/planner.py --http 127.0.0.1:8000             (it listens at /mcp)

Its clients see one tool, `planner`, which takes a prompt; they do not see the clock that it
uses. Each call is a run with a trace in `traces/`.
"""

import argparse
import shlex

from agentkit import Agent, AgentKitError, Model
from agentkit.mcp import serve_sync, stdio

CLOCK = "mcp-server-time --local-timezone UTC"
INSTRUCTIONS = (
    "You find times that suit people in several time zones. Convert with the tools; never "
    "calculate an offset yourself. Answer in one line."
)


def make_agent(model: str | Model, clock: str = CLOCK) -> Agent:
    """Return an agent that has the tools of an MCP server, started by this command."""
    return Agent(
        model,
        name="planner",
        tools=[stdio(*shlex.split(clock), name="clock")],
        instructions=INSTRUCTIONS,
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="local")
    parser.add_argument("--clock", default=CLOCK, help="the command of the server that it uses")
    parser.add_argument("--http", help="HOST:PORT to listen on")
    options = parser.parse_args()
    try:
        agent = make_agent(options.model, options.clock)
        serve_sync(agent, name="planner", http=options.http, trace="traces/")
    except AgentKitError as error:
        parser.exit(1, f"{type(error).__name__}: {error.message}\n")


if __name__ == "__main__":
    main()
