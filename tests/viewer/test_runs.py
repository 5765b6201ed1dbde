"""Each way in which a run may end, hostile runs, long ones, and two side by side."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Callable

import pytest

from agentkit import Trace
from agentkit.replay import diff
from agentkit.viewer import page as page_of
from tests.viewer.conftest import Opened
from tests.viewer.recorded import HOSTILE

Open = Callable[..., Opened]
Run = Callable[[str], Trace]


@pytest.mark.parametrize(
    ("name", "status", "says", "marks"),
    [
        ("unfinished", "… broken off", "The run was interrupted", {"t0": "…", "t1": "…"}),
        ("crashed", "✗ error", "a fuse of length nought", {"t0": "✗"}),
        ("cancelled", "⊘ cancelled", "The run was cancelled.", {"t0": "⊘"}),
        ("paused", "? paused", "The run is paused: it waits for a decision.", {"t0": "?"}),
        ("resumed", "✓ ok", "Resumed", {"t0": "⊘", "t1": "✓"}),
        ("forked", "✓ ok", "fork of", {"t0": "✓", "t1": "✓"}),
        ("handed_over", "✓ ok", "Bonjour, je vous aide.", {"t0": "✓"}),
        ("limited", "✗ limit", "LimitExceeded", {"t1": "✗"}),
    ],
)
def test_a_run_shows_what_it_is(
    open_page: Open, name: str, status: str, says: str, marks: dict[str, str]
) -> None:
    """In its head, in its overview, and at its calls."""
    page = open_page(name)
    assert page.text(".run-line .status") == status
    assert says in page.text(".panel")
    rows = [text.split("\n") for text in page.texts(".row")]
    shown = {
        row[next(i for i, one in enumerate(row) if re.fullmatch(r"t\d", one))]: row[-1]
        for row in rows
        if any(re.fullmatch(r"t\d", one) for one in row)
    }
    assert shown.items() >= marks.items()


def test_a_denied_call_shows_the_decision(open_page: Open) -> None:
    """And the words that the model reads."""
    page = open_page("resumed", at="/cleaner/m0/t0")
    assert "deny: that is my file" in page.text(".panel")
    assert "The call was denied." in page.text(".panel")


def test_a_handover_leads_to_the_other_agent(open_page: Open) -> None:
    """Its steps stand where it took over."""
    page = open_page("handed_over")
    labels = page.locator("[role=treeitem]").evaluate_all(
        "rows => rows.map(row => row.getAttribute('aria-label'))"
    )
    assert any(label.startswith("agent, french") for label in labels)
    page.locator(".row .label", has_text="transfer_to_french").last.click()
    page.drawn()
    assert "hands the conversation over" in page.text(".panel")


def test_nested_agents_are_closed_until_they_are_opened(open_page: Open) -> None:
    """Each level has its own row, and its steps below it."""
    page = open_page("nested")
    assert [row.split("\n")[0] for row in page.texts(".row .tag")] == ["", "m0", "t0", "m1"]
    page.press("j", "j", "ArrowRight", "j")
    assert page.text(".detail-head h2") == "middle"
    page.press("j", "j", "ArrowRight", "j")
    assert page.text(".detail-head h2") == "inner"
    assert page.evaluate("location.hash") == "#at=/outer/m0/t0/middle/m0/t0/inner"


@pytest.mark.parametrize("name", ["served", "served_streamed"])
def test_a_served_agent_shows_its_steps(open_page: Open, name: str) -> None:
    """Where it was the model: each of its steps and calls, with how it ended, as text alone."""
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    page = open_page(name, at="/agent/m0")
    steps = page.locator(".panel section", has_text="Steps of the served agent")
    assert re.search(r"4 steps and calls, run [0-9a-f]{32}, ok", steps.locator("h3").inner_text())
    rows = [
        [row.locator(one).inner_text() for one in (".role", ".status", "summary .num")]
        for row in steps.locator("details").all()
    ]
    assert rows == [
        ["scripted", "✓ ok", "/weather/m0"],
        ["look", "✓ ok", "/weather/m0/t0"],
        ["look", "✗ error", "/weather/m0/t1"],
        ["scripted", "✓ ok", "/weather/m1"],
    ]
    steps.locator("summary").nth(1).click()
    result = steps.locator("details").nth(1).locator("pre").nth(1).inner_text()
    assert result.startswith("<!--<script>alert(1)</script>")
    assert page.locator(".panel img, .panel a, .panel script").count() == 0
    page.press("/")
    page.keyboard.type("Nowhere")
    page.until(".hits", lambda text: text.startswith("1 /"))
    page.until_at("/agent/m0")


# Hostile runs


def test_hostile_texts_are_only_text(open_page: Open, run: Run) -> None:
    """In every tab: no element, no link, no image comes of them, and hidden characters show."""
    page = open_page("hostile")
    for at, tab in [
        ("/agent", "overview"),
        ("/agent/m0", "context"),
        ("/agent/m1", "changes"),
        ("/agent/m0/t0", "tool"),
        ("/agent/m0/t1", "tool"),
        ("/agent/m0/t1", "source"),
        ("/agent/m0/t1", "raw"),
    ]:
        page.evaluate("hash => { location.hash = hash }", f"#at={at}&tab={tab}")
        page.drawn()
        page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
        page.drawn()
        found = "document.querySelectorAll('img, a, iframe, form, body script:not(#data), object')"
        assert page.evaluate(f"[...{found}].map(e => e.outerHTML.slice(0, 60))")[1:] == []
        text = page.evaluate("document.body.innerText")
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u200b\u202a-\u202e\u2066-\u2069]", text)
    page.evaluate("location.hash = '#at=/agent/m0/t0&tab=tool'")
    page.drawn()
    text = page.text(".panel .arguments")
    assert "<!--<script>alert(1)</script><!-- </template>" in text
    assert r"\x1b[31mred\x1b[0m" in text
    assert r"\u202egnp.exe\u202c" in text
    assert page.evaluate("document.title").startswith("<!--<script>")


def test_data_is_nothing_but_base64(run: Run) -> None:
    """Whatever is in a trace, its block in the page ends where the page says."""
    for name in ("hostile", "rich"):
        text = page_of(run(name))
        (block,) = re.findall(r'<script type="application/octet-stream" id="data">(.*?)<', text)
        assert re.fullmatch(r"[A-Za-z0-9+/]+=*", block)
        assert text.count("<script") == 2
        assert HOSTILE not in text
        assert "unsafe" not in text
        policy = re.findall('Content-Security-Policy" content="([^"]*)"', text)
        assert len(policy) == 1
        assert policy[0].startswith("default-src 'none'; script-src 'sha256-")


def test_numbers_are_exact(open_page: Open) -> None:
    """One that a browser's numbers cannot hold is shown as it was recorded."""
    page = open_page("hostile", at="/agent/m0/t0")
    assert "12345678901234567890" in page.text(".panel")


def test_ten_megabytes_are_shown_in_parts(open_page: Open) -> None:
    """The page is small, what is in it opens at once, and a search finds the end."""
    page = open_page("huge", at="/agent/m0/t0")
    text = page.text(".panel")
    assert "10.0 MB more" in text
    assert len(text) < 20_000
    page.get_by_role("button", name="Show more").click()
    page.drawn()
    assert 100_000 < len(page.text(".panel")) < 150_000
    page.locator("input[type=search]").fill("the NEEDLE")
    page.until(".hits", lambda text: text == "1 / 1")
    assert "the needle at the end" in page.text(".panel")
    assert page.evaluate("CSS.highlights.get('found').size") == 1


def test_secrets_stay_out(run: Run, open_page: Open) -> None:
    """A page holds the placeholders of the trace, and nothing else."""
    (block,) = re.findall(r'id="data">(.*?)<', page_of(run("secret")))
    whole = gzip.decompress(base64.b64decode(block)).decode()
    assert "a1B2c3D4" not in whole
    assert "\\u27e6" in whole  # a placeholder's bracket, as JSON
    page = open_page("secret")
    assert "⟦" in page.text(".panel")


# Long ones


@pytest.mark.storm_only
def test_ten_thousand_events_open_at_once(
    open_page: Open, run: Run, record_property: Callable[[str, object], None]
) -> None:
    """Only what is seen is in the page, also while one scrolls from one end to the other."""
    assert len(run("long").events) > 10_000
    page = open_page("long")
    opened = page.evaluate("performance.getEntriesByName('ready')[0].startTime")
    record_property("milliseconds_to_open", opened)
    count = "document.querySelectorAll('*').length"
    assert page.evaluate(count) < 1500
    frames = page.evaluate(
        """async () => {
          const tree = document.querySelector('.tree'), took = [];
          const end = tree.scrollHeight - tree.clientHeight;
          for (let at = 0; at <= 60; at += 1) {
            const began = performance.now();
            tree.scrollTop = end * at / 60;
            tree.dispatchEvent(new Event('scroll'));
            document.body.offsetHeight;
            took.push(performance.now() - began);
            await new Promise(r => requestAnimationFrame(r));
          }
          return took;
        }"""
    )
    record_property("milliseconds_of_a_frame", max(frames))
    assert page.evaluate(count) < 1500
    assert page.texts(".row .tag")[-1] == "m200"
    page.press("e")
    assert page.evaluate("location.hash") == "#at=/agent/m100/t0"
    page.press("End", "Enter")
    assert "5 201 messages, 26 new" in page.text(".panel").replace("\u2009", " ")
    assert page.evaluate(count) < 2500


# Two runs


def test_two_runs_show_the_first_difference_first(open_page: Open, run: Run) -> None:
    """What follows from it is folded; it is what `agentkit diff` prints."""
    compared = diff(run("plain"), run("other"))
    page = open_page("plain", "other")
    assert compared.first is not None
    assert page.text("[role=tab][aria-selected=true]") == "Compare"
    section = page.text(".panel .section >> nth=0")
    assert section.startswith(f"First difference {compared.first.at}")
    assert compared.first.pointer in section
    cells = page.texts(".panel .section:first-child .diff-cell.gone, .diff-cell.new")[:2]
    assert [cell.splitlines()[-1] for cell in cells] == ["13", "14"]
    follows = page.locator("details.follows")
    count = sum(one.follows for one in compared.differences)
    assert follows.locator("summary").inner_text() == f"What follows: {count} differences"
    assert not follows.locator("ul").is_visible()
    follows.locator("summary").click()
    assert len(page.texts("details.follows li")) == count


def test_two_runs_stand_side_by_side_by_address(open_page: Open) -> None:
    """The tree has the addresses of both, with what differs; each tab shows either side."""
    page = open_page("plain", "other", at="/agent/m0/t1")
    signs = {
        row.get_attribute("aria-label").split(", ")[1]: row.locator(".diff-sign").all_inner_texts()
        for row in page.locator(".row").all()
    }
    assert signs["m0"] == ["≠"]
    assert signs["t0"] == []
    assert signs["t1"] == ["⋯"]
    page.tab("Tool")
    assert "unlucky" in page.text(".panel")
    page.get_by_role("group", name="Which run").get_by_role("button", name="b").click()
    page.drawn()
    assert "28" in page.text(".panel")
    assert page.evaluate("location.hash") == "#at=/agent/m0/t1&tab=tool&side=b"


def test_equal_runs_are_said_to_be_so(open_page: Open) -> None:
    """And nothing is marked."""
    page = open_page("plain", "plain")
    assert "The runs are the same" in page.text(".panel")
    assert page.locator(".diff-sign").count() == 0


def test_a_run_without_contents_shows_what_there_is(open_page: Open) -> None:
    """Times, names and statuses; where a message would be, its hash."""
    page = open_page("bare")
    assert "metadata: without contents" in page.text(".panel")
    page.press("j")
    assert "were not recorded" in page.text(".panel")
