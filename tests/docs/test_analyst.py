"""The data analyst of examples/, on a real SQLite database."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from agentkit.testing import ScriptedModel, assert_trace
from examples import analyst
from tests.support import tool_texts

SQL = "SELECT city, sum(amount) AS total FROM sales GROUP BY city ORDER BY total DESC"
REPORT = {
    "answer": "Oslo.",
    "findings": [{"text": "Oslo sold 7.", "sql": SQL}],
    "chart": "chart-1.svg",
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE sales (city TEXT, amount INTEGER)")
        rows = [("Paris", 2), ("Oslo", 3), ("Oslo", 4)]
        connection.executemany("INSERT INTO sales VALUES (?, ?)", rows)
    connection.close()
    return path


def test_the_analyst_reads_draws_and_reports(shop: Path) -> None:
    """A typed report, a chart that shows hostile labels as text, and an unchanged database."""
    before = shop.read_bytes()
    bars = [{"label": "Oslo <script>", "value": 7}, {"label": "Paris", "value": 2}]
    model = ScriptedModel(
        [
            [("sql_schema", {})],
            [("sql_query", {"sql": SQL}), ("calculate", {"expression": "7 / 9"})],
            [("sql_query", {"sql": "DELETE FROM sales"})],
            [("draw_bars", {"title": "Sales", "bars": []})],
            [("draw_bars", {"title": "Sales", "bars": bars})],
            json.dumps(REPORT),
        ]
    )
    agent = analyst.make_agent(model, shop, shop.parent / "charts")
    result = agent.run_sync("Which city sells most?")
    assert result.output == analyst.Report.model_validate(REPORT)
    texts = tool_texts(result)
    assert '"Oslo",7' in texts[1].replace(" ", "")
    assert "There are 0 bars" in texts[4]
    assert shop.read_bytes() == before
    assert_trace(
        result.trace, [("m2/t0", {"status": "error"}), ("m4/t0", {"result": "chart-1.svg"})]
    )
    chart = ElementTree.fromstring((shop.parent / "charts" / "chart-1.svg").read_text())
    labels = [one.text for one in chart if one.tag.endswith("text")]
    assert labels == ["Sales", "Oslo <script>", "7", "Paris", "2"]


def test_the_command_line_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that does not exist, without a traceback."""
    monkeypatch.setattr(
        sys, "argv", ["analyst.py", str(tmp_path / "no.db"), "?", "--model", "no:x"]
    )
    with pytest.raises(SystemExit):
        analyst.main()
    assert "UnknownModel" in capsys.readouterr().err
