"""The programs in examples/, with scripted models or a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from agentkit import (
    Agent,
    AssistantMessage,
    ChatModel,
    ModelRequest,
    ModelResponse,
    Session,
    ToolCall,
    ToolMessage,
    Trace,
    Usage,
    UserMessage,
)
from agentkit.errors import LimitExceeded, ModelUnreachable
from agentkit.testing import HOLD, ChatServer, FunctionModel, ScriptedModel, reply, sse
from examples import approval, chat, look, research, web
from tests.support import LOADED, ROOT, events_of, running, tool_texts


def environment(server: ChatServer) -> dict[str, str]:
    """Return the environment of a process whose `openai:` models are on this server."""
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    openai = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "k"}
    return os.environ | openai | {"PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8"}


# examples/web.py


def only_file(folder: Path) -> Path:
    """Return the only file in a folder."""
    (path,) = folder.iterdir()
    return path


def delta(text: str) -> dict[str, Any]:
    """Return a chunk of a streamed answer."""
    return {"id": "1", "choices": [{"index": 0, "delta": {"content": text}}]}


@pytest.mark.anyio
async def test_web_streams_the_answer_to_its_end(tmp_path: Path) -> None:
    """The text arrives as server-sent events, followed by the status."""
    with running(web.make_app(Agent(ScriptedModel(["Good day."]), trace=tmp_path))) as url:
        async with httpx2.AsyncClient() as client:
            page = await client.get(url)
            answer = await client.get(url + "/answer", params={"q": "Hi"})
    assert "EventSource" in page.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text == (
        'event: text\ndata: "Good"\n\nevent: text\ndata: " day."\n\nevent: end\ndata: "ok"\n\n'
    )
    assert Trace.load(only_file(tmp_path)).status == "ok"


@pytest.mark.anyio
async def test_web_reports_a_failed_run() -> None:
    """The error is the last event, and the server keeps serving."""
    with running(
        web.make_app(Agent(ScriptedModel([ModelUnreachable("no route"), "Hello."])))
    ) as url:
        async with httpx2.AsyncClient() as client:
            failed = await client.get(url + "/answer")
            next_answer = await client.get(url + "/answer")
    assert failed.text == 'event: end\ndata: "no route"\n\n'
    assert 'data: "Hello."' in next_answer.text


@pytest.mark.anyio
async def test_web_cancels_the_run_when_its_reader_leaves(tmp_path: Path) -> None:
    """The request to the model is abandoned, and the trace ends as cancelled."""
    with ChatServer([sse([delta("Once"), delta(" upon"), HOLD, delta(" a time")])]) as server:
        model = ChatModel("m", base_url=server.base_url, api_key="k")
        agent = Agent(model, trace=tmp_path)
        with running(web.make_app(agent)) as url:
            async with await anyio.connect_tcp("127.0.0.1", int(url.rpartition(":")[2])) as reader:
                await reader.send(b"GET /answer?q=Hi HTTP/1.1\r\nHost: here\r\n\r\n")
                received = b""
                while b" upon" not in received:
                    received += await reader.receive()
                path = only_file(tmp_path)
                assert Trace.load(path).status == "interrupted"  # so far
            with anyio.fail_after(60):
                while Trace.load(path).status == "interrupted":
                    await anyio.sleep(0.01)
        trace = Trace.load(path)
        assert trace.status == "cancelled"
        (end,) = events_of(trace, "agent.end")
        assert end["error"]["message"] == "The run was cancelled: the reader has left."


# examples/sessions.py


def test_sessions_keep_users_apart(tmp_path: Path) -> None:
    """Over HTTP, and over a restart; a failed run is kept as far as it came."""

    def answer(request: ModelRequest) -> str:
        if request.messages[-1].text == "fail":
            raise ModelUnreachable("no route")
        return " ".join(one.text for one in request.messages if isinstance(one, UserMessage))

    from examples import sessions

    agent = Agent(FunctionModel(answer), deps_type=str)
    said: list[Any] = []
    for _ in range(2):
        with running(sessions.make_app(agent, tmp_path)) as url:
            for user in ("ada", "bob"):
                headers = {"x-user": user}
                body = {"text": f"I am {user}."}
                reply = httpx2.post(f"{url}/messages", json=body, headers=headers)
                said.append(reply.json()["text"])
    assert said == ["I am ada.", "I am bob.", "I am ada. I am ada.", "I am bob. I am bob."]
    with running(sessions.make_app(agent, tmp_path)) as url:
        failed = httpx2.post(f"{url}/messages", json={"text": "fail"}, headers={"x-user": "ada"})
        kept = httpx2.get(f"{url}/messages", headers={"x-user": "ada"}).json()
        httpx2.delete(f"{url}/messages", headers={"x-user": "bob"})
        gone = httpx2.get(f"{url}/messages", headers={"x-user": "bob"}).json()
        wrong = httpx2.get(f"{url}/messages", headers={"x-user": "../ada"})
    assert (failed.status_code, wrong.status_code, gone) == (502, 400, [])
    assert [one["role"] for one in kept] == ["user", "assistant"] * 2 + ["user"]
    assert len(list((tmp_path / "traces" / "ada").iterdir())) == 3


# examples/notebook.ipynb


@pytest.mark.skipif(sys.platform == "win32", reason="its kernel needs another event loop there")
@pytest.mark.filterwarnings("default")
def test_the_notebook_runs(tmp_path: Path) -> None:
    """From its first cell to its last, in a kernel of its own."""
    import nbclient
    import nbformat

    book = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    client = nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": tmp_path}})
    client.execute(env=os.environ | {"PYTHONPATH": paths})
    shown = [
        output["data"]["text/plain"]
        for cell in book.cells
        for output in cell.get("outputs", ())
        if output["output_type"] == "execute_result"
    ]
    assert shown[0] == "'200 were sold in 2 cities.'"
    assert shown[-1] == "'120 were sold in 2 cities.'"
    html = [
        output["data"]["text/html"]
        for cell in book.cells
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", ())
    ]
    assert len(html) == 1  # of the result, which is shown as the tree of its run
    assert "200 were sold in 2 cities." in html[0]
    assert "<b>sales</b>" in html[0]


# examples/chat.py


@pytest.mark.anyio
async def test_chat_prints_the_answer_and_remembers(capsys: pytest.CaptureFixture[str]) -> None:
    """Each turn continues from the previous one."""
    session = Session(Agent(ScriptedModel(["Hello, Ada.", "You are Ada."])))
    await chat.answer(session, "I am Ada.")
    await chat.answer(session, "Who am I?")
    assert capsys.readouterr().out == "Hello, Ada.\nYou are Ada.\n"
    assert len(session.messages) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_chat_ctrl_c_stops_only_the_answer() -> None:
    """After an interrupted answer, the program reads the next prompt."""
    script = [sse([delta("Once upon"), HOLD]), reply("Hello again.")]
    with ChatServer(script) as server:
        program = subprocess.Popen(
            [LOADED.executable(), str(ROOT / "examples" / "chat.py"), "--model", "openai:m"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(server),
            text=True,
        )
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write("Tell me a story.\n")
        program.stdin.flush()
        received = ""
        while not received.endswith("Once upon"):
            received += program.stdout.read(1)
        program.send_signal(signal.SIGINT)
        printed, errors = program.communicate("Still there?\n", timeout=60)
        messages = server.requests[1].json["messages"]
    assert program.returncode == 0, errors
    assert errors == ""
    assert printed == "\n(stopped)\n> Hello again.\n> \n"
    assert [message["content"] for message in messages[1:]] == ["Tell me a story.", "Still there?"]


def test_chat_reports_an_error_and_continues(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error ends the answer, and Ctrl-D ends the program."""
    prompts = iter(["Hi", " ", "Hi"])
    monkeypatch.setattr("builtins.input", lambda _: next(prompts, None) or stop())

    def stop() -> str:
        raise EOFError

    chat.chat(Session(Agent(ScriptedModel([ModelUnreachable("no route"), "Hello."]))))
    assert capsys.readouterr().out == "\n\n(ModelUnreachable: no route)\nHello.\n\n"


# examples/research.py


def priced(text: str = "", *calls: tuple[str, str], cost: float = 0.01) -> ModelResponse:
    """Return an answer with its cost, as some servers report it; calls are (name, arguments)."""
    tool_calls = tuple(
        ToolCall(id=f"{name}-{index}", name=name, arguments=arguments)
        for index, (name, arguments) in enumerate(calls)
    )
    return ModelResponse(
        message=AssistantMessage(content=text, tool_calls=tool_calls),
        finish="tool_calls" if calls else "stop",
        usage=Usage(requests=1, input_tokens=90, output_tokens=10, cost=cost),
    )


class Team(FunctionModel):
    """Scripted lead and researchers; no researcher is answered before both have started."""

    def __init__(self) -> None:
        super().__init__(self.answer, name="scripted")
        self.waiting = 0
        self.both = anyio.Event()

    async def answer(self, request: ModelRequest) -> ModelResponse:
        """Return two questions at once, a search for each, then a summary."""
        last = request.messages[-1]
        if request.tools[0].name == "researcher":
            if isinstance(last, ToolMessage):
                return priced("Deimos is smaller and slower.")
            moons = ["phobos", "deimos"]
            return priced("", *[("researcher", f'{{"prompt": "{moon}"}}') for moon in moons])
        if isinstance(last, ToolMessage):
            return priced(last.text)
        self.waiting += 1
        if self.waiting == 2:
            self.both.set()
        with anyio.fail_after(60):
            await self.both.wait()
        return priced("", ("search", f'{{"words": "{last.text}"}}'))


@pytest.mark.anyio
async def test_researchers_work_at_the_same_time() -> None:
    """Both start before either is answered, the run's usage includes them, and it replays."""
    agent = research.research_team(Team(), cost=1.0)
    result = await agent.run("Compare the moons of Mars.")
    assert result.output == "Deimos is smaller and slower."
    answers = tool_texts(result)
    assert [text[2:8] for text in answers] == ["Phobos", "Deimos"]
    assert (result.usage.requests, result.usage.cost) == (6, pytest.approx(0.06))
    assert result.trace is not None
    assert (await agent.replay(result.trace)).output == result.output


@pytest.mark.anyio
async def test_research_ends_when_the_budget_is_spent() -> None:
    """Researchers' spending counts, and the error carries a valid history and the cost."""
    agent = research.research_team(Team(), cost=0.03)
    with pytest.raises(LimitExceeded, match="cost") as caught:
        await agent.run("Compare the moons of Mars.")
    assert caught.value.limit == "cost"
    assert caught.value.result is not None
    assert caught.value.result.usage.cost == pytest.approx(0.03)
    answers = tool_texts(caught.value.result)
    assert len(answers) == 2
    assert all("Limits.cost" in text for text in answers)


def test_research_prints_calls_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """The program prints them with a sufficient budget, and with one that is too small."""
    research.main("Compare.", Team(), 1.0)
    printed = capsys.readouterr().out
    assert "/lead/m0/t1/researcher/m0/t0: search" in printed
    assert printed.endswith(
        "Deimos is smaller and slower.\n(model calls: 6, tokens: 600, 0.0600 USD)\n"
    )
    research.main("Compare.", Team(), 0.01)
    assert capsys.readouterr().out.endswith(
        "Messages so far: 4 (model calls: 1, tokens: 100, 0.0100 USD)\n"
    )


# examples/approval.py


def keeper(folder: Path, server: ChatServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the approval example in its own process, in `folder`."""
    program = str(ROOT / "examples" / "approval.py")
    return LOADED.run([program, "--model", "openai:m", *arguments], folder, environment(server))


@pytest.mark.parametrize(
    ("decision", "remaining", "result"),
    [
        (["approve"], ["draft.old"], "draft.txt is deleted."),
        (["deny", "It is needed."], ["draft.old", "draft.txt"], "Denied: It is needed."),
        (
            ["edit", '{"path": "draft.old"}'],
            ["draft.txt"],
            '(Run with other arguments: {"path": "draft.old"})\ndraft.old is deleted.',
        ),
    ],
)
def test_approval_across_two_processes(
    decision: list[str], remaining: list[str], result: str, tmp_path: Path
) -> None:
    """Nothing is deleted before the decision, and the second process makes one model call."""
    for name in ("draft.txt", "draft.old"):
        (tmp_path / name).touch()
    call = ("delete_file", {"path": "draft.txt"})
    with ChatServer([reply(calls=[call]), reply("Done.")]) as server:
        paused = keeper(tmp_path, server, "ask", "Delete draft.txt.")
        assert paused.returncode == 0, paused.stderr
        assert 'Waiting for a decision: delete_file {"path":"draft.txt"}' in paused.stdout
        assert sorted(path.name for path in tmp_path.glob("draft.*")) == ["draft.old", "draft.txt"]
        resumed = keeper(tmp_path, server, "decide", "approval.jsonl", *decision)
        assert (resumed.returncode, resumed.stdout) == (0, "Done.\n"), resumed.stderr
        assert server.requests[1].json["messages"][-1]["content"] == result
        assert len(server.requests) == 2
    assert sorted(path.name for path in tmp_path.glob("draft.*")) == remaining
    trace = Trace.load(tmp_path / "approval.jsonl")
    assert trace.status == "ok"
    (answer,) = events_of(trace, "tool.decision")
    assert (answer["decision"], answer["by"]) == (decision[0], "the terminal")


@pytest.mark.anyio
async def test_approval_of_two_calls_in_turn(tmp_path: Path) -> None:
    """A decision applies only to the calls that wait now: the next call waits again."""
    for name in ("a", "b"):
        (tmp_path / name).touch()
    script = [[("delete_file", {"path": name})] for name in ("a", "b")]
    agent = approval.make_agent(ScriptedModel([*script, "Done."]))
    path = tmp_path / "run.jsonl"
    first = await approval.ask(agent, "Delete both.", path)
    assert first.status == "paused"
    second = await approval.decide(agent, path, approval.Decision.deny())
    assert [pending.at for pending in second.pending] == ["/keeper/m1/t0"]
    assert (await approval.decide(agent, path, approval.Decision.deny())).output == "Done."
    assert (tmp_path / "a").exists()


# the README


def test_the_readme_shows_the_quickstart() -> None:
    """Its first Python block is examples/quickstart.py, byte for byte."""
    example = (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"```python\n{example}```\n" in readme


# examples/look.py


def test_looking_at_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of the folder is shown to the model, and nothing from elsewhere."""
    (tmp_path / "dog.png").write_bytes(b"\x89PNG...")
    calls = [("list_pictures", {}), ("look_at", {"name": "dog.png"}), ("look_at", {"name": "../x"})]
    with ChatServer([reply(calls=calls), reply("In dog.png.")]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        result = look.looking(tmp_path, "openai:gpt-4o-mini").run_sync("Where is a dog?")
    assert result.output == "In dog.png."
    assert tool_texts(result)[2] == "There is no picture '../x'."
    shown = server.requests[1].json["messages"][-1]["content"]
    assert shown[1]["image_url"]["url"].startswith("data:image/png;base64,")
