"""What the tests of the server serve; it prints where a program should not."""

import subprocess
import sys
from typing import Any

import anyio

from agentkit import Agent, ImagePart, RunContext, ToolMessage, tool
from agentkit.testing import FunctionModel

print("printed at import")  # noqa: T201  # so that stdout would not be clean
subprocess.run([sys.executable, "-c", "print('printed by a child')"], check=True)


@tool(effect="read")
def add(a: int, b: int = 2) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    print("printed by a tool")  # noqa: T201  # as above
    return a + b


@tool(approval=True)
def wipe(path: str) -> str:
    """Wipe a folder."""
    return f"wiped {path}"


@tool
async def slow(context: RunContext[Any], steps: int) -> str:
    """Take some time."""
    for step in range(steps):
        context.progress({"progress": step, "total": steps, "message": "at it"})
        await anyio.sleep(0.05)
    return "done"


@tool
def picture() -> list[Any]:
    """Show a picture."""
    return ["A pixel.", ImagePart(url="data:image/png;base64,iVBORw==")]


def _model(request: Any) -> Any:
    if isinstance(request.messages[-1], ToolMessage):
        return f"The sum is {request.messages[-1].text}."
    return [("add", {"a": 40})]


TOOLS = [add, wipe, slow, picture]
helper = Agent(FunctionModel(_model), tools=[add], name="helper")
ALL = [*TOOLS, helper]
