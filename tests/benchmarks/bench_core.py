"""What agentkit itself costs, with no model and no network in the way: `make bench`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from agentkit import Agent, Limits, RunContext, Tool, tool
from agentkit.core.effects import Address, ModelCall, Outcome, ToolBatch, ToolOutcome
from agentkit.core.loop import conversation
from agentkit.core.spec import AgentSpec, OfferedTool
from agentkit.messages import (
    AssistantMessage,
    Message,
    ModelRequest,
    ModelResponse,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentkit.models.chat.decode import decode_response
from agentkit.models.chat.encode import encode_request
from agentkit.models.profiles import Profile
from agentkit.output.build import output_spec
from agentkit.output.partial import PartialOutput
from agentkit.testing import FunctionModel, ScriptedModel

STEPS = 100
TEXT = "All work and no play makes Jack a dull boy. " * 20


def dialogue(length: int) -> tuple[Message, ...]:
    """A conversation of `length` steps, each with a call and its answer."""
    messages: list[Message] = [UserMessage(content="Go.")]
    for step in range(length):
        call = ToolCall(id=f"call_{step}", name="look", arguments='{"place":"here"}')
        messages.append(AssistantMessage(content=TEXT, tool_calls=(call,)))
        messages.append(ToolMessage(call_id=call.id, content=TEXT))
    return tuple(messages)


@tool
def look(place: str) -> str:
    """Look at a place."""
    return f"{place} is fine"


def test_import(benchmark: Any) -> None:
    """`import agentkit` in a fresh interpreter, start of the interpreter included."""
    command = [sys.executable, "-c", "import agentkit"]
    benchmark.pedantic(subprocess.check_call, args=(command,), rounds=5, warmup_rounds=1)


def test_encode_the_next_step(benchmark: Any) -> None:
    """The body of a request whose 200 earlier messages were encoded before."""
    earlier, profile = dialogue(STEPS), Profile()
    encode_request(ModelRequest(messages=earlier), "any", profile)

    def encode() -> bytes:
        messages = (*earlier, UserMessage(content="And now?"))
        return encode_request(ModelRequest(messages=messages), "any", profile)

    assert len(benchmark(encode)) > 200 * len(TEXT)


def test_decode_a_response(benchmark: Any) -> None:
    """One answer with a text and two calls."""
    body = (
        b'{"id":"x","object":"chat.completion","created":1,"model":"any","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"Looking.","tool_calls":['
        b'{"id":"a","type":"function","function":{"name":"look","arguments":"{\\"place\\":1}"}},'
        b'{"id":"b","type":"function","function":{"name":"look","arguments":"{\\"place\\":2}"}}'
        b']},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":10,"completion_tokens":5}}'
    )
    assert len(benchmark(decode_response, body).message.tool_calls) == 2


def test_the_pure_loop(benchmark: Any) -> None:
    """100 steps of the loop alone, driven by hand."""
    spec = AgentSpec(
        at=Address.root("agent"),
        model="any",
        output=output_spec(str, Profile(), "auto"),
        tools=(OfferedTool(definition=look.definition),),
        limits=Limits(steps=STEPS + 1, repeats=STEPS),
    )

    def run() -> int:
        loop, outcome = conversation(spec, (UserMessage(content="Go."),)), None
        effects = 0
        try:
            while True:
                outcome = answer(loop.send(outcome), last=effects == 2 * STEPS)
                effects += 1
        except StopIteration:
            return effects

    assert benchmark(run) == 2 * STEPS + 1


def answer(effect: object, *, last: bool) -> Outcome:
    """What a model that calls one tool, and that tool, would answer."""
    if isinstance(effect, ModelCall):
        call = ToolCall(id=effect.at, name="look", arguments='{"place":"here"}')
        message = AssistantMessage(content="done", tool_calls=() if last else (call,))
        return ModelResponse(message=message, finish="stop" if last else "tool_calls")
    assert isinstance(effect, ToolBatch)
    return tuple(
        ToolOutcome(at=one.at, status="ok", message=ToolMessage(call_id=one.call.id, content="ok"))
        for one in effect.calls
    )


def test_a_run(benchmark: Any) -> None:
    """A whole run: two steps, two parallel calls, recorded in memory."""
    calls: Sequence[Any] = [("look", {"place": "left"}), ("look", {"place": "right"})]

    def run() -> str:
        return Agent(ScriptedModel([calls, "Both fine."]), tools=[look]).run_sync("Go.").output

    assert benchmark(run) == "Both fine."


def test_a_long_run(benchmark: Any) -> None:
    """100 steps in one run, recorded in memory: the cost of a step must not grow."""

    def next_step(request: ModelRequest) -> Any:
        step = len(request.messages) // 2
        return [("look", {"place": str(step)})] if step < STEPS else "done"

    agent = Agent(FunctionModel(next_step), tools=[look], limits=Limits(steps=STEPS + 1))
    result = benchmark.pedantic(agent.run_sync, args=("Go.",), rounds=5, warmup_rounds=1)
    assert result.usage.requests == STEPS + 1


def test_decorate_a_tool(benchmark: Any) -> None:
    """What `@tool` costs: the signature is read, types become a schema at first use."""

    async def look(context: RunContext[int], place: str, when: Literal["now"] = "now") -> str:
        """Look somewhere.

        Args:
            context: Not shown to the model.
            place: Where to look.
            when: When to look.
        """
        return place + when

    assert benchmark(Tool, look).name == "look"


def test_first_use_of_a_tool(benchmark: Any) -> None:
    """What the schema and the validator of a tool cost, once."""

    def look(place: str, when: Literal["now"] = "now") -> str:
        """Look somewhere."""
        return place + when

    assert benchmark(lambda: Tool(look).definition).name == "look"


class Item(BaseModel):
    """One of many."""

    name: str
    price: float


class Cart(BaseModel):
    """A typed output that takes long to write."""

    items: list[Item]


def test_read_a_growing_output(benchmark: Any) -> None:
    """What it costs to show 200 items while they are written, four characters at a time."""
    items = [Item(name=f"item {number}", price=number * 1.5) for number in range(200)]
    text = Cart(items=items).model_dump_json()

    def read() -> int:
        partial = PartialOutput(Cart, bare=False)
        pieces = (text[start : start + 4] for start in range(0, len(text), 4))
        return sum(partial.feed(piece) is not None for piece in pieces)

    assert benchmark(read) > 20
