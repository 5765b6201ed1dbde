"""Tools: what the model is told, how arguments arrive, how a call runs."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from agentkit.errors import InvalidArguments
from agentkit.events import Event, ToolProgress
from agentkit.tools import RunContext, tool

pytestmark = pytest.mark.anyio


@tool
async def get_weather(  # noqa: D417  the context is nobody's argument
    context: RunContext[str], city: str, unit: Literal["c", "f"] = "c"
) -> str:
    """Current weather.

    Args:
        city: City name, for example "Paris".
        unit: Temperature unit.
    """
    return f"{context.deps} {city} {unit}"


async def test_the_definition_is_what_a_person_would_write() -> None:
    """Docstring, types and defaults become the strict schema; the context is not in it."""
    assert get_weather.definition.to_json() == {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": 'City name, for example "Paris".'},
                    "unit": {
                        "type": ["string", "null"],
                        "enum": ["c", "f", None],
                        "description": 'Temperature unit. (default: "c")',
                    },
                },
                "required": ["city", "unit"],
                "additionalProperties": False,
            },
            "strict": True,
        },
    }


async def test_a_call_goes_from_text_to_value() -> None:
    """`call` parses, validates, binds, injects the context and runs."""
    value = await get_weather.call('{"city": "Paris", "unit": null}', RunContext(deps="d"))
    assert value == "d Paris c"


async def test_a_sync_function_runs_in_a_thread_and_reports_progress() -> None:
    """A generator's yields are progress, its return is the value."""

    @tool
    def count(to: int) -> Any:
        yield from range(to)
        return "done"

    seen: list[Event] = []
    context = RunContext(emit=seen.append)
    assert await count.call('{"to": 2}', context) == "done"
    assert seen == [ToolProgress(at=context.address, value=value) for value in (0, 1)]


async def test_arguments_that_do_not_fit_are_explained_without_echo() -> None:
    """The model reads the path and what was expected, not what it sent."""
    with pytest.raises(InvalidArguments) as caught:
        get_weather.parse('{"citty": "secret-town", "unit": "kelvin-zz"}')
    assert str(caught.value) == (
        "The arguments do not fit, and nothing was run:\n"
        "- city: is required\n"
        "- unit: expected 'c' or 'f'\n"
        "- citty: no such property; did you mean 'city'? There are: city, unit"
    )
