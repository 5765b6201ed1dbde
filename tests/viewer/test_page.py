"""What the page of one run shows, in a real browser."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from agentkit import Agent, Trace
from agentkit.testing import ScriptedModel
from tests.viewer.conftest import Opened
from tests.viewer.recorded import double

Open = Callable[..., Opened]
Run = Callable[[str], Trace]


def test_the_tree_shows_agents_steps_and_calls(open_page: Open) -> None:
    """With times, tokens and how each ended; calls that ran together are marked as such."""
    page = open_page("rich")
    labels = page.locator("[role=treeitem]").evaluate_all(
        "rows => rows.map(row => row.getAttribute('aria-label'))"
    )
    assert [label.split(", ")[:3] for label in labels[:4]] == [
        ["agent", "planner", "ok"],
        ["model", "m0", "ok"],
        ["tool", "t0", "search_flights"],
        ["tool", "t1", "search_flights"],
    ]
    assert [("beside others" in label, "error" in label) for label in labels[2:6]] == [
        (True, False),
        (True, False),
        (True, False),
        (True, True),
    ]
    assert page.texts(".row .tok")[1] == "412 → 96"


def test_parallel_calls_stand_side_by_side(open_page: Open) -> None:
    """Where there is room; on a phone below each other. Keys go from one to the next."""
    places = (
        "rows => rows.map(row => row.getBoundingClientRect()).map(b => [b.left, b.top, b.width])"
    )
    page = open_page("rich", at="/planner/m0")
    calls = page.locator(".row.k-tool").evaluate_all(places)[:4]
    lefts, tops, widths = (list(one) for one in zip(*calls, strict=True))
    assert lefts[0] == lefts[2] < lefts[1] == lefts[3]
    assert tops[0] == tops[1] < tops[2] == tops[3]
    assert min(widths) > 225
    seen = []
    for key in ("j", "j", "j", "k"):
        page.press(key)
        chosen = page.locator(".tree").get_attribute("aria-activedescendant")
        seen.append(page.locator(f"#{chosen}").get_attribute("aria-label"))
    assert [label.split(", ")[1] for label in seen] == ["t0", "t1", "t2", "t1"]
    phone = open_page("rich", phone=True)
    calls = phone.locator(".row.k-tool").evaluate_all(places)[:4]
    assert len({left for left, _, _ in calls}) == 1
    assert len({top for _, top, _ in calls}) == 4


WALK = """async () => {
  const seen = [], wait = () => new Promise(r => requestAnimationFrame(() => setTimeout(r)));
  const press = async key => {
    const pressed = new KeyboardEvent('keydown', {key, bubbles: true});
    document.querySelector('.tree').dispatchEvent(pressed);
    await wait();
  };
  await press('Home');
  for (let at = null; ;) {
    for (const tab of document.querySelectorAll('[role=tab]')) {
      document.getElementById(tab.id).click();
      await wait();
      seen.push([location.hash, tab.id, document.querySelector('.panel').innerText.trim()]);
    }
    const row = document.querySelector('.row.selected[aria-expanded=false]');
    if (row) await press('ArrowRight');
    await press('j');
    const now = decodeURIComponent(location.hash).split('&')[0];
    if (now === at) return seen;
    at = now;
  }
}"""
"""Opens every row, and every tab of it."""


@pytest.mark.parametrize("name", ["rich", "unfinished", "resumed", "bare"])
def test_every_tab_of_every_row(open_page: Open, name: str) -> None:
    """Shows something, and nothing goes wrong."""
    page = open_page(name)
    seen = page.evaluate(WALK)
    assert [(at, tab) for at, tab, text in seen if not text] == []
    if name == "rich":
        assert {tab for _, tab, _ in seen} == {
            f"tab-{one}"
            for one in ("overview context changes tool attempts stream source logs raw".split())
        }


# The tabs


def test_context_marks_what_a_step_added(open_page: Open) -> None:
    """All messages of the request, those that are new, the answer, and the tools."""
    page = open_page("rich", at="/planner/m1")
    assert "7 messages, 5 new in this step" in page.text(".panel")
    roles = page.texts(".message.is-new .role")
    assert roles == ["assistant", "tool", "tool", "tool", "tool"]
    assert page.texts(".panel > section:first-child .call-name") == ["→ guide", "→ find_hotels"]
    assert page.locator(".message", has_text="Look for flights.").count() == 1


def test_changes_compare_with_the_step_before(open_page: Open) -> None:
    """Messages that came, and settings that are different."""
    page = open_page("rich", at="/planner/m1")
    text = page.tab("Changes")
    assert "Since /planner/m0: 2 messages then, 7 now." in text
    assert len(page.texts(".message.is-added")) == 5
    page.evaluate("location.hash = '#at=/planner/m0&tab=changes'")
    page.drawn()
    assert "first request of its agent" in page.text(".panel")


def test_tool_compares_arguments_with_the_schema(open_page: Open) -> None:
    """Each with its type; what does not match is named, and the model's text is there."""
    page = open_page("rich", at="/planner/m1/t1")
    assert page.texts(".arguments tr.wrong code") == ["nights"]
    assert "/nights: expected integer" in page.text(".arguments tr.wrong")
    assert page.text(".verdict") == "The arguments do not match the schema."
    page.evaluate("location.hash = '#at=/planner/m0/t3'")
    page.drawn()
    assert page.text(".verdict") == "The arguments match the schema."
    assert page.text(".failure-type") == "LookupError"
    assert "in find_hotels" in page.texts(".failure details .text")[-1]


def test_attempts_are_listed_with_their_statuses(open_page: Open) -> None:
    """A request that was sent again shows why."""
    page = open_page("rich", at="/planner/m1")
    page.tab("Attempts")
    rows = [row.split("\t")[:2] for row in page.texts(".table tbody tr")]
    assert rows == [["0", "429"], ["1", "200"]]
    assert "slow down" in page.text(".table tbody tr:first-child")


def test_a_stream_is_played_again(open_page: Open) -> None:
    """From its beginning, at another speed, to its end."""
    page = open_page("rich", at="/planner/m3")
    page.tab("Stream")
    whole = page.text(".streamed")
    assert whole.endswith("and a tram.")
    page.locator(".player input").evaluate(
        "e => { e.value = e.max / 2; e.dispatchEvent(new Event('input')) }"
    )
    half = page.text(".streamed")
    assert 0 < len(half) < len(whole)
    assert whole.startswith(half)
    page.locator(".player select").select_option("20")
    page.get_by_role("button", name="Play").click()
    page.until(".streamed", lambda text: text == whole)
    page.get_by_role("button", name="Play").wait_for()


def test_logs_are_those_of_the_application(open_page: Open) -> None:
    """Of a call, and of an agent all in order."""
    page = open_page("rich", at="/planner/m0/t3")
    assert page.texts(".log-text") == []
    page.tab("Logs")
    assert "no partner hotel" in page.texts(".log-text")
    page.evaluate("location.hash = '#at=/planner&tab=logs'")
    page.drawn()
    assert {"searched", "no partner hotel"} <= {*page.texts(".log-text")}
    assert "airline_count=14" in page.text(".panel")


def test_source_has_the_lines_of_the_traceback(open_page: Open) -> None:
    """And the code of the tool where the page was made with the agent."""
    page = open_page("plain", at="/agent/m0/t1")
    page.tab("Source")
    assert 'raise ValueError("an unlucky number")' in page.texts(".frames pre")[0]
    assert "--app FILE.py:NAME" in page.text(".panel")
    agent = Agent(ScriptedModel([]), tools=[double])
    page = open_page("plain", at="/agent/m0/t1", agent=agent, app="app.py:agent")
    text = page.tab("Source")
    assert "async def double(number: int) -> int:" in text
    assert "unlucky" in page.text(".code-line.marked")


def test_raw_is_what_was_recorded(open_page: Open) -> None:
    """The record of the effect, and the contents that it names, whatever JSON is in them."""
    page = open_page("plain", at="/agent/m0/t0")
    page.tab("Raw")
    record = json.loads(page.locator(".panel .text").first.inner_text())
    assert (record["at"], record["start"]["tool"], record["status"]) == (
        "/agent/m0/t0",
        "double",
        "ok",
    )
    assert json.loads(page.locator(".panel .text").nth(1).inner_text())["content"] == "4"


# Finding one's way


def test_search_counts_its_hits_and_goes_through_them(open_page: Open) -> None:
    """In names, arguments, messages, errors and logs; what is found is marked in its tab."""
    page = open_page("rich")
    page.press("/")
    page.keyboard.type("partner HOTEL")
    page.until(".hits", lambda text: text.startswith("1 /"))
    page.drawn()
    count = int(page.text(".hits").split("/")[1])
    assert count >= 3  # the result, the error, the line of the log
    assert page.evaluate("CSS.highlights.get('found').size") > 0
    seen = set()
    for index in range(count):
        assert page.text(".hits") == f"{index + 1} / {count}"
        seen.add(page.locator("[role=tab][aria-selected=true]").get_attribute("id"))
        page.press("Enter")
    assert {"tab-tool", "tab-logs"} <= seen
    assert page.text(".hits") == f"1 / {count}"
    page.press("Shift+Enter")
    assert page.text(".hits") == f"{count} / {count}"
    page.press("Escape", "n")
    assert page.text(".hits") == ""
    page.press("/")
    page.keyboard.type("nowhere to be found")
    page.until(".hits", lambda text: text == "no hits")


def test_search_opens_what_is_closed(open_page: Open) -> None:
    """A hit in a sub-agent is shown in the tree."""
    page = open_page("rich")
    assert page.locator(".row", has_text="look_up").count() == 0
    page.locator("input[type=search]").fill("see page 7")
    page.until(".hits", lambda text: text.startswith("1 /"))
    page.drawn()
    assert page.text(".row.selected").split()[:2] == ["t0", "look_up"]


def test_everything_by_keyboard(open_page: Open) -> None:
    """Rows, tabs, failures, the details, and the sheet that lists the keys."""
    page = open_page("rich")
    at = "decodeURIComponent(location.hash).slice(4).split('&')[0]"
    page.press("j", "ArrowDown", "j")
    assert page.evaluate(at) == "/planner/m0/t1"
    page.press("ArrowLeft")
    assert page.evaluate(at) == "/planner/m0"
    page.press("ArrowLeft")
    assert page.locator("#row-1").get_attribute("aria-expanded") == "false"
    page.press("ArrowRight", "ArrowRight")
    assert page.evaluate(at) == "/planner/m0/t0"
    page.press("e")
    assert page.evaluate(at) == "/planner/m0/t3"
    page.press("e")
    assert page.evaluate(at) == "/planner/m1/t1"
    page.press("E")
    assert page.evaluate(at) == "/planner/m0/t3"
    page.press("2")
    assert page.text("[role=tab][aria-selected=true]") == "Source"
    page.press("]")
    assert page.text("[role=tab][aria-selected=true]").startswith("Logs")
    page.press("[", "[")
    assert page.text("[role=tab][aria-selected=true]") == "Tool"
    page.press("Enter")
    assert page.evaluate("document.activeElement.id") == "panel"
    page.press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "tree"
    page.press("End")
    assert page.evaluate(at) == "/planner/m3"
    page.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    assert "Search everything" in page.text("dialog")
    page.press("j", "?")
    assert page.evaluate(at) == "/planner/m3"
    assert not page.locator("dialog").is_visible()


def test_deep_links_lead_to_an_address_and_a_tab(open_page: Open) -> None:
    """Also into a sub-agent; one that leads nowhere says so."""
    page = open_page("rich", at="/planner/m1/t0/guide/m0/t1&tab=raw")
    assert page.text(".row.selected").split()[:2] == ["t1", "look_up"]
    assert page.text("[role=tab][aria-selected=true]") == "Raw"
    page.evaluate("location.hash = '#at=/planner/m2/t0'")
    page.drawn()
    assert page.text(".detail-head h2") == "book"
    page.evaluate("location.hash = '#at=/nowhere'")
    page.drawn()
    assert page.text(".toast") == "There is nothing at /nowhere"


def test_commands_are_copied(open_page: Open, tmp_path: Path, run: Run) -> None:
    """With the file's name quoted as the command line does it, so that they can be pasted."""
    file = tmp_path / "a run.jsonl"
    file.write_bytes(b"".join(run("paused").raw()))
    page = open_page(Trace.load(file), at="/cleaner/m0/t0", program="python -m agentkit")
    commands = page.locator("[data-command]").evaluate_all("all => all.map(e => e.dataset.command)")
    quoted, at = shlex.quote(str(file)), "/cleaner/m0/t0"
    app = "--app FILE.py:NAME"
    assert commands == [
        f"python -m agentkit resume {quoted} {app} --approve {at}",
        f"python -m agentkit fork {quoted} {app} --at {at}",
        f"python -m agentkit test-from {quoted} {app}",
        f"python -m agentkit show {quoted} --at {at}",
    ]
    page.evaluate("navigator.clipboard.writeText = async text => { window.copied = text }")
    page.get_by_role("button", name="Copy the command: Fork").click()
    page.drawn()
    assert page.evaluate("window.copied") == commands[1]
    page.press("c")
    assert page.evaluate("window.copied") == commands[3]
    assert page.text(".toast") == f"Copied: {commands[3]}"


def test_the_strip_of_time_filters_and_zooms(open_page: Open) -> None:
    """A drag shows only what ran then; a key shows all again."""
    page = open_page("rich")
    label = page.locator(".canvas").get_attribute("aria-label")
    assert re.match(r"1\d calls in \d+\.\d+ s, 4 lanes, 2 failed\.", label)
    rows = page.locator(".row").count()
    box = page.locator(".canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 30, steps=3)
    page.mouse.up()
    page.drawn()
    assert [text.split()[0] for text in page.texts(".row .tag") if text] == ["m3"]
    assert page.get_by_role("button", name="Show all of the time again").is_visible()
    page.press("Escape")
    assert page.locator(".row").count() == rows
    ticks = "document.querySelector('.canvas').toDataURL()"
    before = page.evaluate(ticks)
    page.press("+")
    assert page.evaluate(ticks) != before
    page.press("0")
    assert page.evaluate(ticks) == before


def test_a_phone_shows_one_side_at_a_time(open_page: Open) -> None:
    """Nothing is wider than the screen, and one gets back to the tree."""
    page = open_page("rich", phone=True)
    assert page.locator(".tree").is_visible()
    assert not page.locator(".panel").is_visible()
    page.locator(".row", has_text="book").last.tap()
    page.drawn()
    assert page.locator(".panel").is_visible()
    assert not page.locator(".tree").is_visible()
    for tab in ("Tool", "Source", "Logs", "Raw"):
        page.tab(tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("document.querySelector('.panel').scrollWidth") <= 390
    page.get_by_role("button", name="Tree").tap()
    page.drawn()
    assert page.locator(".tree").is_visible()


def test_names_roles_and_the_order_of_focus(open_page: Open) -> None:
    """Search, help, time, zoom, tree, address, commands, tabs, panel: nothing is a trap."""
    page = open_page("rich")
    page.locator("input[type=search]").focus()
    name = "(e => e.getAttribute('aria-label') || e.getAttribute('role') || e.innerText)"
    order = [page.evaluate(f"{name}(document.activeElement)")]
    for _ in range(14):
        page.press("Tab")
        order.append(page.evaluate(f"{name}(document.activeElement)"))
    assert order[:4] == ["Search everything", "Previous hit", "Next hit", "Keys"]
    assert order[4].startswith("1")
    assert order[5:9] == ["Zoom out", "Zoom in", "Fit", "Agents, steps and calls"]
    assert order[9].startswith("Copy the command")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select, [role=tree], [role=tablist]')]"
        ".filter(e => !(e.innerText || e.getAttribute('aria-label')).trim()).map(e => e.outerHTML)"
    )
    assert unnamed == []


def test_dark_and_light_follow_the_system(open_page: Open) -> None:
    """Texts stay readable: each colour of a text has a contrast of at least 4.5."""
    page = open_page("rich", at="/planner/m0/t3")
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        low = page.evaluate(CONTRAST)
        assert low == [], scheme
    assert len(grounds) == 2


CONTRAST = """() => {
  const style = getComputedStyle(document.documentElement);
  const light = name => {
    const hex = style.getPropertyValue('--' + name).trim();
    const parts = [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16) / 255);
    const [r, g, b] = parts.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const pairs = [];
  for (const text of ['text', 'dim', 'accent', 'green', 'red', 'yellow', 'model', 'tool'])
    for (const ground of ['ground', 'raised', 'sunken']) pairs.push([text, ground]);
  for (const tone of ['green', 'red', 'yellow']) pairs.push([tone, tone + '-soft']);
  pairs.push(['accent', 'accent-soft'], ['text', 'accent-soft']);
  return pairs.map(([a, b]) => [a, b, ratio(a, b).toFixed(2)]).filter(one => one[2] < 4.5);
}"""
