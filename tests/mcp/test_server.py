"""Our MCP server, against the client of the SDK and against our own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from agentkit import Agent, Decision, RunContext, tool
from agentkit import mcp as our_mcp
from agentkit.errors import ConfigurationError, ToolError
from agentkit.mcp import http
from agentkit.testing import ScriptedModel
from agentkit.trace import Trace
from tests.mcp import served
from tests.mcp.conftest import served_by_http
from tests.support import ROOT, child_environment, needs, tool_texts

pytestmark = [pytest.mark.anyio, needs("mcp")]
SERVED = str(Path(__file__).parent / "served.py")


def client_of(*offered: Any, mode: str = "auto", elicit: Any = None, **options: Any) -> Any:
    """Return the SDK's client, connected to our server in this process."""
    import mcp

    from agentkit.mcp.server import ToolServer

    facts = {"name": "t", "instructions": None, "deps": None, "trace": False, "approver": None}
    server = ToolServer(offered, **{**facts, **options}).server
    return mcp.Client(server, mode=mode, elicitation_callback=elicit)


def files_in(folder: Path) -> list[Path]:
    return [*folder.iterdir()]


def text_of(result: Any) -> str:
    return "\n".join(one.text for one in result.content if one.type == "text")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_tools_are_listed_and_called(mode: str) -> None:
    """A client sees names, descriptions, plain schemas and hints, and gets what tools return."""
    async with client_of(*served.TOOLS, mode=mode) as client:
        listed = {one.name: one for one in (await client.list_tools()).tools}
        assert [*listed] == ["add", "wipe", "slow", "picture"]
        assert listed["add"].description == "Add two numbers."
        assert listed["add"].input_schema["required"] == ["a"]
        assert listed["add"].input_schema["properties"]["b"] == {
            "type": "integer",
            "description": "The second.",
            "default": 2,
        }
        assert listed["add"].annotations.read_only_hint
        assert not listed["wipe"].annotations.read_only_hint
        result = await client.call_tool("add", {"a": 40})
        assert (text_of(result), result.is_error) == ("42", False)
        words, image = (await client.call_tool("picture")).content
        assert (words.text, image.data, image.mime_type) == ("A pixel.", "iVBORw==", "image/png")


async def test_what_is_wrong_is_a_result_that_helps() -> None:
    """Arguments that do not fit, and tools that do not exist, are errors for the model."""
    async with client_of(*served.TOOLS) as client:
        result = await client.call_tool("add", {"a": "many"})
        assert result.is_error
        assert "a: expected an integer" in text_of(result)
        result = await client.call_tool("subtract", {})
        assert result.is_error
        assert "There is no tool 'subtract'" in text_of(result)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_progress_goes_through(mode: str) -> None:
    """A tool's progress is the client's; a cancelled call ends at the server."""
    seen: list[Any] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    async with client_of(*served.TOOLS, mode=mode) as client:
        result = await client.call_tool("slow", {"steps": 2}, progress_callback=report)
    assert text_of(result) == "done"
    assert seen == [(0, 2, "at it"), (1, 2, "at it")]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_cancellation_goes_through(mode: str, tmp_path: Path) -> None:
    """A call that its client cancels is cancelled, and its trace says so."""
    async with client_of(*served.TOOLS, mode=mode, trace=tmp_path) as client:
        with anyio.CancelScope() as scope:

            async def at_work(*_: Any) -> None:
                scope.cancel()

            await client.call_tool("slow", {"steps": 1000}, progress_callback=at_work)
        for _ in range(1000):
            (file,) = files_in(tmp_path)
            if Trace.load(file).status is not None:
                break
            await anyio.sleep(0.05)
    assert Trace.load(file).status == "cancelled"


async def test_an_agent_is_one_tool(tmp_path: Path) -> None:
    """An agent takes a prompt; its tools are not offered, its calls are progress and recorded."""
    seen: list[Any] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        seen.append(message)

    async with client_of(served.helper, trace=tmp_path) as client:
        (listed,) = (await client.list_tools()).tools
        assert (listed.name, listed.input_schema["required"]) == ("helper", ["prompt"])
        result = await client.call_tool("helper", {"prompt": "40 + 2"}, progress_callback=report)
    assert text_of(result) == "The sum is 42."
    assert seen == ['add {"a":40}']
    (file,) = files_in(tmp_path)
    assert "/mcp/m0/t0/helper/m0/t0" in Trace.load(file).effects


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_clients_user_approves(mode: str) -> None:
    """A call that needs approval is asked about at the client; without a way to ask, denied."""
    import mcp_types as types

    asked: list[str] = []

    async def accept(context: Any, params: Any) -> Any:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={})

    async def decline(context: Any, params: Any) -> Any:
        return types.ElicitResult(action="decline")

    call = ("wipe", {"path": "/x"})
    async with client_of(served.wipe, mode=mode, elicit=accept) as client:
        assert text_of(await client.call_tool(*call)) == "wiped /x"
    assert asked == ['Allow wipe {"path": "/x"}?']
    async with client_of(served.wipe, mode=mode, elicit=decline) as client:
        result = await client.call_tool(*call)
        assert (result.is_error, text_of(result)) == (
            True,
            "Denied: The user of the client refused it.",
        )
    async with client_of(served.wipe, mode=mode) as client:
        assert "cannot ask for it" in text_of(await client.call_tool(*call))
    async with client_of(served.wipe, approver=lambda call: Decision.approve()) as client:
        assert text_of(await client.call_tool(*call)) == "wiped /x"


async def test_an_approval_is_good_for_its_call_and_once() -> None:
    """What a client's user has agreed to is this call: no other one goes on with it, nor twice."""
    import mcp_types as types

    async def accept(context: Any, params: Any) -> Any:
        raise AssertionError("the answers are made by hand")

    answers = {"/mcp/m0/t0": types.ElicitResult(action="accept", content={})}
    async with client_of(served.wipe, elicit=accept) as client:
        session = client.session
        first = await session.call_tool("wipe", {"path": "/x"}, allow_input_required=True)
        again = {"request_state": first.request_state, "input_responses": answers}
        other = await session.call_tool("wipe", {"path": "/"}, **again)
        assert "not open any more" in text_of(other)
        second = await session.call_tool("wipe", {"path": "/x"}, allow_input_required=True)
        again = {"request_state": second.request_state, "input_responses": answers}
        assert text_of(await session.call_tool("wipe", {"path": "/x"}, **again)) == "wiped /x"
        assert "not open" in text_of(await session.call_tool("wipe", {"path": "/x"}, **again))


async def test_what_a_tool_asks_is_asked_at_the_client() -> None:
    """A question of a running tool goes to the client's user; the form that returns is read."""
    import mcp_types as types

    @tool
    async def book(context: RunContext[Any]) -> str:
        """Book."""
        decision = await context.ask("Which seat?", schema={"type": "object", "properties": {}})
        return f"{decision.kind} {decision.text}" if decision else "nobody"

    async def answer(context: Any, params: Any) -> Any:
        assert params.message == "Which seat?"
        return types.ElicitResult(action="accept", content={"seat": "12a"})

    async with client_of(book, mode="legacy", elicit=answer) as client:
        assert text_of(await client.call_tool("book")) == 'edit {"seat": "12a"}'


async def test_nothing_is_offered_that_is_no_tool(anyio_backend: str) -> None:
    """Serving nothing, or something else than tools, is refused."""
    with pytest.raises(ConfigurationError, match="nothing to offer"):
        await our_mcp.serve()
    with pytest.raises(ConfigurationError, match=r"serve\(7\): expected a tool"):
        our_mcp.app(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="http='here': expected HOST:PORT"):
        await our_mcp.serve(served.add, http="here")
    if anyio_backend == "trio":
        with pytest.raises(ConfigurationError, match="needs asyncio"):
            await our_mcp.serve(served.add, http="127.0.0.1:0")


def test_stdout_is_the_wire_alone(tmp_path: Path) -> None:
    """Whatever a file, its tools and their children print goes to stderr; each call has a trace."""
    command = [sys.executable, "-m", "agentkit", "mcp", f"{SERVED}:TOOLS", "--trace", str(tmp_path)]
    script = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",'
        '"capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n'
        '{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
        '{"jsonrpc":"2.0","id":2,"method":"tools/call",'
        '"params":{"name":"add","arguments":{"a":1}}}\n'
    )

    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(script)
        process.stdin.flush()
        out = process.stdout.readline() + process.stdout.readline()
        process.stdin.close()
        out, err = out + process.stdout.read(), process.stderr.read()
    assert [line[:22] for line in out.splitlines()] == ['{"jsonrpc":"2.0","id":'] * 2
    assert '"text":"3"' in out
    for words in ("printed at import", "printed by a child", "printed by a tool"):
        assert words in err
    assert len(files_in(tmp_path)) == 1


@pytest.fixture(scope="module")
def endpoint() -> Generator[str]:
    """Serve our tools by HTTP on this machine."""
    with served_by_http(*served.TOOLS, served.helper) as url:
        yield url


# httpcore2 leaves the end of a response's stream to the garbage collector, under trio.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_our_client_and_our_server_over_http(endpoint: str) -> None:
    """A run calls tools, and an agent, that are served by HTTP; progress comes along."""
    seen: list[Any] = []
    calls = [
        [("add", {"a": 1}), ("slow", {"steps": 2})],
        [("helper", {"prompt": "40 + 2"})],
        [("add", {"a": "x"})],
        "Done.",
    ]
    agent = Agent(ScriptedModel(calls), tools=[http(endpoint)])
    result = await agent.run("x", on_event=lambda e: seen.append(getattr(e, "value", None)))
    add, slow, asked, wrong = tool_texts(result)
    assert (add, slow, asked) == ("3", "done", "The sum is 42.")
    assert "expected integer" in wrong
    assert {"progress": 1, "total": 2, "message": "at it"} in seen
    assert (await agent.replay(result.trace)).output == "Done."


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as above
async def test_a_server_that_comes_back_is_found_again() -> None:
    """While a server by HTTP is down its calls are tool errors; the next one finds it again."""
    port = 0

    def running(*offered: Any) -> Any:
        return served_by_http(*offered, port=port)

    with running(served.add) as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
    toolset = http(url)
    async with toolset:
        with running(served.add):
            (tool,) = await toolset.tools(RunContext())
            assert await tool.call({"a": 1}) == "3"
        with pytest.raises(ToolError, match="MCP server 127"):
            await tool.call({"a": 1})
        with running(served.add, served.slow):
            assert await tool.call({"a": 1}) == "3"
            # A new connection is listed anew.
            assert len(await toolset.tools(RunContext())) == 2


async def test_foreign_web_pages_are_refused(endpoint: str) -> None:
    """A request that a page of another site makes in a browser is refused."""
    import httpx2

    headers = {"Origin": "https://evil.example", "Accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient() as client:
        answer = await client.post(endpoint, json={}, headers=headers)
    assert answer.status_code == 403


async def test_an_http_server_that_is_not_there() -> None:
    """A server that refuses connections ends the run at its first listing, with the reason."""
    from agentkit.errors import ServerUnreachable

    agent = Agent(ScriptedModel(["Done."]), tools=[http("http://127.0.0.1:9/mcp", name="far")])
    with pytest.raises(ServerUnreachable, match="The MCP server far cannot be reached: "):
        await agent.run("x")


def test_a_question_comes_on_the_stream_of_its_call() -> None:
    """A client that holds no other stream open, as none must, is asked all the same."""
    head = {"accept": "application/json, text/event-stream"}
    hello = {
        "protocolVersion": "2025-11-25",
        "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "plain", "version": "1"},
    }

    def message(method: str, params: Any = None, **more: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "method": method, "params": params or {}, **more}

    with served_by_http(*served.TOOLS) as url, httpx2.Client(timeout=60) as client:
        greeted = client.post(url, json=message("initialize", hello, id=1), headers=head)
        head["mcp-session-id"] = greeted.headers["mcp-session-id"]
        client.post(url, json=message("notifications/initialized"), headers=head)
        call = message("tools/call", {"name": "wipe", "arguments": {"path": "/x"}}, id=2)
        with client.stream("POST", url, json=call, headers=head) as stream:
            events = (
                json.loads(line.removeprefix("data:"))
                for line in stream.iter_lines()
                if line.startswith("data:") and line != "data: "
            )
            question = next(events)
            assert question["method"] == "elicitation/create"
            accepted = {"action": "accept", "content": {}}
            answer = {"jsonrpc": "2.0", "id": question["id"], "result": accepted}
            client.post(url, json=answer, headers=head)
            result = next(events)
    assert result["result"]["content"] == [{"type": "text", "text": "wiped /x"}]
