"""A lead agent that has several researchers work at the same time, for at most so much money.

pip install "agentkit-replay[local,prices]"
python examples/research.py "Compare the moons of Mars."
python examples/research.py "Compare the moons of Mars." --model openai:gpt-4o-mini --cost 0.01
"""

import argparse

from agentkit import Agent, AgentKitError, Limits, Model, Usage, tool
from agentkit.errors import LimitExceeded
from agentkit.events import Event, ToolCallFinished, ToolCallStarted

LIBRARY = {
    "phobos": "Phobos: mean diameter 22 km, orbits Mars in 7.7 hours, comes nearer every year.",
    "deimos": "Deimos: mean diameter 12 km, orbits Mars in 30.3 hours, moves slowly away.",
    "mars": "Mars: has two moons, Phobos and Deimos, both found by Asaph Hall in 1877.",
}


@tool(effect="read")
def search(words: str) -> list[str]:
    """Search the library.

    Args:
        words: Words of which at least one is in the text, for example "Phobos orbit".
    """
    return [text for name, text in LIBRARY.items() if name in words.lower()] or ["Nothing found."]


def research_team(model: str | Model, *, cost: float | None = None) -> Agent[str]:
    """A lead whose tool is another agent: what it calls at once runs at once.

    Args:
        model: Of both agents.
        cost: USD that a run may cost, the work of its researchers included.
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
                description="Have one question researched. Ask several at the same time.",
                effect="read",
            )
        ],
        instructions="Split the task into questions, have each researched, and sum up.",
        limits=Limits(cost=cost, steps=20, parallel=4),
    )


def watch(event: Event) -> None:
    """Print the calls as they begin and end; the address says whose they are."""
    match event:
        case ToolCallStarted(at=at, name=name, arguments=arguments):
            print(f"  {at}: {name} {arguments}")
        case ToolCallFinished(at=at, status=status, text=text):
            print(f"  {at}: {status}: {text[:70]}")
        case _:
            pass


def spent(usage: Usage) -> str:
    """What a run has used, in words."""
    money = "" if usage.cost is None else f", {usage.cost:.4f} USD"
    return f"({usage.requests} model calls, {usage.total_tokens} tokens{money})"


def main(task: str, model: str | Model, cost: float | None) -> None:
    """Research a task and print what came of it, or how far it came."""
    try:
        result = research_team(model, cost=cost).run_sync(task, on_event=watch)
        print(result.output, spent(result.usage), sep="\n")
    except LimitExceeded as error:
        print(error.message)
        if error.result is not None:  # what was reached, ready to go on with more money
            print(f"Reached {len(error.result.messages)} messages", spent(error.result.usage))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("task", nargs="?", default="Compare the moons of Mars.")
    parser.add_argument("--model", default="local")
    parser.add_argument("--cost", type=float, help="USD that the whole run may cost")
    given = parser.parse_args()
    try:
        main(given.task, given.model, given.cost)
    except AgentKitError as error:
        parser.exit(1, f"{type(error).__name__}: {error.message}\n")
