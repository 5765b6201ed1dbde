"""Traces that anybody may have written, and odd arguments: one message, never a traceback."""

from __future__ import annotations

import io
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import AgentKitError, ConfigurationError, TraceError
from tests.cli.support import agentkit, here
from tests.support import sized

HOSTILE = [
    "null",
    "[]",
    "{}",
    '""',
    "-1",
    "true",
    "1e999",
    "9" * 5000,
    '"\\ud800"',
    '"\\u001b[31m\\u202e"',
    "[" * 3000 + "]" * 3000,
    '{"role":1}',
    '[[1,"x"]]',
]
"""JSON texts that stand where another type, or a reasonable value, is expected."""
STEP = "l\nn\ns\nm\ng m0/t0\nedit x\nu\nedit prompt y\nu\ng m2/t0\nedit approve\nu\ng m1\ns\n"
APP = ("--app", "app.py:agent")
COMMANDS = [
    ("show", "odd/t.jsonl"),
    ("show", "odd/t.jsonl", "--json"),
    ("show", "odd/t.jsonl", "--at", "m0/t0"),
    ("show", "odd/t.jsonl", "--at", "m2", "--json"),
    ("show", "odd/t.jsonl", "--raw", "--at", "m0"),
    ("runs", "odd"),
    ("runs", "odd", "--json"),
    ("grep", "o", "odd/t.jsonl"),
    ("grep", "o", "odd", "--json"),
    ("diff", "run.jsonl", "odd/t.jsonl", "--json"),
    ("replay", "odd/t.jsonl", *APP),
    ("resume", "odd/t.jsonl", *APP, "--deny", "m2/t0=no"),
    ("fork", "odd/t.jsonl", *APP, "--at", "m2/t0", "--deny", "no"),
    ("step", "odd/t.jsonl"),
]


def hostile(data: bytes, rng: random.Random) -> bytes:
    """Return a trace with one value replaced."""
    lines = data.splitlines(keepends=True)
    number = rng.randrange(len(lines))
    event = json.loads(lines[number])
    owner, key = rng.choice([*places(event)])
    owner[key] = "HERE"
    lines[number] = json.dumps(event).replace('"HERE"', rng.choice(HOSTILE)).encode() + b"\n"
    return b"".join(lines)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a JSON value: what holds it, and its key or index there."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


@pytest.fixture
def run(
    travel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """Runs a command on a trace in this process; fails where it raises what is no message."""
    (travel / "odd").mkdir()

    def checked(data: bytes, *arguments: str) -> None:
        (travel / "odd" / "t.jsonl").write_bytes(data)
        stdin = io.TextIOWrapper(io.BytesIO(STEP.encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        with suppress(AgentKitError, SystemExit):  # `main.run` makes messages of them
            here(*arguments)
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err
        if "--json" in arguments and out:
            json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    return checked


@pytest.mark.storm
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_hostile_value_is_no_traceback(
    travel: Path, run: Callable[..., None], command: tuple[str, ...]
) -> None:
    """Whatever the field, the type and the command."""
    rng = random.Random(" ".join(command))
    for name in ("run.jsonl", "paused.jsonl"):
        data = (travel / name).read_bytes()
        for _ in range(sized(4, 25)):
            run(hostile(data, rng), *command)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_file_that_is_something_else_is_no_traceback(
    travel: Path, run: Callable[..., None], command: tuple[str, ...]
) -> None:
    """Empty, binary, torn, without its header, with a byte-order mark, twice the same."""
    data = (travel / "paused.jsonl").read_bytes()
    lines = data.splitlines(keepends=True)
    for odd in (
        b"",
        b"\n",
        bytes(range(256)),
        b"\0" * 5000,
        b"[]\n",
        data[: len(data) // 2],
        b"".join(lines[1:]),
        b"\xef\xbb\xbf" + data,
        data + data,
        lines[0],
    ):
        run(odd, *command)


def test_a_listed_run_cannot_hide_the_others(travel: Path) -> None:
    """A damaged header is a row of its own; folders, pipes and dead links are no runs."""
    odd = travel / "odd"
    (odd / "folder.jsonl").mkdir(parents=True)
    (odd / "dead.jsonl").symlink_to("nowhere")
    header, *rest = (travel / "run.jsonl").read_bytes().splitlines(keepends=True)
    (odd / "good.jsonl").write_bytes(header + b"".join(rest))
    opening = json.loads(header) | {"fork": 7, "wall": "\x1b[31m"}
    (odd / "bad.jsonl").write_bytes(json.dumps(opening).encode() + b"\n" + b"".join(rest))
    if sys.platform != "win32":
        os.mkfifo(odd / "pipe.jsonl")
    done = agentkit("runs", "odd", cwd=travel, columns=None)
    assert done.returncode == 0, done.stderr
    assert "good" in done.stdout
    assert "bad.jsonl" in done.stdout
    assert "folder" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    done = agentkit("show", "abcd1234", cwd=odd)  # looks at every header
    assert done.returncode == 2
    assert "There is no file 'abcd1234'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fork", "run.jsonl", *APP, "--at", "m1", "--message", "9" * 5000 + "=x"], "no message"),
        (["fork", "run.jsonl", *APP, "--set", "temperature=" + "[" * 4000], "temperature"),
        (["fork", "run.jsonl", *APP, "--set", "seed=" + "9" * 5000], "seed"),
        (["resume", "paused.jsonl", *APP, "--edit", "m2/t0=" + "[" * 4000], "not JSON"),
        (["grep", "a{99999999999999999999}", "."], "is not a regular expression"),
        (["grep", "(" * 5000, "."], "is not a regular expression"),
        (["show", "9" * 5000], ""),
        (["doctor", "--base-url=\udcff", "--model=m"], "is not a valid base URL"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_enormous_arguments_are_refused(travel: Path, arguments: list[str], says: str) -> None:
    """With a message about the argument."""
    with pytest.raises((ConfigurationError, TraceError, OSError)) as caught:
        here(*arguments)
    assert says in str(caught.value)
