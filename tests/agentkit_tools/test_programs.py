"""Python code and programs in their sandbox, and what they try to get out of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from agentkit_tools._process import _JAIL, Place
from agentkit_tools.python import python_tools
from agentkit_tools.shell import shell_tools

from agentkit import Agent, Toolset
from agentkit.errors import ConfigurationError
from agentkit.testing import ScriptedModel
from tests.agentkit_tools.support import call, named, refusal

try:
    python_tools()
    REFUSED = ""
except ConfigurationError as error:
    REFUSED = str(error)
pytestmark = [pytest.mark.anyio, pytest.mark.skipif(bool(REFUSED), reason=REFUSED)]


@pytest.fixture
def python() -> Toolset:
    """Return the tool as it is by default."""
    return python_tools(seconds=10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a file; a secret lies beside it."""
    (tmp_path / "secret.txt").write_text("password")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "data.txt").write_text("41")
    return folder


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Listen on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


async def run(toolset: Toolset, code: str) -> str:
    return await call(toolset, "run_python", code=code)


async def run_program(toolset: Toolset, program: str, *arguments: str) -> str:
    return await call(toolset, "run_program", program=program, arguments=arguments)


def processes_with(mark: str) -> list[str]:
    """Return the command lines on this machine that contain a text."""
    lines: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if mark in line]


# Python


async def test_code_prints_what_the_model_reads(python: Toolset) -> None:
    """Output and traceback in their order, and the exit code if it is not 0."""
    assert await run(python, "print(6 * 7, 'é')") == "42 é"
    assert await run(python, "x = 1") == "[no output]"
    assert await run(python, "print('before')\nx = 1 / 0") == (
        'before\nTraceback (most recent call last):\n  File "/tmp/main.py", line 2, in <module>\n'
        "    x = 1 / 0\n        ~~^~~\nZeroDivisionError: division by zero\n[exit code 1]"
    )
    assert await run(python, "import sys; sys.exit(7)") == "[exit code 7]"
    assert await run(python, "import os; os.kill(os.getpid(), 11)") == "[ended by SIGSEGV]"
    assert "3" in await run(python, "import pydantic; print(1 + 2)")


async def test_a_folder_is_shared_and_its_files_stay(folder: Path) -> None:
    """What is in it can be read, what is written stays, and nothing beside it is there."""
    python = python_tools(folder)
    code = "x = int(open('data.txt').read()); open('out.txt', 'w').write(str(x + 1))"
    assert await run(python, code) == "[no output]"
    assert (folder / "out.txt").read_text() == "42"
    assert (folder / "out.txt").stat().st_uid == os.getuid()
    secret = folder.parent / "secret.txt"
    assert "FileNotFoundError" in await run(python, f"print(open({str(secret)!r}).read())")
    assert "FileNotFoundError" in await run(python, "print(open('../secret.txt').read())")
    (folder / "link").symlink_to(secret)
    assert "FileNotFoundError" in await run(python, "print(open('link').read())")
    assert await run(python, "import os; print(os.getcwd(), sorted(os.listdir()))") == (
        "/box ['data.txt', 'link', 'out.txt']"
    )
    shown = await run(python, "print(open('/proc/self/mountinfo').read())")
    assert str(folder) not in shown


async def test_without_a_folder_nothing_stays(python: Toolset) -> None:
    """Each call has an empty one."""
    assert await run(python, "open('x', 'w').write('1'); open('/tmp/y', 'w')") == "[no output]"
    assert await run(python, "import os; print(os.listdir(), 'y' in os.listdir('/tmp'))") == (
        "[] False"
    )


async def test_nothing_of_the_host_is_seen(
    python: Toolset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No variables, no processes, no files, no host name, no users."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert await run(python, "import os; print(sorted(os.environ))") == (
        "['HOME', 'LANG', 'PATH', 'TERM', 'TMPDIR']"
    )
    code = """
import glob, os, socket
print(sorted(int(p[6:]) for p in glob.glob('/proc/[0-9]*')) == [1, os.getpid()])
for path in ('/proc/1/environ', '/proc/1/mem', '/proc/1/root', '/etc/shadow', '/var', '/home',
             f'/proc/{os.getppid()}/environ', '/sys', '/run', '/dev/sda', '/dev/vda'):
    try:
        print(path, open(path, 'rb').read(100) if os.path.isfile(path) else os.listdir(path))
    except OSError as error:
        pass
print(socket.gethostname(), open('/etc/passwd').read().count(':'))
"""
    assert await run(python, code) == "True\nsandbox 6"
    assert _JAIL not in await run(python, "print(open('/proc/1/cmdline').read())")
    traceback = await run(python, "import json; json.loads('x')")
    assert sys.base_prefix not in traceback
    assert sys.prefix not in traceback
    assert 'File "/python/lib/' in traceback or "/usr/" in traceback


async def test_the_system_cannot_be_changed(python: Toolset) -> None:
    """Neither its files nor its settings, nor the mounts, nor with new privileges."""
    code = """
import ctypes, os, sys
for path in ('/usr/x', '/x', '/etc/passwd', '/proc/sys/kernel/core_pattern', sys.prefix + '/x',
             '/proc/sysrq-trigger', '/dev/x'):
    try:
        open(path, 'w')
        print('wrote', path)
    except OSError:
        pass
libc = ctypes.CDLL(None)
print(libc.mount(None, b'/', None, 32 | 4096, None), libc.umount2(b'/tmp', 2))
try:
    os.setuid(0); print('root')
except OSError:
    pass
status = open('/proc/self/status').read()
lines = [line.split() for line in status.splitlines()]
print([line[1] for line in lines if line[0] in ('CapEff:', 'CapBnd:', 'NoNewPrivs:')])
"""
    text = await run(python, code)
    assert text.splitlines()[0] == "-1 -1"
    assert "wrote" not in text
    assert "['0000000000000000', '0000000000000000', '1']" in text


async def test_there_is_no_network(python: Toolset, server: socket.socket) -> None:
    """Not even loopback of the host, nor its abstract sockets; with network=True there is."""
    port = server.getsockname()[1]
    code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('reached')"
    assert "unreachable" in await run(python, code)
    assert "unreachable" in await run(
        python, "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    )
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(b"\0agentkit-test-" + str(os.getpid()).encode())
        local.listen()
        name = b"\0agentkit-test-" + str(os.getpid()).encode()
        code_local = f"import socket; socket.socket(socket.AF_UNIX).connect({name!r})"
        assert "ConnectionRefusedError" in await run(python, code_local)
    assert await run(python_tools(network=True), code) == "reached"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # they are about the launcher
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("while True: pass", "[stopped after 1 seconds]"),
        ("import time; time.sleep(60)", "[stopped after 1 seconds]"),
        ("import signal, time\nsignal.signal(15, print)\ntime.sleep(60)", "[stopped after 1"),
        ("x = []\nwhile True: x.append(bytearray(10**7))", "[stopped: it used more than 100 MB]"),
        ("x = bytearray(10**12)", "MemoryError"),
        ("x = 'x' * 10**9", "MemoryError"),
        ("open('f', 'wb').write(b'x' * 70_000_000)", "File too large"),
        ("for n in range(9): open(f'{n}', 'wb').write(b'x' * 20_000_000)", "No space left"),
        ("for n in range(9): open(f'/dev/shm/{n}', 'wb').write(b'x' * 20_000_000)", "No space"),
        ("x = [open('/dev/null') for _ in range(999)]", "Too many open files"),
        ("while True: print('x' * 1000)", "[its output was too much]"),
        ("import os\nwhile True: os.write(2, b'x' * 100_000)", "[its output was too much]"),
        ("import os\nwhile True: os.fork()", ""),
        ("import subprocess\nwhile True: subprocess.Popen(['sleep', '60'])", ""),
        (
            "import os, time\nfor _ in range(20):\n  if not os.fork(): break\n"
            "x = bytearray(10**7)\ntime.sleep(90)",
            "[stopped: it used more than 100 MB]",
        ),
        (
            "import threading, time\n"
            "while True: threading.Thread(target=time.sleep, args=(90,)).start()",
            "",
        ),
    ],
)
async def test_no_bomb_goes_off(code: str, expected: str) -> None:
    """Time, memory, processes, threads, files and output are bounded; all ends in seconds."""
    by_time = not expected or "stopped after" in expected
    python = python_tools(seconds=1 if by_time else 60, memory=100 * 2**20)
    started = time.monotonic()
    text = await run(python, code)
    assert expected in text
    assert len(text) < 70_000
    if not expected:
        ends = ("too many processes", "more than 100 MB", "stopped after", "can't start new thread")
        assert any(end in text for end in ends)
    assert time.monotonic() - started < 60


async def test_long_output_keeps_its_beginning_and_its_end(python: Toolset) -> None:
    """The middle is left out, and counted; bytes that are no text are shown as such."""
    text = await run(python, "for n in range(100_000): print(n)")
    assert text.startswith("0\n1\n2\n")
    assert text.endswith("\n99998\n99999")
    assert "[528,890 bytes are not shown here]" in text
    assert await run(python, "import os; os.write(1, b'\\xff\\0x')") == "\ufffd\0x"


async def test_nothing_is_left_behind(python: Toolset) -> None:
    """Children in the background, in a session of their own, end with the call."""
    code = """
import os, subprocess, sys
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(987654)'], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(987654)'])
print('done')
"""
    for tools in (python, python_tools(isolated=False)):
        started = time.monotonic()
        assert "done" in await run(tools, code)
        assert time.monotonic() - started < 60
        assert processes_with("987654") == []


@pytest.mark.parametrize("isolated", [True, False])
async def test_a_cancelled_call_ends_its_program(isolated: bool) -> None:
    """At once, and with everything that it started."""
    python = python_tools(isolated=isolated)
    code = "import subprocess; subprocess.run(['sleep', '876543'])"
    started = time.monotonic()
    with anyio.move_on_after(1.5) as scope:
        await run(python, code)
    assert scope.cancelled_caught
    assert time.monotonic() - started < 60
    assert processes_with("876543") == []


async def test_calls_run_side_by_side(python: Toolset) -> None:
    """Each in a sandbox of its own."""
    outcomes: list[str] = []

    async def one(number: int) -> None:
        outcomes.append(await run(python, f"open('x', 'x').write('{number}'); print({number})"))

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(one, number)
    assert sorted(outcomes) == ["0", "1", "2", "3"]


async def test_without_isolation_limits_still_hold(tmp_path: Path) -> None:
    """It has to be asked for, waits for approval, and shows neither variables nor paths."""
    python = python_tools(tmp_path, isolated=False, seconds=1)
    (tool,) = named(python).values()
    assert (tool.approval, tool.effect) == (True, "write")
    assert await run(python, "print(6 * 7)") == "42"
    assert await run(python, "while True: pass") == "[stopped after 1 seconds]"
    assert str(tmp_path) not in await run(python, "import os; print(os.getcwd()); 1 / 0")
    assert "['HOME'," in await run(python, "import os; print(sorted(os.environ))")


def test_what_a_system_cannot_isolate_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the reason and the way out."""
    monkeypatch.setattr("agentkit_tools._process._probe", lambda _: "unshare: not permitted")
    with pytest.raises(ConfigurationError, match=r"unshare: not permitted.*pass isolated=False"):
        python_tools()
    with pytest.raises(ConfigurationError, match="unshare: not permitted"):
        shell_tools(allow=["ls"])


async def test_a_sandbox_that_fails_later_runs_nothing(folder: Path) -> None:
    """The code never runs outside of it, and the model reads that it did not."""
    python = python_tools(folder)
    shutil.rmtree(folder)
    assert await refusal(python, "run_python", code="print(1)") == (
        "The program could not be run: its sandbox cannot be set up."
    )


async def test_defaults_say_what_code_may_do(python: Toolset, folder: Path) -> None:
    """Isolated code that reaches nothing is harmless; everything else writes."""
    assert named(python)["run_python"].effect == "read"
    assert named(python)["run_python"].approval is False
    assert named(python_tools(folder))["run_python"].effect == "write"
    assert named(python_tools(network=True))["run_python"].effect == "write"


# Programs


@pytest.fixture
def programs(folder: Path) -> Toolset:
    """Return some programs in a folder that they may only read."""
    return shell_tools(allow=["cat", "ls -a", "echo", "touch", "env"], root=folder, seconds=5)


async def test_programs_of_the_list_run(programs: Toolset) -> None:
    """With arguments, and the first ones of their entry."""
    assert await run_program(programs, "cat", "data.txt") == "41"
    assert await run_program(programs, "ls -a") == ".\n..\ndata.txt"
    assert await run_program(programs, "cat", "missing") == (
        "/usr/bin/cat: missing: No such file or directory\n[exit code 1]"
    )


@pytest.mark.parametrize(
    "program", ["rm", "/bin/rm", "cat data.txt", "ls", "./cat", "sh", "", "cat;rm", "CAT", "cat "]
)
async def test_nothing_else_runs(programs: Toolset, program: str) -> None:
    """By no other name, path or spelling."""
    assert "program" in await refusal(programs, "run_program", program=program, arguments=[])


@pytest.mark.parametrize(
    "argument",
    [
        *("; rm data.txt", "$(rm data.txt)", "`rm data.txt`", "| rm data.txt", "&& rm data.txt"),
        *("> data.txt", "$HOME", "*", "~", "'", "a\nrm data.txt", "-n; rm"),
    ],
)
async def test_arguments_are_only_text(programs: Toolset, folder: Path, argument: str) -> None:
    """No shell reads them."""
    assert await run_program(programs, "echo", "x", argument) == f"x {argument}"
    assert (folder / "data.txt").read_text() == "41"


async def test_arguments_that_no_program_can_get_are_refused(programs: Toolset) -> None:
    """NUL bytes, and more than the system takes."""
    for argument in ("a\0b", "x" * 200_000):
        assert "at most 100,000 bytes" in await refusal(
            programs, "run_program", program="echo", arguments=[argument]
        )


async def test_programs_see_only_their_folder_and_write_only_if_they_may(
    programs: Toolset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by an argument, nor through a link, nor in the environment."""
    monkeypatch.setenv("SECRET_KEY", "password")
    (folder / "link").symlink_to(folder.parent / "secret.txt")
    for argument in ("../secret.txt", str(folder.parent / "secret.txt"), "link", "/etc/shadow"):
        assert "No such file" in await run_program(programs, "cat", argument)
    assert "Read-only file system" in await run_program(programs, "touch", "new")
    assert "Read-only file system" in await run_program(programs, "touch", "/usr/new")
    assert "SECRET_KEY" not in await run_program(programs, "env")
    assert str(folder) not in await run_program(programs, "cat", "/proc/self/mountinfo")
    writing = shell_tools(allow=["touch", "env"], root=folder, write=True, environment={"A": "b"})
    assert await run_program(writing, "touch", "new") == "[no output]"
    assert (folder / "new").exists()
    assert "A=b" in await run_program(writing, "env")


async def test_a_program_is_the_one_that_was_found_when_it_was_allowed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the same name in the folder, or earlier in a later PATH, is not taken."""
    programs = shell_tools(allow=["cat"], root=folder)
    (folder / "cat").write_text("#!/bin/sh\necho fooled\n")
    (folder / "cat").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(folder)
    assert await run_program(programs, "cat", "data.txt") == "41"


async def test_a_program_outside_the_system_is_seen_alone(folder: Path) -> None:
    """Its folder is not; what else it needs is named with read=."""
    own = folder.parent / "own"
    own.mkdir()
    (own / "hello").write_text('#!/bin/sh\necho hello; cat "$(dirname "$0")/lib"\n')
    (own / "hello").chmod(0o755)
    (own / "lib").write_text("library\n")
    assert "No such file" in await run_program(shell_tools(allow=[f"{own}/hello"]), f"{own}/hello")
    (folder.parent / "greet").symlink_to("own/hello")
    linked = folder.parent / "greet"
    assert "hello" in await run_program(shell_tools(allow=[linked]), str(linked))
    programs = shell_tools(allow=[f"{own}/hello"], read=[own])
    assert await run_program(programs, f"{own}/hello") == "hello\nlibrary"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("no-such-program", "There is no program 'no-such-program'"),
        ("./cat", "absolute path"),
        ("bin/cat", "absolute path"),
        ("", "name a program"),
        ("cat '", "name a program"),
        ("/etc/passwd", "There is no program"),
    ],
)
def test_an_entry_that_is_no_program_is_refused(entry: str, reason: str) -> None:
    """When the tools are made."""
    with pytest.raises(ConfigurationError, match=reason):
        shell_tools(allow=[entry])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"allow": "cat"}, "allow='cat' has to be a list"),
        ({"read": "/etc"}, "read='/etc' has to be a list"),
        ({"read": ["no-such-folder"]}, "there is no such file or folder"),
        ({"environment": {"A": 1}}, "environment='A': 1 has to be text"),
        ({"seconds": 0}, "seconds=0 has to be a number above 0"),
        ({"memory": "1 GB"}, "memory='1 GB' has to be a number above 0"),
        ({"root": "no-such-folder"}, "'no-such-folder' is not a folder"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options: dict[str, Any], reason: str) -> None:
    """When the tools are made, with its name and value."""
    with pytest.raises(ConfigurationError, match=reason):
        shell_tools(**{"allow": ["cat"], **options})


async def test_who_allows_nothing_gets_nothing_and_calls_wait(folder: Path) -> None:
    """An empty list is no tool; by default a person approves each call."""
    assert named(shell_tools(allow=[])) == {}
    tool = named(shell_tools(allow=["cat"], root=folder))["run_program"]
    assert (tool.approval, tool.effect) == (True, "read")
    assert named(shell_tools(allow=["cat"], root=folder, write=True))["run_program"].effect == (
        "write"
    )
    calls: list[Any] = [[("run_program", {"program": "cat", "arguments": ["data.txt"]})]]
    agent = Agent(ScriptedModel(calls), tools=[shell_tools(allow=["cat"], root=folder)])
    assert (await agent.run("Read")).status == "paused"


def test_the_model_reads_what_a_program_can_reach(folder: Path) -> None:
    """The description says it, without a path of this machine."""
    tool = named(shell_tools(allow=["ls"], root=folder))["run_program"]
    assert "the folder /box, which it may only read; no network is there." in tool.description
    assert str(folder) not in tool.description
    assert Place().folder is None


@pytest.mark.skipif(os.geteuid() != 0, reason="without root, the other tests show this")
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="no Python that all may run")
def test_without_root_the_same_holds_in_a_namespace_of_users() -> None:
    """The launcher alone, as a user without any privilege."""
    script = """
cat /proc/1/environ 2>/dev/null && echo seen
touch /usr/x /x 2>/dev/null && echo written
unshare -rm mount -o remount,rw / 2>/dev/null && echo remounted
ls /home /root /var 2>/dev/null
grep -c : /proc/net/dev; grep -E "^Cap(Eff|Bnd)|NoNew" /proc/self/status | cut -f2
touch /box/x && id -u
"""
    job = Place(seconds=5)._job(["/bin/sh", "-c", script], {})
    with tempfile.TemporaryDirectory() as place:
        jail = shutil.copy(_JAIL, place)
        Path(place).chmod(0o755)
        with subprocess.Popen(
            ["/usr/bin/python3", "-I", "-S", jail],
            stdin=-1,
            stdout=-1,
            stderr=-1,
            env={},
            cwd="/",
            user=65534,
            group=65534,
            extra_groups=[],
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            output, report = process.stdout.read().decode(), json.loads(process.stderr.read())
    if "error" in report:
        pytest.skip(f"namespaces of users are not allowed here: {report['error']}")
    assert output.split() == ["1", "0" * 16, "0" * 16, "1", "65534"]
