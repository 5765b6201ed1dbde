"""Tools that note what they do, for tests of what is done twice or not at all.

The fixture `nothing_done` empties the notes before a test.
"""

from __future__ import annotations

from agentkit import tool

done: list[str] = []
"""What the tools have done in this test."""


@tool(approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    done.append(f"delete {path}")
    return f"deleted {path}"


@tool
def write(path: str) -> str:
    """Write a file."""
    done.append(f"write {path}")
    return f"wrote {path}"


@tool(effect="read")
def read(path: str) -> str:
    """Read a file."""
    done.append(f"read {path}")
    return f"content of {path}"
