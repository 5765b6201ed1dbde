"""An agent behind a web page: its answer is streamed, and it stops when the reader leaves.

pip install "agentkit-replay[local]" starlette uvicorn
python examples/web.py                                (or --model openai:gpt-4o-mini)

Then open http://127.0.0.1:8000. Closing the page, or pressing Stop, cancels the run.
"""

import argparse
import json
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agentkit import Agent, AgentKitError, tool
from agentkit.events import Event, Restarted, TextDelta, ToolCallStarted

PAGE = """<!doctype html><title>agentkit</title>
<form onsubmit="ask(q.value); return false"><input id=q size=60 autofocus><button>Ask</button>
<button type=button onclick="stream.close()">Stop</button></form><pre id=answer></pre>
<script>
function ask(question) {
  answer.textContent = "";
  stream = new EventSource("/answer?q=" + encodeURIComponent(question));
  stream.addEventListener("text", e => answer.textContent += JSON.parse(e.data));
  stream.addEventListener("restarted", e => answer.textContent = "");
  stream.addEventListener("tool", e => answer.textContent += "[" + JSON.parse(e.data) + "]\\n");
  stream.addEventListener("end", e => { answer.append("\\n" + JSON.parse(e.data)); stream.close(); });
}
</script>"""


@tool(effect="read")
def count_letters(word: str) -> int:
    """How many letters a word has."""
    return len(word)


class AnswerStream(Response):
    """Runs an agent for as long as its reader stays, and sends what happens."""

    def __init__(self, agent: Agent[Any], question: str) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self.agent, self.question = agent, question

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: the run, and beside it a task that sees the reader leave."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with self.agent.stream(self.question) as run, anyio.create_task_group() as beside:

            async def stop_when_left() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                run.cancel("the reader has left")

            beside.start_soon(stop_when_left)
            async for event in run:
                if (chunk := encoded(event)) is not None:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            beside.cancel_scope.cancel()
        try:
            last = run.result.status
        except AgentKitError as error:
            last = error.message
        await send({"type": "http.response.body", "body": line("end", last)})


def encoded(event: Event) -> bytes | None:
    """An event of the run as the page hears of it; None for what it need not know."""
    match event:
        case TextDelta(text=text):
            return line("text", text)
        case ToolCallStarted(name=name, arguments=arguments):
            return line("tool", f"{name} {arguments}")
        case Restarted(reason=reason):
            return line("restarted", reason)
        case _:
            return None


def line(kind: str, data: str) -> bytes:
    """A server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def make_app(agent: Agent[Any]) -> Starlette:
    """The page at `/`, the agent at `/answer`."""

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def answer(request: Request) -> Response:
        return AnswerStream(agent, request.query_params.get("q") or "Hello!")

    return Starlette(routes=[Route("/", page), Route("/answer", answer)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="local")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    app = make_app(Agent(given.model, tools=[count_letters]))
    uvicorn.run(app, host="127.0.0.1", port=given.port)
