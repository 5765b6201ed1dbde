"""An agent behind a web page: its answer is streamed, and it stops when the reader leaves.

pip install "agentkit-replay[local]" starlette uvicorn
python examples/web.py                                (or --model openai:gpt-4o-mini)

Then open http://127.0.0.1:8000. Closing the page, or pressing Stop, cancels the run.
"""

import argparse
import json

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agentkit import Agent, AgentKitError
from agentkit.events import Restarted, TextDelta

PAGE = """<!doctype html><title>agentkit</title>
<form onsubmit="ask(q.value); return false">
<input id=q size=60 autofocus><button>Ask</button>
<button type=button onclick="stream.close()">Stop</button></form><pre id=answer></pre>
<script>
function ask(question) {
  answer.textContent = "";
  stream = new EventSource("/answer?q=" + encodeURIComponent(question));
  stream.addEventListener("text", e => answer.append(JSON.parse(e.data)));
  stream.addEventListener("restarted", e => answer.textContent = "");
  stream.addEventListener("end", e => {
    answer.append("\\n(" + JSON.parse(e.data) + ")");
    stream.close();
  });
}
</script>"""


class AnswerStream(Response):
    """Runs an agent for as long as its reader stays, and sends the text as it comes."""

    def __init__(self, agent: Agent[str], question: str) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self.agent, self.question = agent, question

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: a run, and beside it a task that sees the reader leave."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def say(kind: str, data: str, *, more: bool = True) -> None:
            body = f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": more})

        async with self.agent.stream(self.question) as run, anyio.create_task_group() as beside:

            async def stop_when_left() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                run.cancel("the reader has left")

            beside.start_soon(stop_when_left)
            async for event in run:
                match event:
                    case TextDelta(text=text):
                        await say("text", text)
                    case Restarted(reason=reason):
                        await say("restarted", reason)
                    case _:
                        pass
            beside.cancel_scope.cancel()
        try:
            await say("end", run.result.status, more=False)
        except AgentKitError as error:
            await say("end", error.message, more=False)


def make_app(agent: Agent[str]) -> Starlette:
    """The page at `/`, the agent at `/answer`."""

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def answer(request: Request) -> Response:
        return AnswerStream(agent, request.query_params.get("q") or "Hello!")

    return Starlette(routes=[Route("/", page), Route("/answer", answer)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="local")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    uvicorn.run(make_app(Agent(given.model)), host="127.0.0.1", port=given.port)
