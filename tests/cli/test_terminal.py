"""What moves on a terminal while a run goes on, and what is left on it, with a real terminal."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentkit.testing import ChatServer, reply
from tests.cli.support import agentkit, frames, on_terminal, screen
from tests.support import ROOT, child_environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
SPINNER = "[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]"
HOSTILE = "\x1b[2J\x1b]0;title\x07\u202e[bold]"
QUESTION = b"or later) "
APP = '''
import time
import anyio
from agentkit import Agent, RunContext, Usage, tool
from agentkit.messages import AssistantMessage, ModelResponse
from agentkit.testing import FunctionModel

time.sleep(0.6)  # as an application does that imports much


@tool(effect="read")
async def look(city: str, context: RunContext[None]) -> str:
    """Look at a city."""
    context.progress(f"half of {city} is seen")
    await anyio.sleep(60 if city == "Atlantis" else 0.7)
    return f"{city} is sunny"


@tool(approval=True)
def pay(amount: int) -> str:
    """Pay."""
    return "paid"


def results(request):
    return [one for one in request.messages if one.to_json()["role"] == "tool"]


guide = Agent(
    FunctionModel(lambda request: "Fine." if results(request) else [("look", {"city": "Oslo"})]),
    tools=[look],
    name="guide",
)


@tool(effect="read")
async def ask(question: str, context: RunContext[None]) -> str:
    """Ask a guide."""
    return (await context.run(guide, question)).output


def answer(request):
    prompt = [one.text for one in request.messages if one.to_json()["role"] == "user"][-1]
    if prompt == "many" and not results(request):
        return [("look", {"city": f"City {number}"}) for number in range(20)]
    if prompt == "sink" and not results(request):
        return [("look", {"city": "Atlantis"})]
    if prompt == "pay" and not results(request):
        return [("pay", {"amount": 3})]
    if prompt.startswith("go") and not results(request):
        return [("look", {"city": "Paris"}), ("look", {"city": "Rome"}), ("ask", {"question": "?"})]
    return f"Seen: {prompt} " + "\\x1b[2J\\x1b]0;title\\x07\\u202e[bold]"


agent = Agent(FunctionModel(answer), tools=[look, ask, pay])
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trip.py").write_text(APP)
    return tmp_path


def at_terminal(
    folder: Path, *arguments: str, typed: tuple[bytes, ...] = (), lines: int = 30, **more: str
) -> tuple[int, str]:
    """Run a command at a terminal that can move: the status and what was written to it."""
    size = {"COLUMNS": "100", "LINES": str(lines), "TERM": "xterm"} | more
    status, text = on_terminal(folder, arguments, typed, QUESTION, **size)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is back
    return status, text.replace("\r\n", "\n")


def test_branches_move_side_by_side(folder: Path) -> None:
    """From loading on: two calls and a sub-agent at once, what they report, and then the tree."""
    status, text = at_terminal(folder, "run", "trip.py:agent", f"go {HOSTILE}")
    assert status == 0, text
    seen = ["\n".join(frame) for frame in frames(text)]
    loading = {one for one in seen if re.search(f"{SPINNER} Loading trip.py:agent 0\\.\\ds$", one)}
    loading |= {*re.findall(f"{SPINNER} Loading trip.py:agent \\d\\.\\d s", text)}
    assert len(loading) > 1
    moving = re.compile(
        r"m0 step function ✓ .*\n"
        rf'.*── t0 look {{"city":"Paris"}} {SPINNER} \d\.\d\d s\n.*half of Paris is seen\n'
        rf'.*── t1 look {{"city":"Rome"}} {SPINNER} \d\.\d\d s\n.*half of Rome is seen\n'
        rf'.*── t2 ask {{"question":"\?"}} {SPINNER} \d\.\d\d s\n'
        rf'.*── m0 step function ✓ .*\n.*── t0 look {{"city":"Oslo"}} {SPINNER} .*\n'
    )
    assert len({match[0] for one in seen if (match := moving.search(one))}) > 2
    last = seen[-1]
    assert not re.search(SPINNER, last)
    assert re.search(r't0 look {"city":"Oslo"} ✓ \d\.\d\d s\n.*Oslo is sunny', last)
    assert "4 model calls" in last
    assert last.count("└── m1 step function ✓") == 2
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert r"\x1b[2J\x1b]0;title\x07\u202e[bold]" in last


def test_a_narrow_terminal(folder: Path) -> None:
    """At 40 columns no line of the tree is wider, and none is broken in two."""
    _, text = at_terminal(folder, "run", "trip.py:agent", "go " + "far " * 30, COLUMNS="40")
    for frame in frames(text):
        tree = [one for one in frame if re.match(f"[│ ]*[├└]──|go|{SPINNER}", one)]
        assert all(len(line) <= 40 for line in tree), tree
    assert any("look {" in line and "…" in line for line in screen(text))


def test_a_tree_taller_than_the_screen(folder: Path) -> None:
    """What moves is in sight, with a count of the rest; in the end all of it is there."""
    _, text = at_terminal(folder, "run", "trip.py:agent", "many", lines=8)
    *moving, last = frames(text)
    tall = [one for one in moving if any("look" in line for line in one)]
    assert tall
    for one in tall[:-1]:
        start = next(number for number, line in enumerate(one) if line == "many")
        assert len(one) - start <= 8
    counted = [line for one in tall for line in one if re.search(r"… \d+ more", line)]
    assert counted
    assert sum("t" in line and "look" in line for line in last) == 20


def test_the_tree_stands_still_for_a_question(folder: Path) -> None:
    """The question stays on the screen, between the tree before it and the one after it."""
    status, text = at_terminal(folder, "run", "trip.py:agent", "pay", typed=(b"yes\n",))
    assert status == 0, text
    last = "\n".join(screen(text))
    assert re.search(
        r't0 pay {"amount":3} \?(.|\n)*May it run\? .*yes\n'
        r'pay\n(.|\n)*t0 pay {"amount":3} ✓ .*\n.*paid\n(.|\n)*Seen: pay',
        last,
    )


def test_ctrl_c_leaves_a_clean_terminal(folder: Path) -> None:
    """The call is marked as cancelled, the message stands on a line of its own."""
    size = {"COLUMNS": "100", "LINES": "30", "TERM": "xterm"}
    arguments = ["run", "trip.py:agent", "sink"]
    status, text = on_terminal(
        folder, arguments, [b"\x03"], lambda seen: b"half of" in seen, **size
    )
    assert status == 130, text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    *tree, message, end = screen(text.replace("\r\n", "\n"))
    assert message == "Interrupted."
    assert end == ""
    assert re.search(r't0 look {"city":"Atlantis"} ⊘ \d', "\n".join(tree))
    assert not re.search(SPINNER, "\n".join(tree))


def test_what_cannot_be_loaded_leaves_its_message_alone(folder: Path) -> None:
    """The line about loading is gone."""
    (folder / "trip.py").write_text(APP + "\nraise ValueError('no network')\n")
    status, text = at_terminal(folder, "run", "trip.py:agent", "go")
    assert status == 2
    assert "Loading" in text
    shown = [line for line in screen(text) if line]
    assert "Loading" not in " ".join(shown)
    assert "no network" in " ".join(shown)
    assert shown[0].startswith("ConfigurationError: ")


def test_no_color_and_no_movement(folder: Path) -> None:
    """NO_COLOR takes the colours only; a terminal that cannot go up gets plain lines."""
    _, text = at_terminal(folder, "run", "trip.py:agent", "go", NO_COLOR="1")
    assert "\x1b[1A" in text
    assert not re.search(r"\x1b\[[0-9;]*(3[0-7]|9[0-7])m", text)
    status, text = on_terminal(folder, ["run", "trip.py:agent", "go"], [], b"", TERM="dumb")
    assert status == 0
    assert "\x1b" not in text
    assert "/agent/m0/t1 runs look …" in text
    assert "── t1 look" in text


def test_chat_shows_calls_while_they_run_and_then_text(folder: Path) -> None:
    """The tree of an answer's calls stands above its text; an answer without any has none."""
    size = {"COLUMNS": "100", "LINES": "30", "TERM": "xterm"}
    typed = [b"go\n", b"hello\n", b"\x04"]
    status, text = on_terminal(folder, ["chat", "trip.py:agent"], typed, b"> ", **size)
    assert status == 0, text
    seen = ["\n".join(one) for one in frames(text.replace("\r\n", "\n"))]
    both = rf"t0 look .*{SPINNER} .*\n(.*\n)?.*t1 look .*{SPINNER} .*\n(.*\n)?.*t2 ask .*{SPINNER}"
    assert any(re.search(both, one) for one in seen)
    assert "Loading" in seen[1]
    last = seen[-1]
    assert "Loading" not in last
    assert not re.search(SPINNER, last)
    assert re.search(r"t2 ask .* ✓ (.|\n)*\nSeen: go .*\n\d\.\d s\n", last)
    assert re.search(r"> \|?hello\nSeen: hello .*\n\d\.\d s\n", last)
    assert r"\x1b[2J" in last


@pytest.mark.parametrize("command", ["replay", "fork", "demo"])
def test_the_other_commands_move_too(folder: Path, command: str) -> None:
    """From loading to the finished tree; with --quiet the output alone, with --json a document."""
    app = ("--app", "trip.py:agent")
    arguments = {
        "replay": ("replay", "run.jsonl", *app),
        "fork": ("fork", "run.jsonl", *app, "--at", "m0/t1", "--trace", "forks"),
        "demo": ("demo", "--model", "small", "--prompt", "Tokyo?"),
    }[command]
    key: dict[str, str] = {}
    answer = '{"city":"Tokyo","sky":"cloudy","celsius":17,"time":"22:40"}'
    with ChatServer([reply(answer, delay=0.3)] * 3) as server:
        if command == "demo":
            arguments += ("--base-url", server.base_url)
        else:
            agentkit("run", "trip.py:agent", "go", "--trace", "run.jsonl", "--json", cwd=folder)
        status, text = at_terminal(folder, *arguments, **key)
        quiet = agentkit(*arguments, "--quiet", cwd=folder)
        document = agentkit(*arguments, "--json", cwd=folder)
        both = agentkit(*arguments, "--quiet", "--json", cwd=folder)
    assert status == 0, text
    assert len(frames(text)) > 3
    assert re.search(SPINNER, text)
    assert "── m0 step" in "\n".join(screen(text))
    assert "tokens" in "\n".join(screen(text))
    assert quiet.stdout.startswith("{" if command == "demo" else "Seen: go")
    assert "m0" not in quiet.stdout + quiet.stderr
    shown = json.loads(document.stdout)
    assert shown["status"] == "ok"
    assert document.stderr == ""
    if command == "fork":
        assert shown["ran"] == ["/agent/m0/t1"]
        assert "/agent/m0" in shown["answered"]
    if command == "replay":
        assert shown["ran"] == []
        assert shown["divergences"] == []
    assert both.returncode == 2
    assert "--quiet and --json exclude each other" in both.stderr


def test_quiet_chat(folder: Path) -> None:
    """The answers and nothing of what was done for them."""
    done = agentkit("chat", "trip.py:agent", "--quiet", cwd=folder, typed="go\nhello\n")
    lines = [line for line in done.stdout.splitlines() if line]
    assert [line[:11] for line in lines] == ["Seen: go \\x", "Seen: hello"]
    assert done.stderr == ""


def test_the_command_line_starts_without_servers(folder: Path) -> None:
    """What only some commands need is not loaded before something moves."""
    heavy = "{'mcp', 'starlette', 'uvicorn', 'temporalio', 'opentelemetry', 'httpx2'}"
    code = f"import sys, agentkit.cli.main; print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=child_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
