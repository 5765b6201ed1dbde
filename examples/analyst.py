"""A data analyst on a SQLite database: a typed report, with a chart in a file.

pip install "agentkit-replay[tools]"
python examples/analyst.py shop.db "Which city sells most?" --model openai:gpt-4o

The agent may read the database and write charts into one folder; it reaches nothing else.
"""

import argparse
from html import escape
from pathlib import Path

from agentkit_tools.math import math_tools
from agentkit_tools.sql import sql_tools
from pydantic import BaseModel, Field

from agentkit import Agent, AgentKitError, Model, Tool, ToolError, tool

INSTRUCTIONS = (
    "Look at the schema before you query. Let the database count, and calculate with the tools. "
    "Draw one chart, and name its file in the report."
)


class Finding(BaseModel):
    """One thing that the data shows."""

    text: str
    sql: str = Field(description="The query that shows it.")


class Report(BaseModel):
    """The answer to a question about the data."""

    answer: str
    findings: list[Finding]
    chart: str = Field(description="The name of the chart's file.")


class Bar(BaseModel):
    """One bar of a chart."""

    label: str
    value: float = Field(ge=0)


def bar_chart(title: str, bars: list[Bar]) -> str:
    """Draw horizontal bars as SVG."""
    longest = max(bar.value for bar in bars) or 1
    rows = [
        f'<text x="0" y="{y + 14}">{escape(bar.label)}</text>'
        f'<rect x="140" y="{y}" width="{360 * bar.value / longest:.0f}" height="18" fill="#4a7"/>'
        f'<text x="510" y="{y + 14}">{bar.value:g}</text>'
        for y, bar in zip(range(40, 40 + 26 * len(bars), 26), bars, strict=True)
    ]
    size = f'width="600" height="{50 + 26 * len(bars)}" font-family="sans-serif" font-size="13"'
    head = f'<text x="0" y="18" font-size="16">{escape(title)}</text>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{head}{"".join(rows)}</svg>'


def chart_tool(folder: Path) -> Tool[..., str]:
    """Return a tool that writes charts into a folder."""

    @tool
    def draw_bars(title: str, bars: list[Bar]) -> str:
        """Draw a bar chart into a file and return the file's name.

        Args:
            title: What the bars show.
            bars: At most 30.
        """
        if not 1 <= len(bars) <= 30:
            raise ToolError(f"There are {len(bars)} bars; draw 1 to 30.")
        folder.mkdir(parents=True, exist_ok=True)
        name = f"chart-{len(list(folder.glob('chart-*.svg'))) + 1}.svg"
        (folder / name).write_text(bar_chart(title, bars), encoding="utf-8")
        return name

    return draw_bars


def make_agent(model: str | Model, database: Path, folder: Path) -> Agent[None, Report]:
    """Return an agent that reads a database and writes charts into a folder."""
    return Agent(
        model,
        name="analyst",
        tools=[sql_tools(f"sqlite:///{database}"), math_tools(), chart_tool(folder)],
        instructions=INSTRUCTIONS,
        output=Report,
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("database", type=Path)
    parser.add_argument("question")
    parser.add_argument("--model", default="local")
    parser.add_argument("--charts", type=Path, default=Path("charts"))
    options = parser.parse_args()
    try:
        agent = make_agent(options.model, options.database, options.charts)
        report = agent.run_sync(options.question, trace="analyst.jsonl").output
    except AgentKitError as error:
        parser.exit(1, f"{type(error).__name__}: {error.message}\n")
    print(report.answer, *(f"- {one.text}\n  {one.sql}" for one in report.findings), sep="\n")
    print(f"The chart is {options.charts / report.chart}")


if __name__ == "__main__":
    main()
