"""Two cities, three tools, one typed answer."""

from typing import Literal

from pydantic import BaseModel

from agentkit import Agent, tool

WEATHER = {"Paris": 18, "London": 11, "Oslo": 4}


class Answer(BaseModel):
    """Which city is warmer, and how warm both are."""

    warmer: Literal["Paris", "London"]
    paris_celsius: int
    london_celsius: int


@tool(effect="read")
async def get_weather(city: Literal["Paris", "London", "Oslo"]) -> str:
    """Current temperature in a city.

    Args:
        city: The city.
    """
    return f"{city}: {WEATHER[city]} °C"


@tool(effect="read")
def get_population(city: Literal["Paris", "London", "Oslo"]) -> int:
    """Number of people who live in a city."""
    return {"Paris": 2_100_000, "London": 8_900_000, "Oslo": 710_000}[city]


@tool(effect="read")
def get_currency(city: Literal["Paris", "London", "Oslo"]) -> str:
    """Currency that people pay with in a city."""
    return {"Paris": "euro", "London": "pound", "Oslo": "krone"}[city]


agent = Agent(
    "local",
    tools=[get_weather, get_population, get_currency],
    output=Answer,
    instructions="Use the tools, then answer from what they returned.",
)

PROMPT = "Which is warmer now, Paris or London?"

if __name__ == "__main__":
    print(agent.run_sync(PROMPT).output)
