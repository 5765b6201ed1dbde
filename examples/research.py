"""A lead agent and its researchers, who work in parallel within a budget.

pip install "agentkit-replay[local,prices]"
python examples/research.py "Compare the moons of Mars."
python examples/research.py "Compare the moons of Mars." --model openai:gpt-4o-mini --cost 0.01
"""

import argparse

from agentkit import Agent, AgentKitError, Limits, Model, Usage, tool
from agentkit.errors import LimitExceeded
from agentkit.events import Event, ToolCallFinished, ToolCallStarted

LIBRARY = {
    "phobos": "Phobos: mean diameter 22 km, orbits Mars in 7.7 hours, gets closer every year.",
    "deimos": "Deimos: mean diameter 12 km, orbits Mars in 30.3 hours, moves slowly away.",
    "mars": "Mars: has two moons, Phobos and Deimos, both discovered by Asaph Hall in 1877.",
}


@tool(effect="read")
def search(words: str) -> list[str]:
    """Search the library.

    Args:
        words: Words to look for, for example "Phobos orbit".
    """
    return [text for name, text in LIBRARY.items() if name in words.lower()] or ["Nothing found."]


def research_team(model: str | Model, *, cost: float | None = None) -> Agent:
    """Return a lead agent whose tool is a researcher; calls of one response run in parallel.

    Args:
        model: The model of both agents.
        cost: The budget of a run in USD, researchers included.
    """
    researcher = Agent(
        model,
        name="researcher",
        tools=[search],
        instructions="Search the library, then answer the question in one sentence.",
    )
    return Agent(
        model,
        name="lead",
        tools=[
            researcher.as_tool(
                description="Research one question. Call it once per question, in parallel.",
                effect="read",
            )
        ],
        instructions="Split the task into questions, have each one researched, and sum up.",
        limits=Limits(cost=cost, steps=20, parallel=4),
    )


def watch(event: Event) -> None:
    """Print each tool call as it starts and ends; the address shows which agent made it."""
    match event:
        case ToolCallStarted(at=at, name=name, arguments=arguments):
            print(f"  {at}: {name} {arguments}")
        case ToolCallFinished(at=at, status=status, text=text):
            print(f"  {at}: {status}: {text[:70]}")
        case _:
            pass


def summary(usage: Usage) -> str:
    """Return the usage of a run as text."""
    cost = "" if usage.cost is None else f", {usage.cost:.4f} USD"
    return f"(model calls: {usage.requests}, tokens: {usage.total_tokens}{cost})"


def main(task: str, model: str | Model, cost: float | None) -> None:
    """Research a task; print the report, or how far the run got within its budget."""
    try:
        result = research_team(model, cost=cost).run_sync(task, on_event=watch)
        print(result.output, summary(result.usage), sep="\n")
    except LimitExceeded as error:
        print(error.message)
        if error.result is not None:  # its messages are a history to continue from
            print(f"Messages so far: {len(error.result.messages)}", summary(error.result.usage))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("task", nargs="?", default="Compare the moons of Mars.")
    parser.add_argument("--model", default="local")
    parser.add_argument("--cost", type=float, help="budget of the whole run in USD")
    options = parser.parse_args()
    try:
        main(options.task, options.model, options.cost)
    except AgentKitError as error:
        parser.exit(1, f"{type(error).__name__}: {error.message}\n")
