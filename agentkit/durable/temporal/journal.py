"""The trace of a run, put together from what its activities recorded.

Each activity records its own effect with the recorder that a process would use, and stores
that as a *piece*: the events, and the names of the blobs that they refer to. The workflow
keeps the order. At the end the pieces are put in that order, with what the workflow itself
knows (approvals, calls that no tool ran), and that is an `agentkit.trace/1`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from agentkit.core.effects import Address, Pause
from agentkit.durable.temporal.blobs import Blobs
from agentkit.durable.temporal.data import from_data, whole_all
from agentkit.messages import JsonObject, Message
from agentkit.runtime.driver import repeated
from agentkit.trace.file import MemorySink, TraceWriter
from agentkit.trace.naming import canonical
from agentkit.trace.recorder import Recorder


class PieceRecorder(Recorder):
    """A recorder whose lines become a piece; it notes the agents that begin, too.

    Attributes:
        begun: The messages that an agent began with, by its address.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(MemorySink(), **options)
        self.begun: dict[str, Sequence[Message]] = {}
        self._opened = time.time_ns() // 1000
        self._depth = 1  # the trace goes on elsewhere when an agent has ended
        self._taken = 0

    def agent_start(
        self,
        at: Address,
        agent: str,
        messages: Sequence[Message],
        earlier: int,
        options: Any = None,
    ) -> None:
        """Record that an agent begins."""
        self.begun[at] = messages
        super().agent_start(at, agent, messages, earlier, options)

    def knows(self, messages: Iterable[Message]) -> None:
        """Leave these messages out: another piece has them."""
        self._written |= {self.namer.blob(one)[0] for one in messages}

    @property
    def header(self) -> JsonObject:
        """The first line of its trace."""
        return json.loads(self._lines()[0])

    async def piece(self, blobs: Blobs) -> Piece:
        """Return what was recorded since the last time."""
        piece, lines = Piece(), self._lines()
        for line in lines[self._taken :]:
            data = json.loads(line)
            if data["event"] == "blob":
                name = await blobs.put(canonical(data["data"]))
                piece.blobs[data["h"]] = (data["kind"], name)
            elif data.pop("seq"):
                piece.events.append({**data, "t": data["t"] + self._opened})
        self._taken = len(lines)
        return piece


@dataclass(slots=True)
class Piece:
    """Some events of a trace. `t` is the time of the clock here, in µs.

    Attributes:
        events: The events.
        blobs: Of what they name, the kind and the name in the store, by hash.
    """

    events: list[JsonObject] = field(default_factory=list[JsonObject])
    blobs: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])

    def take(self, other: Piece) -> None:
        """Append another piece."""
        self.events += other.events
        self.blobs |= other.blobs

    async def store(self, blobs: Blobs) -> str:
        """Store it and return its name."""
        return await blobs.put(json.dumps(asdict(self)).encode())

    @classmethod
    async def load(cls, name: str, blobs: Blobs) -> Piece:
        """Return the piece of a name."""
        return cls(**json.loads(await blobs.get(name)))

    async def lines(
        self, blobs: Blobs, header: JsonObject, status: str | None = None
    ) -> list[bytes]:
        """Return the lines of a trace with this header, and with an end if there is a status."""
        now = start = min((one["t"] for one in self.events), default=0)
        sink = MemorySink()
        writer = TraceWriter(sink, clock=lambda: now * 1000)
        wall = datetime.fromtimestamp(start / 1e6, UTC).isoformat(timespec="milliseconds")
        writer.write("trace.open", _fields({**header, "wall": wall.replace("+00:00", "Z")}))
        for h, (kind, name) in self.blobs.items():
            writer.write("blob", {"h": h, "kind": kind, "data": await blobs.get(name)})
        for event in self.events:
            now = max(now, event["t"])  # the clocks of two machines differ; what follows is later
            writer.write(event["event"], _fields(event))
        if status is not None:
            writer.write("trace.close", {"status": status, "lines": writer.lines + 1})
        return sink.lines


def _fields(event: JsonObject) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in ("event", "seq", "t")}


class Assembly:
    """Puts the pieces of one workflow in order.

    Args:
        blobs: The store.
        recorder: Records what the workflow itself knows.
        run: The id of the run.
    """

    def __init__(self, blobs: Blobs, recorder: PieceRecorder, run: str) -> None:
        self.piece = Piece()
        self._blobs = blobs
        self._recorder = recorder
        self._run = run
        self._ends: dict[str, list[JsonObject]] = {}

    async def take(self, log: Sequence[Any]) -> None:
        """Take over what happened, in the order of the workflow."""
        recorder = self._recorder
        for kind, t, *data in log:
            match kind, data:
                case "start", (at, parts, children):
                    await self._start(at, parts, children)
                case "end", (at,):
                    self.piece.events += self._ends.pop(at, ())
                case "skip", (skipped,):
                    recorder.skipped(one := from_data(skipped))
                    if one.reason == "repeated":
                        recorder.event(repeated(one))
                case "pending", (pending,):
                    recorder.started(Pause(at=Address(""), pending=from_data(pending)))
                case "decisions", (pending, made):
                    pause = Pause(at=Address(""), pending=from_data(pending))
                    recorder.ended(pause, from_data(made))
                case _:  # an agent takes over
                    at, name, messages = data
                    whole = await whole_all(messages, self._run, self._blobs)
                    recorder.agent_start(Address(at), name, whole, len(whole))
            await self.own(t)

    async def own(self, t: int) -> None:
        """Take over what the recorder has written since, as of this time."""
        written = await self._recorder.piece(self._blobs)
        written.events = [{**one, "t": t} for one in written.events]
        self.piece.take(written)

    async def _start(self, at: str, parts: Sequence[str], children: Mapping[str, str]) -> None:
        """Put the beginning of an effect here, and keep the rest for its end.

        Args:
            at: The effect.
            parts: What its activities recorded, the last one at the end.
            children: The pieces of the agents that ran for it in workflows of their own.
        """
        pieces = await asyncio.gather(*(Piece.load(one, self._blobs) for one in parts))
        if not pieces:
            return  # it was lost with its worker
        _number_attempts(at, pieces)
        first: dict[tuple[str, str], int] = {}
        for one in pieces:
            self.piece.blobs |= one.blobs
            for event in one.events:
                first.setdefault((event["event"], event.get("at", "")), event["t"])
        events = [one for earlier in pieces[:-1] for one in earlier.events if _stays(one, at)]
        opening, *inner = pieces[-1].events
        self.piece.events.append({**opening, "t": first[opening["event"], at]})
        rest = self._ends.setdefault(at, [])
        rest += events
        for event in inner:
            begins = event["event"] == "agent.start"
            if begins and any(event["at"].startswith(f"{one}/") for one in children):
                continue  # it took over there, and stands in the piece of that agent
            if not begins or event["at"] not in children:
                rest.append(event)
                continue
            rest.append({**event, "t": first["agent.start", event["at"]]})
            child = await Piece.load(children[event["at"]], self._blobs)
            self.piece.blobs |= child.blobs
            rest += child.events


def _number_attempts(at: str, pieces: Sequence[Piece]) -> None:
    """Give the HTTP attempts of all activities of a model call one sequence of numbers."""
    number = -1
    for event in (event for one in pieces for event in one.events):
        kind = event["event"]
        if kind in ("http.start", "http.end") and Address(event["at"]).parent == at:
            number += kind == "http.start"
            event |= {"at": Address(at).attempt(number)}
            event |= {"attempt": number} if "attempt" in event else {}


def _stays(event: JsonObject, at: str) -> bool:
    """Tell whether an event of an earlier activity of an effect stands in its trace.

    What ended there has begun anew since; what a function has drawn then it was given again.
    """
    if event["event"].endswith((".start", ".end")) and event["event"] != "http.start":
        return event["event"] == "http.end"
    return event["event"] == "det" or event["event"].startswith("http.")
