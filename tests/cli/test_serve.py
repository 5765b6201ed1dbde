"""`agentkit serve` in a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.cli.support import agentkit
from tests.support import LOADED, child_environment

APP = r"""
from agentkit import Agent
from agentkit.testing import FunctionModel


def answer(request):
    if "fail" in request.messages[-1].text:
        raise ValueError("no \x1b[31mweather")
    return "Take an umbrella."


agent = Agent(FunctionModel(answer), name="weather")
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def test_it_answers_until_ctrl_c(app: Path) -> None:
    """The address is printed; runs are recorded, their failures shown; nothing is left."""
    process = subprocess.Popen(
        [
            *(LOADED.executable(), "-m", "agentkit", "serve", "app.py"),
            *("--port", "0", "--trace", "traces"),
        ],
        cwd=app,
        env=child_environment() | {"AGENTKIT_SERVE_KEYS": "key-of-ada-1, key-of-bob-1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        url = line.split(" at ")[1].split()[0]
        body = {"model": "weather", "messages": [{"role": "user", "content": "Hi"}]}
        assert httpx.post(f"{url}/chat/completions", json=body).status_code == 401
        headers = {"authorization": "Bearer key-of-bob-1"}
        answer = httpx.post(f"{url}/chat/completions", json=body, headers=headers)
        assert answer.json()["choices"][0]["message"]["content"] == "Take an umbrella."
        body["messages"] = [{"role": "user", "content": "fail"}]
        failed = httpx.post(f"{url}/chat/completions", json=body, headers=headers).json()
        assert failed["error"]["message"] == "The run failed."
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"The run {failed['agentkit']['run']} failed" in err
    assert r"ValueError: no \x1b[31mweather" in err
    assert "\x1b" not in err
    assert "KeyboardInterrupt" not in err
    assert len(list((app / "traces").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--host", "0.0.0.0"], "there are no keys. Set AGENTKIT_SERVE_KEYS"),
        (["--host", "no.such.host.invalid"], "no keys"),
        (["--port", "70000"], "Cannot listen at 127.0.0.1:70000"),
    ],
)
def test_what_it_does_not_serve(app: Path, arguments: list[str], text: str) -> None:
    """Said before it listens."""
    done = agentkit("serve", "app.py", *arguments, cwd=app)
    assert done.returncode == 2
    assert text in " ".join(done.stderr.split())


def test_it_says_that_a_port_is_used(app: Path) -> None:
    """And not that it answers there."""
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        done = agentkit("serve", "app.py", "--port", port, cwd=app)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Cannot listen at 127.0.0.1:{port}: Address" in " ".join(done.stderr.split())
