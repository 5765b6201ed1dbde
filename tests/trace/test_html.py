"""Runs and traces as a notebook shows them: totals and outline as HTML, and a short text."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkit import Agent, Limits, RunContext, RunResult, result_of, tool
from agentkit.errors import LimitExceeded
from agentkit.events import Event, ToolCallStarted
from agentkit.testing import ScriptedModel
from agentkit.trace import Trace

pytestmark = pytest.mark.anyio
HOSTILE = "</pre><script>alert(1)</script><!--<img src=x onerror=alert(1)>\x1b[31m\u202e&amp;"
KEY = "sk-proj-a1b2c3d4e5f6g7h8i9j0k1l2m3n4"


@tool(effect="read")
def look(place: str) -> str:
    """Look at a place."""
    return f"It is {place}."


@tool(approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    return f"deleted {path}"


@tool(effect="read")
async def forever() -> str:
    """Never end."""
    await anyio.sleep_forever()
    return ""


@tool(effect="read")
def fail() -> str:
    """Fail."""
    raise ValueError("no disk " + "x" * 99)


TOOLS = [look, delete, forever, fail]


class Page(HTMLParser):
    """The tags of a page, its texts, and how they are nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def page(shown: Any) -> Page:
    """What a notebook shows: whole, self-contained, without script."""
    html = shown._repr_html_()
    read = Page(html)
    assert {*read.tags} <= {"div", "b", "span", "i", "details", "summary", "code", "bdi", "pre"}
    assert {name for name, _ in read.attributes} <= {"dir", "style", "title", "open"}
    assert not re.search(r"url\(|expression|@import", html)
    return read


def text_of(shown: Any) -> str:
    """The text of what a notebook shows, in one line."""
    return " ".join(page(shown).text.split())


async def test_the_tree_and_the_totals() -> None:
    """Each step and call with its arguments and result, below what the run has used."""
    script = [[("look", {"place": "near"}), ("look", {"place": "far"})], "Both are there."]
    result = await Agent(ScriptedModel(script), tools=TOOLS).run("go")
    text = text_of(result)
    assert text.startswith(f"run {result.run} ✓ 2 model calls, ")
    order = [text.index(part) for part in ("m0 step", "t0 look", "t1 look", "m1 step", "Both are")]
    assert order == sorted(order)
    assert '{"place":"far"}' in text
    assert "It is far." in text
    margins = re.findall(r"margin-left:([0-9.]+)em\" title=\"([^\"]+)", result._repr_html_())
    assert margins == [
        ("0.0", "/agent/m0"),
        ("1.5", "/agent/m0/t0"),
        ("1.5", "/agent/m0/t1"),
        ("0.0", "/agent/m1"),
    ]
    assert result.trace is not None
    lines = result.trace.lines
    assert f"✓ {lines} lines, " in text_of(result.trace)
    assert "2 model calls" in text_of(result.trace)


async def test_sub_agents_are_nested() -> None:
    """The steps of a sub-agent stand below the call that runs it."""
    inner = Agent(ScriptedModel(["Found."]), name="inner")

    @tool
    async def ask(context: RunContext[None], what: str) -> str:
        """Ask another agent."""
        return (await context.run(inner, what)).output

    outer = Agent(ScriptedModel([[("ask", {"what": "x"})], "Done."]), tools=[ask])
    html = (await outer.run("go"))._repr_html_()
    margins = re.findall(r"margin-left:([0-9.]+)em\" title=\"([^\"]+)", html)
    assert ("3.0", "/agent/m0/t0/inner/m0") in margins


async def test_a_paused_run_names_what_waits() -> None:
    """The call, its address, and why it waits; in short too."""
    result = await Agent(ScriptedModel([[("delete", {"path": "a" * 999})]]), tools=TOOLS).run("go")
    text = text_of(result)
    assert f"run {result.run} ?" in text
    assert "delete at /agent/m0/t0 waits (approval)" in text
    assert "waits for a decision" in text
    assert repr(result) == (
        f"RunResult(paused, pending=[delete at /agent/m0/t0], messages=<1>, run={result.run!r})"
    )


async def test_a_failed_run_shows_the_error() -> None:
    """A call that failed is unfolded, and a run that met a limit says so."""
    model = ScriptedModel([[("fail", {})], [("look", {"place": "x"})]])
    with pytest.raises(LimitExceeded) as caught:
        await Agent(model, tools=TOOLS).run("go", limits=Limits(tool_calls=1))
    result = result_of(caught.value)
    html = result._repr_html_()
    assert "✗ limit" in text_of(result)
    assert "no disk" in text_of(result)
    assert html.count("<details open>") == 1


async def test_a_cancelled_and_an_unfinished_run(tmp_path: Path) -> None:
    """One was ended, the other broke off: its calls are still open."""
    path = tmp_path / "run.jsonl"
    agent = Agent(ScriptedModel([[("forever", {})]]), tools=TOOLS)
    with anyio.CancelScope() as scope:

        def cancel(event: Event) -> None:
            if isinstance(event, ToolCallStarted):
                scope.cancel()

        await agent.run("go", trace=path, on_event=cancel)
    trace = Trace.load(path)
    assert "⊘" in text_of(trace)
    lines = path.read_bytes().splitlines(keepends=True)
    started = next(n for n, line in enumerate(lines) if b'"tool.start"' in line)
    broken = Trace([*lines[: started + 1], b'{"event": "to'])
    assert "interrupted" in text_of(broken)
    assert "t0 forever {} …" in text_of(broken)


async def test_without_a_trace() -> None:
    """The totals alone, and the output in short."""
    result = await Agent(ScriptedModel(["hi"])).run("go", trace=False)
    assert text_of(result).startswith(f"run {result.run} ✓ 1 model call, ")
    assert "output='hi'" in text_of(result)


@pytest.mark.parametrize("capture", ["metadata", "none"])
async def test_less_capture(capture: Any) -> None:
    """What was not recorded is not shown."""
    agent = Agent(ScriptedModel([[("look", {"place": "near"})], "Hello."]), tools=TOOLS)
    result = await agent.with_(capture=capture).run("go")
    assert "Hello." not in text_of(result)
    assert "near" not in text_of(result.trace)


async def test_what_is_long_unfolds() -> None:
    """The beginning of a result stands in its line, and more of it below."""
    result = await Agent(ScriptedModel(["first\n" + "x" * 600])).run("go")
    html = result._repr_html_()
    assert "<bdi>first xxx" in html
    assert f"first\n{'x' * 494}…</pre>" in html


async def test_hostile_text_is_text() -> None:
    """No tag, no control character and no reversed text comes out of a model or a tool."""
    script = [[("look", {"place": HOSTILE})], [(HOSTILE, {})], HOSTILE]
    result = await Agent(ScriptedModel(script), tools=TOOLS, name="agent").run(HOSTILE)
    for shown in (result, result.trace):
        html = shown._repr_html_()  # type: ignore[union-attr]
        assert "</pre><script>alert(1)</script>" in page(shown).text
        assert "<script" not in html
        assert "<img" not in html
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", html)
        assert r"\x1b[31m\u202e" in html


async def test_secrets_are_not_shown() -> None:
    """HTML is made from what was recorded, and the short text leaves out what looks like a key."""
    for output in (f"The key is {KEY}.", "x" * 270 + f" {KEY}", "x" * 180 + f" {KEY}"):
        result = await Agent(ScriptedModel([output])).run(f"use {KEY}")
        bare = await Agent(ScriptedModel([output])).run("go", trace=False)
        for shown in (repr(result), result._repr_html_(), repr(bare), bare._repr_html_()):
            assert KEY[:12] not in shown


async def test_a_long_output_is_cut() -> None:
    """In the short text and in HTML."""
    result = await Agent(ScriptedModel(["long " * 200_000])).run("go")
    assert len(repr(result)) < 350
    assert len(result._repr_html_()) < 3_000


async def test_a_broken_repr_is_no_error() -> None:
    """Neither of the output, nor of a trace that was damaged or removed."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("broken")

    done = await Agent(ScriptedModel(["hi"])).run("go", trace=False)
    broken: RunResult[Any] = RunResult(
        messages=(), new_messages=(), usage=done.usage, status="ok", run="r", _output=Broken()
    )
    assert repr(broken) == "RunResult(ok, output=<Broken>, messages=<0>, run='r')"
    assert "<Broken>" in page(broken).text


async def test_damage_is_named(tmp_path: Path) -> None:
    """A file that has gone, and lines that are not what they have to be."""
    path = tmp_path / "run.jsonl"
    agent = Agent(ScriptedModel([[("look", {"place": "near"})], "Hello."]), tools=TOOLS)
    result = await agent.run("go", trace=path)
    whole = path.read_bytes()
    path.unlink()
    assert "The steps cannot be shown: The trace" in text_of(result)
    assert "2 model calls" in text_of(result)
    lines = whole.splitlines(keepends=True)
    odd = [line.replace(b'"tool":"look"', b'"tool":[1]') for line in lines]
    assert "The steps cannot be shown: Event" in text_of(Trace(odd))
    headless = [lines[0].replace(b'"run":', b'"ran":'), *lines[1:]]
    assert repr(Trace(headless)) == "<Trace damaged>"
    assert "run None" in text_of(Trace(headless))


async def test_a_large_trace_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result of a gigabyte is shown without its file; it is named all the same."""
    path = tmp_path / "run.jsonl"
    result = await Agent(ScriptedModel(["Hello."])).run("go", trace=path)
    os.truncate(path, 1 << 30)
    monkeypatch.setattr(Trace, "load", lambda path: pytest.fail("it was read"))
    text = text_of(result)
    assert "The trace is large: its steps are not shown." in text
    assert str(path) in text


async def test_of_a_long_run_the_ends_are_shown() -> None:
    """The first 50 and the last 150 steps and calls."""
    script = [*[[("look", {"place": str(number)})] for number in range(120)], "Done."]
    result = await Agent(ScriptedModel(script), tools=TOOLS).run("go", limits=Limits(steps=None))
    html = result._repr_html_()
    assert html.count('" title="/agent/') == 200
    assert "… 41 more steps and calls …" in page(result).text
    assert "Done." in html
    assert len(html) < 200_000
