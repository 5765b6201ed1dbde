"""One city, three tools, one typed answer."""

from typing import Literal, TypeAlias

from pydantic import BaseModel

from agentkit import Agent, ChatSettings, tool

City: TypeAlias = Literal["Paris", "London", "Tokyo"]
WEATHER = {"Paris": ("sunny", 21), "London": ("rainy", 14), "Tokyo": ("cloudy", 17)}
TIME = {"Paris": "15:40", "London": "14:40", "Tokyo": "22:40"}


class Now(BaseModel):
    """Current conditions in a city."""

    city: City
    sky: Literal["sunny", "cloudy", "rainy"]
    celsius: int
    time: str


@tool(effect="read")
async def get_weather(city: City) -> dict[str, str | int]:
    """Current weather in a city."""
    sky, celsius = WEATHER[city]
    return {"sky": sky, "celsius": celsius}


@tool(effect="read")
async def get_time(city: City) -> dict[str, str]:
    """Local time in a city."""
    return {"time": TIME[city]}


@tool(effect="read")
def get_population(city: City) -> dict[str, int]:
    """Number of people who live in a city."""
    return {"population": {"Paris": 2_102_650, "London": 8_799_728, "Tokyo": 14_195_730}[city]}


agent = Agent(
    "local",
    tools=[get_weather, get_time, get_population],
    output=Now,
    settings=ChatSettings(tool_choice="required"),  # look before you answer
)

PROMPT = "What are the weather and the local time in Tokyo?"

if __name__ == "__main__":
    print(agent.run_sync(PROMPT).output)
