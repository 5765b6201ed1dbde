"""What the page of one run shows, in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.viewer.conftest import Opened

Open = Callable[..., Opened]


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


@pytest.mark.parametrize("name", ["rich", "nested", "unfinished", "limited", "resumed"])
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
