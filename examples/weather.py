"""An agent with a bug, which docs/tutorial/debugging.md finds and fixes."""

from typing import Literal

from pydantic import BaseModel

from agentkit import Agent, ChatSettings, tool

# What the weather stations report.
STATIONS = {"Paris": ("sunny", 21), "London": ("rainy", 14), "Boston": ("cloudy", 68)}


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    sky: Literal["sunny", "rainy", "cloudy"]
    celsius: int


@tool(effect="read")
async def get_weather(city: Literal["Paris", "London", "Boston"]) -> dict[str, str | int]:
    """Current weather in a city."""
    sky, celsius = STATIONS[city]
    return {"sky": sky, "celsius": celsius}


agent = Agent(
    "local",
    tools=[get_weather],
    output=Weather,
    settings=ChatSettings(tool_choice="required"),  # look before you answer
)

if __name__ == "__main__":
    print(agent.run_sync("What is the weather in Boston?", trace="boston.jsonl").output)
