"""Two cities, three tools, one typed answer."""

from typing import Literal

from pydantic import BaseModel

from agentkit import Agent, tool

CELSIUS = {"Paris": 18, "London": 11}
DOLLARS = {"euro": 1.16, "pound": 1.31}


class Answer(BaseModel):
    """How warm it is in both cities, and where it is warmer."""

    paris_celsius: int
    london_celsius: int
    warmer: Literal["Paris", "London"]


@tool(effect="read")
async def get_weather(city: Literal["Paris", "London"]) -> str:
    """Current weather in a city."""
    return f"{CELSIUS[city]} °C"


@tool(effect="read")
def exchange_rate(currency: Literal["euro", "pound"]) -> float:
    """Exchange rate of a currency.

    Args:
        currency: What to change into US dollars.
    """
    return DOLLARS[currency]


@tool(effect="read")
def roll_dice(sides: int) -> int:
    """Roll a dice."""
    return sides  # a lucky one


agent = Agent("local", tools=[get_weather, exchange_rate, roll_dice], output=Answer)

PROMPT = "Which is warmer now, Paris or London?"

if __name__ == "__main__":
    print(agent.run_sync(PROMPT).output)
