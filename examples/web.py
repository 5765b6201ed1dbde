"""An agent behind a web page: it streams its answer, and stops when the reader leaves.

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
    """Server-sent events of one run, which is cancelled when the client disconnects."""

    def __init__(self, agent: Agent, question: str) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self.agent, self.question = agent, question

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events of a run, while a task waits for the client to disconnect."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def send_event(kind: str, data: str, *, more: bool = True) -> None:
            body = f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": more})

        async with self.agent.stream(self.question) as run, anyio.create_task_group() as tasks:

            async def cancel_on_disconnect() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                run.cancel("the reader has left")

            tasks.start_soon(cancel_on_disconnect)
            async for event in run:
                match event:
                    case TextDelta(text=text):
                        await send_event("text", text)
                    case Restarted(reason=reason):
                        await send_event("restarted", reason)
                    case _:
                        pass
            tasks.cancel_scope.cancel()
        try:
            await send_event("end", run.result.status, more=False)
        except AgentKitError as error:
            await send_event("end", error.message, more=False)


def make_app(agent: Agent) -> Starlette:
    """Return the application: the page at `/`, the agent at `/answer`."""

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def answer(request: Request) -> Response:
        return AnswerStream(agent, request.query_params.get("q") or "Hello!")

    return Starlette(routes=[Route("/", page), Route("/answer", answer)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="local")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    uvicorn.run(make_app(Agent(options.model)), host="127.0.0.1", port=options.port)
