"""The files of one folder, and every way out of it."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from agentkit_tools._globs import Ignored
from agentkit_tools._root import Root
from agentkit_tools.files import files_tools

from agentkit import Agent, ToolError, Toolset
from agentkit.errors import ConfigurationError
from agentkit.testing import ScriptedModel
from tests.agentkit_tools.support import call, named, refusal
from tests.support import tool_texts

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with some files; a secret lies beside it."""
    (tmp_path / "secret.txt").write_text("password")
    root = tmp_path / "root"
    (root / "src/deep").mkdir(parents=True)
    (root / "a.txt").write_text("one\ntwo\nthree\n")
    (root / "src/app.py").write_text("def main():\n    pass\n")
    (root / "src/deep/util.py").write_text("def util(): ...\n")
    return root


@pytest.fixture
def files(root: Path) -> Toolset:
    """Return tools that may write."""
    return files_tools(root, write=True)


def relative(place: Path, start: Path) -> str:
    """Return a path as it is seen from a folder; addresses of sockets have to be short."""
    return os.path.relpath(place, start)


def names(folder: Path, pattern: str = "*") -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in folder.glob(pattern))


# What they do


async def test_a_folder_is_listed_and_a_glob_lists_below_it(files: Toolset) -> None:
    """Without a glob the folder itself, with one all that matches."""
    assert await call(files, "list_files") == "a.txt (14 bytes)\nsrc/"
    assert await call(files, "list_files", path="src") == "src/app.py (21 bytes)\nsrc/deep/"
    assert await call(files, "list_files", glob="*.{py,rs}") == (
        "src/app.py (21 bytes)\nsrc/deep/util.py (16 bytes)"
    )
    assert await call(files, "list_files", path="src", glob="deep/*") == (
        "src/deep/util.py (16 bytes)"
    )
    assert await call(files, "list_files", glob="*.js") == "Nothing."


async def test_lines_are_read_with_where_they_stand(files: Toolset) -> None:
    """The first line names the range, the whole, and the encoding."""
    assert await call(files, "read_file", path="a.txt") == (
        "[a.txt, lines 1 to 3 of 3, utf-8]\none\ntwo\nthree"
    )
    assert await call(files, "read_file", path="./src/../a.txt", start=2, lines=1) == (
        "[a.txt, lines 2 to 2 of 3, utf-8]\ntwo\n[more from line 3]"
    )
    assert await refusal(files, "read_file", path="a.txt", start=9) == (
        "'a.txt' has 3 lines; line 9 is behind its end."
    )


async def test_lines_are_searched(files: Toolset) -> None:
    """Matches are shown with file and line; a single file may be searched."""
    assert await call(files, "search_files", pattern=r"def \w+\(") == (
        "src/app.py:1: def main():\nsrc/deep/util.py:1: def util(): ..."
    )
    assert await call(files, "search_files", pattern="^TWO$", ignore_case=True) == "a.txt:2: two"
    assert await call(files, "search_files", pattern="def", glob="app.*") == (
        "src/app.py:1: def main():"
    )
    assert await call(files, "search_files", pattern="t", path="a.txt") == (
        "a.txt:2: two\na.txt:3: three"
    )
    assert await call(files, "search_files", pattern="nowhere") == "No line matches."


async def test_text_is_replaced_exactly(files: Toolset, root: Path) -> None:
    """A piece that occurs once is replaced; others are explained."""
    edit = {"path": "a.txt", "old": "two", "new": "2"}
    assert await call(files, "edit_file", **edit) == "a.txt: replaced in line 2."
    assert (root / "a.txt").read_text() == "one\n2\nthree\n"
    assert "does not contain that text" in await refusal(files, "edit_file", **edit)
    several = {"path": "a.txt", "old": "e", "new": "E"}
    assert "occurs 3 times in 'a.txt', first in line 1" in await refusal(
        files, "edit_file", **several
    )
    assert await call(files, "edit_file", **several, all=True) == "a.txt: replaced 3 times."
    assert (root / "a.txt").read_text() == "onE\n2\nthrEE\n"


async def test_files_are_written_and_replaced_only_on_request(files: Toolset, root: Path) -> None:
    """Missing folders are created; an existing file needs overwrite, and keeps its mode."""
    assert await call(files, "write_file", path="new/b.txt", text="é") == (
        "new/b.txt: 2 bytes written."
    )
    (root / "new/b.txt").chmod(0o640)
    again = {"path": "new/b.txt", "text": "b"}
    assert "overwrite=true" in await refusal(files, "write_file", **again)
    assert await call(files, "write_file", **again, overwrite=True) == (
        "new/b.txt: 1 bytes replaced it."
    )
    assert (root / "new/b.txt").read_text() == "b"
    assert (root / "new/b.txt").stat().st_mode & 0o777 == 0o640
    assert await call(files, "write_file", path="c.txt", text="c", overwrite=True) == (
        "c.txt: 1 bytes written."
    )
    assert names(root, "**/*.tmp") == []


async def test_writing_has_to_be_allowed_and_waits_for_approval(root: Path) -> None:
    """Without write= nothing is there that writes; with it, a person decides."""
    assert [*named(files_tools(root))] == ["list_files", "read_file", "search_files"]
    assert {tool.effect for tool in named(files_tools(root)).values()} == {"read"}
    tools = named(files_tools(root, write=True))
    assert {name for name, tool in tools.items() if tool.approval} == {"edit_file", "write_file"}
    assert {tools[name].effect for name in ("edit_file", "write_file")} == {"write"}
    model = ScriptedModel([[("write_file", {"path": "x", "text": "y"})]])
    paused = await Agent(model, tools=[files_tools(root, write=True)]).run("Write")
    assert paused.status == "paused"
    assert not (root / "x").exists()


async def test_calls_of_one_response_write_in_their_order(root: Path) -> None:
    """A file that is written and then edited in one response holds both."""
    calls = [("write_file", {"path": "x", "text": "a"})]
    calls += [("edit_file", {"path": "x", "old": "a", "new": "ab"})] * 2
    model = ScriptedModel([calls, "Done."])
    tools = files_tools(root, write=True, approval=False)
    await Agent(model, tools=[tools]).run("Write")
    assert (root / "x").read_text() == "abb"


async def test_what_git_ignores_is_skipped(files: Toolset, root: Path) -> None:
    """Nested .gitignore files count; ignored=true shows everything but .git.

    A folder that is named is searched in any case.
    """
    (root / ".git").mkdir()
    (root / ".git/config").write_text("token def")
    (root / ".gitignore").write_text("*.log\nbuild/\n!keep.log\n")
    (root / "src/.gitignore").write_text("/deep\n")
    (root / "build").mkdir()
    for name in ("x.log", "keep.log", "build/y.py"):
        (root / name).write_text("def")
    listed = await call(files, "list_files", glob="*")
    assert [line.split(" ")[0] for line in listed.splitlines()] == [
        *(".gitignore", "a.txt", "keep.log", "src/", "src/.gitignore", "src/app.py")
    ]
    assert "build" not in await call(files, "search_files", pattern="def")
    named_itself = await call(files, "search_files", pattern="def", path="src/deep")
    assert named_itself == "src/deep/util.py:1: def util(): ..."
    found = await call(files, "search_files", pattern="def", ignored=True)
    assert [line.split(":")[0] for line in found.splitlines()] == [
        *("build/y.py", "keep.log", "src/app.py", "src/deep/util.py", "x.log")
    ]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_gitignore_is_read_as_git_reads_it(tmp_path: Path) -> None:
    """The verdicts on many lines and paths are those of `git check-ignore`."""
    lines = r"""
    *.py  /a  a/  a/b  a/**  a/**/c  **/c  **/b/c  a*c  a?c  [ab]  [!a]  [^a]x  a[a-c]  **  *  foo**
    \!x  \#x  #x  !x  a\ b  [[:alpha:]]  [a-]  []a]  x.py/  /*/c  b/*  *a*b  [  \*  [z-a]  .*
    """.split()
    lines += ["a\\ ", "a ", "a b", "/", "//a", "é"]
    paths = "a b c x ax abc aac a/b a/c b/c a/b/c b/b/c x.py a/x.py ab a- ] !x #x foo/x *".split()
    paths += ["a b", "a ", "é", ".x", "foobar"]
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    wrong: list[tuple[str, str, bool]] = []
    for line in lines:
        (tmp_path / ".gitignore").write_text(f"{line}\n", encoding="utf-8")
        command = ["git", "check-ignore", "--no-index", "--stdin", "-z"]
        asked = "\0".join(paths).encode()
        done = subprocess.run(command, cwd=tmp_path, input=asked, capture_output=True)
        ignored = set(done.stdout.decode().split("\0"))
        rules = Ignored(line)
        for path in paths:
            names = path.split("/")
            above = ("/".join(names[:count]) for count in range(1, len(names)))
            ours = any(rules.verdict(one, folder=True) for one in above)
            ours = ours or bool(rules.verdict(path, folder=False))
            if ours != (path in ignored) and (line, path) != ("[!a]", "é"):  # git's are bytes
                wrong.append((line, path, ours))
    assert wrong == []


# Ways out


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "src/../../secret.txt",
        "src/../../src/../secret.txt",
        "..",
        "./..//secret.txt",
        "/etc/passwd",
        "//etc/passwd",
        "/",
        "src/app.py/../../../secret.txt",
        "a\0b",
        "x" * 300,
        "a/" * 3000,
        "~/.ssh/id_rsa",
        "..\\secret.txt",
        "/proc/self/environ",
    ],
)
@pytest.mark.parametrize("name", ["read_file", "write_file", "edit_file", "list_files"])
async def test_no_path_leads_out(files: Toolset, tmp_path: Path, name: str, path: str) -> None:
    """Every tool refuses every such path, with a text that names nothing of the host."""
    more = {"write_file": {"text": "x"}, "edit_file": {"old": "a", "new": "b"}}.get(name, {})
    if name == "write_file" and path in ("~/.ssh/id_rsa", "..\\secret.txt"):
        await call(files, name, path=path, **more)  # ordinary names, in the folder
    else:
        text = await refusal(files, name, path=path, **more)
        assert str(tmp_path) not in text
        assert "password" not in text
    assert names(tmp_path) == ["root", "secret.txt"]
    assert (tmp_path / "secret.txt").read_text() == "password"


async def test_surrogates_in_a_path_are_refused(files: Toolset) -> None:
    """They are no Unicode: refused as arguments, and by the function too."""
    assert "Unicode" in await refusal(files, "read_file", path="\ud800")
    with pytest.raises(ToolError, match="not valid Unicode"):
        named(files)["read_file"]("\udcff")


@pytest.mark.parametrize("where", ["link", "link/secret.txt", "src/link/secret.txt", "chain"])
@pytest.mark.parametrize("absolute", [True, False])
async def test_links_out_of_the_folder_are_refused(
    files: Toolset, root: Path, tmp_path: Path, where: str, absolute: bool
) -> None:
    """At every component, absolute and relative, and through other links."""
    out = tmp_path if "/" in where else tmp_path / "secret.txt"
    place = root / (where.rpartition("/")[0] or "link")
    place.symlink_to(out if absolute else relative(out, place.parent))
    (root / "chain").symlink_to("src/../link") if where == "chain" else None
    for name, more in {
        "read_file": {},
        "edit_file": {"old": "password", "new": "x"},
        "write_file": {"text": "x", "overwrite": True},
        "search_files": {"pattern": "password"},
        "list_files": {},
    }.items():
        text = await refusal(files, name, path=where, **more)
        assert "out of the folder" in text
        assert str(tmp_path) not in text
    assert (tmp_path / "secret.txt").read_text() == "password"
    assert "password" not in await call(files, "search_files", pattern=".", ignored=True)


async def test_links_inside_the_folder_work(files: Toolset, root: Path) -> None:
    """Relative, absolute, and to folders; the file behind them is edited, and they stay links."""
    (root / "near").symlink_to("a.txt")
    (root / "far").symlink_to(root / "src")
    (root / "src/up").symlink_to("../a.txt")
    assert "one" in await call(files, "read_file", path="near")
    assert "def main" in await call(files, "read_file", path="far/app.py")
    assert "one" in await call(files, "read_file", path="far/up")
    await call(files, "edit_file", path="near", old="one", new="1")
    assert (root / "near").is_symlink()
    assert (root / "a.txt").read_text() == "1\ntwo\nthree\n"
    assert "near (link)" in await call(files, "list_files")


async def test_links_in_a_circle_end(files: Toolset, root: Path) -> None:
    """A link to itself is an error, and a link to a folder above does not repeat the listing."""
    (root / "loop").symlink_to("loop")
    (root / "src/again").symlink_to("..")
    assert "leads nowhere" in await refusal(files, "read_file", path="loop")
    assert "again/" not in await call(files, "list_files", glob="*")


@pytest.mark.storm_only
@pytest.mark.parametrize("what", ["folder", "file"])
async def test_a_link_that_is_swapped_in_meanwhile_does_not_escape(
    root: Path, tmp_path: Path, what: str
) -> None:
    """While another thread swaps a link for the real thing, nothing outside is read or written."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("password")
    inside = root / "swap"
    inside.mkdir()
    (inside / "f").write_text("harmless")
    victim = inside if what == "folder" else inside / "f"
    link, spare, stop = root / "link", root / "spare", threading.Event()
    link.symlink_to(outside if what == "folder" else outside / "f")

    def swap() -> None:
        while not stop.is_set():
            os.rename(victim, spare)
            os.rename(link, victim)
            os.rename(victim, link)
            os.rename(spare, victim)

    opened = Root(root)
    thread = threading.Thread(target=swap)
    thread.start()
    outcomes: dict[str, int] = {}
    try:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            for attempt in (
                lambda: opened.read("swap/f")[1].decode(),
                lambda: opened.replace("swap/f", b"harmless"),
            ):
                try:
                    outcome = attempt()
                except ToolError as error:
                    outcome = error.message.rpartition(":")[2][:30]
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
    finally:
        stop.set()
        thread.join()
    assert "password" not in outcomes
    assert outcomes["harmless"]  # and it did work in between
    assert len(outcomes) > 2  # and was refused in between
    assert (outside / "f").read_text() == "password"
    assert names(outside) == ["f"]


async def test_hard_links_are_refused_and_their_other_name_keeps_its_text(
    files: Toolset, root: Path, tmp_path: Path
) -> None:
    """A second name may be outside: the file is neither read nor searched nor changed."""
    os.link(tmp_path / "secret.txt", root / "hard")
    assert "second name" in await refusal(files, "read_file", path="hard")
    assert "second name" in await refusal(
        files, "write_file", path="hard", text="x", overwrite=True
    )
    assert await call(files, "search_files", pattern="password") == (
        "[1 files could not be read, or are too large]"
    )
    assert (tmp_path / "secret.txt").read_text() == "password"


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
async def test_special_files_are_refused_at_once(files: Toolset, root: Path, kind: str) -> None:
    """A pipe without a writer, a socket and a device are no files; searches skip them."""
    place = root / kind
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(relative(place, Path.cwd()))
    else:
        try:
            os.mknod(place, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
        except PermissionError:
            pytest.skip("devices can only be made by root")
    started = time.process_time()
    assert "no ordinary file" in await refusal(files, "read_file", path=kind)
    assert "no ordinary file" in await refusal(
        files, "write_file", path=kind, text="x", overwrite=True
    )
    assert await call(files, "search_files", pattern="anything") == "No line matches."
    assert f"{kind} (no ordinary file)" in await call(files, "list_files")
    assert time.process_time() - started < 10


async def test_git_is_out_of_reach(files: Toolset, root: Path) -> None:
    """Its hooks and configuration would run programs: by no name, and through no link."""
    (root / ".git/hooks").mkdir(parents=True)
    (root / "g").symlink_to(".git")
    for path in (".git/hooks/pre-commit", "g/hooks/x", ".GIT/config", "src/../.git/config"):
        assert "out of reach" in await refusal(files, "write_file", path=path, text="x")
        assert "out of reach" in await refusal(files, "read_file", path=path)
    assert "out of reach" in await refusal(files, "write_file", path="src/.git", text="x")


# Sizes and encodings


async def test_huge_files_are_refused_and_skipped(files: Toolset, root: Path) -> None:
    """A sparse terabyte is not read; a file that grows past what it may be neither is written."""
    (root / "huge").touch()
    os.truncate(root / "huge", 10**12)
    assert await refusal(files, "read_file", path="huge") == (
        "'huge' has 1,000,000,000,000 bytes; more than 10,000,000 is too large."
    )
    assert "1 files could not be read" in await call(files, "search_files", pattern="zzz")
    text = "x" * 6_000_000
    await call(files, "write_file", path="big", text=text)
    assert "10,000,000 are allowed" in await refusal(
        files, "edit_file", path="big", old="x", new="xx", all=True
    )
    assert (root / "big").read_text() == text


async def test_long_lines_and_many_lines_are_cut_where_a_reader_can_go_on(
    files: Toolset, root: Path
) -> None:
    """A read ends at a whole line and names the next; a line that is too long is cut."""
    (root / "many").write_text("".join(f"{number:09}\n" for number in range(20_000)))
    text = await call(files, "read_file", path="many", lines=20_000)
    assert text.startswith("[many, lines 1 to 6,000 of 20,000, utf-8]\n000000000\n")
    assert text.endswith("\n[more from line 6,001]")
    (root / "long").write_text("é" * 100_000)
    text = await call(files, "read_file", path="long")
    assert text.startswith("[long, the first 15,000 of 100,000 characters of line 1, utf-8]\né")
    found = await call(files, "search_files", pattern="^é+", path="long")
    assert found == f"long:1: {'é' * 300}"


async def test_many_files_and_matches_are_cut(files: Toolset, root: Path) -> None:
    """The last line says so, and how to go on."""
    for number in range(600):
        (root / f"n{number:03}").write_text("needle\n")
    assert (await call(files, "list_files")).endswith(
        "\n[only the first 500 are listed; narrow it down with path and glob]"
    )
    assert (await call(files, "search_files", pattern="needle")).endswith(
        "\n[only the first 200 are shown; narrow the search down]"
    )


@pytest.mark.parametrize(
    ("data", "form", "edited"),
    [
        (b"caf\xc3\xa9 x\n", "utf-8", b"caf\xc3\xa9 yy\n"),
        (b"\xef\xbb\xbfcaf\xc3\xa9 x\n", "utf-8", b"\xef\xbb\xbfcaf\xc3\xa9 yy\n"),
        (b"caf\xe9 x\n", "latin-1", b"caf\xe9 yy\n"),
        (b"a\r\ncaf\xc3\xa9 x\r\n", "utf-8, CRLF", b"a\r\ncaf\xc3\xa9 yy\r\n"),
        (
            b"\xff\xfe" + "café x\n".encode("utf-16-le"),
            "utf-16-le",
            b"\xff\xfe" + "café yy\n".encode("utf-16-le"),
        ),
    ],
)
async def test_an_edit_keeps_encoding_and_line_ends(
    files: Toolset, root: Path, data: bytes, form: str, edited: bytes
) -> None:
    """The encoding is shown, and everything but the piece that is replaced stays as it is."""
    (root / "f").write_bytes(data)
    text = await call(files, "read_file", path="f")
    assert text.splitlines()[0].endswith(f", {form}]")
    assert "café x" in text
    await call(files, "edit_file", path="f", old=" x\n", new=" yy\n")
    assert (root / "f").read_bytes() == edited


async def test_a_character_that_an_encoding_lacks_is_refused(files: Toolset, root: Path) -> None:
    """The file stays as it was."""
    (root / "f").write_bytes(b"caf\xe9")
    text = await refusal(files, "edit_file", path="f", old="caf", new="€")
    assert text == "'€' cannot be written in the file's encoding, latin-1."
    assert (root / "f").read_bytes() == b"caf\xe9"


async def test_binary_files_are_refused_and_not_searched(files: Toolset, root: Path) -> None:
    """A NUL byte, or UTF-16 that is none."""
    (root / "b").write_bytes(b"PNG\0needle")
    (root / "u").write_bytes(b"\xff\xfea")
    assert await refusal(files, "read_file", path="b") == (
        "'b' is a binary file of 10 bytes, not text."
    )
    assert "not valid" in await refusal(files, "read_file", path="u")
    assert await call(files, "search_files", pattern="needle") == "No line matches."


async def test_names_are_shown_in_one_line_each(files: Toolset, root: Path) -> None:
    """A name with a line break, or that is no Unicode, cannot look like other names."""
    (root / "x\nsrc2").mkdir()
    os.close(os.open(os.fsencode(root) + b"/\xff", os.O_CREAT))
    assert await call(files, "list_files") == (
        "a.txt (14 bytes)\nsrc/\n'x\\nsrc2'/\n'\\udcff' (0 bytes)"
    )
    await call(files, "search_files", pattern="x")


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("search_files", {"pattern": "(a+)+$"}),
        ("search_files", {"pattern": "(.*)*(.*)*x$"}),
        ("search_files", {"pattern": "(?:[ab]{0,200}){0,20}c"}),
        ("list_files", {"glob": "*a*a*a*a*a*a*a*a*a*a*a*a*b"}),
        ("list_files", {"glob": "{a,aa}" * 50 + "b"}),
    ],
)
async def test_no_pattern_takes_for_ever(
    files: Toolset, root: Path, tool: str, arguments: dict[str, str]
) -> None:
    """Expressions, globs and .gitignore lines that explode elsewhere end at once."""
    (root / ("a" * 200)).write_text("a" * 100_000 + "!")
    (root / ".gitignore").write_text("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b\n")
    started = time.process_time()
    await call(files, tool, **arguments)
    assert time.process_time() - started < 10


async def test_patterns_that_are_not_valid_are_explained(files: Toolset) -> None:
    """The model reads what is wrong with them."""
    assert "unclosed group" in await refusal(files, "search_files", pattern="(")
    assert "look-around" in await refusal(files, "search_files", pattern="(?=x)")
    assert "size limit" in await refusal(files, "search_files", pattern="(a{1000}){1000}{9}")
    assert "not a valid" in await refusal(files, "list_files", glob="{a")


async def test_a_missing_file_is_answered_with_similar_names(files: Toolset) -> None:
    """A misspelt name is usually corrected at once."""
    assert await refusal(files, "read_file", path="src/ap.py") == (
        "There is no 'src/ap.py'. Similar names: 'app.py'."
    )
    assert "There is no 'b/c'." in await refusal(files, "read_file", path="b/c")
    assert await refusal(files, "read_file", path="src") == "'src' is a folder; list it."
    assert "Not a directory" in await refusal(files, "list_files", path="src/app.py/x")


# As toolsets


async def test_they_run_in_an_agent_and_replay(root: Path) -> None:
    """A run with them is recorded and replayed, and a refusal reaches the model as it is."""
    calls = [("read_file", {"path": "a.txt"}), ("read_file", {"path": "/etc/passwd"})]
    agent = Agent(ScriptedModel([calls, "Done."]), tools=[files_tools(root)])
    result = await agent.run("Read")
    texts = tool_texts(result)
    assert texts[0].endswith("one\ntwo\nthree")
    assert texts[1].startswith("'/etc/passwd' is absolute.")
    assert result.trace is not None
    shutil.rmtree(root)
    assert (await agent.replay(result.trace)).output == "Done."


async def test_they_are_pickled(root: Path) -> None:
    """As all tools are."""
    files = pickle.loads(pickle.dumps(files_tools(root)))
    assert "a.txt" in await call(files, "list_files")


def test_a_folder_that_is_not_there_is_refused(root: Path) -> None:
    """Before any run."""
    with pytest.raises(ConfigurationError, match="is not a folder"):
        files_tools(root / "missing")
    with pytest.raises(ConfigurationError, match="is not a folder"):
        files_tools(root / "a.txt")
