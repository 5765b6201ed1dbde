"""What the fake server answers, and the tools and types that every contender is given.

A scenario is a sequence of answers, one for each step of a run. It is chosen by the path
of the base URL: `/run` answers at once, `/run@20` after 20 ms.
Imported by the contenders of other frameworks too, in environments without agentkit:
so nothing but the standard library and pydantic.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

PROMPT = "Inspect the building and report."
INSTRUCTIONS = "You are a careful inspector."
DONE = "Everything is in order. " * 10
THOUGHT = "I shall look at the next places before I answer."

STEPS, PARALLEL = 5, 4
LONG = 100
"""Steps of the long run."""
FAN = 100
"""Calls in the one step of a fan-out, of `NAP` seconds each."""
NAP = 0.05
DELTAS = 2_000
FRAGMENTS, FRAGMENT = 50_000, 20
"""Fragments of the large tool call, and their length in characters: 1 MB."""
ITEMS = 200


class Item(BaseModel):
    """One of many."""

    name: str
    price: float
    tags: list[str]


class Cart(BaseModel):
    """The typed output."""

    items: list[Item]


CART = Cart(
    items=[Item(name=f"item {n}", price=n * 1.5, tags=["new", "blue"]) for n in range(ITEMS)]
)


# Tools


async def look(place: str, floor: int) -> str:
    """Look at a place."""
    return f"{place} on floor {floor} is fine. Nothing to see here. " * 4


marks: list[float] = []
"""CPU time of this process at each call of `tick`."""


async def tick(place: str) -> str:
    """Look at a place."""
    marks.append(time.process_time())
    return f"{place} is fine. Nothing to see here. " * 4


async def nap(place: str) -> str:
    """Wait at a place."""
    await asyncio.sleep(NAP)
    return f"{place} is fine"


def block(place: str) -> str:
    """Wait at a place, in a thread."""
    time.sleep(NAP)
    return f"{place} is fine"


async def store(text: str) -> str:
    """Store a text."""
    return f"{len(text)} characters"


TOOLS = (look, tick, nap, block, store)


# Answers

Call = tuple[str, dict[str, Any]]


def message(text: str | None, calls: Sequence[Call] = (), step: int = 0) -> bytes:
    """Return a whole answer as the body of a response."""
    content: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        content["tool_calls"] = [
            {
                "id": f"call_{step}_{index}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for index, (name, arguments) in enumerate(calls)
        ]
    choice = {"index": 0, "message": content, "finish_reason": "tool_calls" if calls else "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "any",
            "choices": [choice],
            "usage": usage,
        }
    ).encode()


def events(deltas: Sequence[dict[str, Any]], finish: str) -> list[bytes]:
    """Return a streamed answer as server-sent events."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    choices = [{"index": 0, "delta": one, "finish_reason": None} for one in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    chunks = [head | {"choices": [choice]} for choice in choices]
    chunks.append(head | {"choices": [], "usage": usage})
    return [*(b"data: %b\n\n" % json.dumps(one).encode() for one in chunks), b"data: [DONE]\n\n"]


def texts(text: str, size: int) -> list[bytes]:
    """Return a streamed text, `size` characters in a delta."""
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    return events([{"role": "assistant", "content": ""}, *({"content": p} for p in pieces)], "stop")


def large_call() -> list[bytes]:
    """Return a streamed tool call whose arguments have 1 MB."""
    call = {
        "index": 0,
        "id": "call_0_0",
        "type": "function",
        "function": {"name": "store", "arguments": '{"text":"'},
    }
    more = {"index": 0, "function": {"arguments": "x" * FRAGMENT}}
    last = {"index": 0, "function": {"arguments": '"}'}}
    deltas = [call, *[more] * FRAGMENTS, last]
    first = {"role": "assistant", "content": None}
    return events([first, *({"tool_calls": [one]} for one in deltas)], "tool_calls")


def looks(step: int, count: int) -> list[Call]:
    """Return the calls of one step."""
    return [("look", {"place": f"room {step}.{n}", "floor": n}) for n in range(count)]


def scenarios() -> dict[str, list[bytes | list[bytes]]]:
    """Return the answers of each scenario: a body, or the events of a stream."""
    run = [message(THOUGHT, looks(step, PARALLEL), step) for step in range(STEPS)]
    steps = [message(THOUGHT, [("tick", {"place": f"room {n}"})], n) for n in range(LONG)]
    fans: dict[str, list[bytes | list[bytes]]] = {
        name: [
            message(THOUGHT, [(name, {"place": f"room {n}"}) for n in range(FAN)]),
            message(DONE),
        ]
        for name in ("nap", "block")
    }
    cart = CART.model_dump_json()
    return {
        "run": [*run, message(DONE)],
        "held": [run[0], message(DONE)],
        "steps": [*steps, message(DONE)],
        **fans,
        "delta": [texts("word " * DELTAS, 5)],
        "arguments": [large_call(), texts(DONE, 5)],
        "typed": [message(cart)],
        "typed-stream": [texts(cart, 12)],
    }
