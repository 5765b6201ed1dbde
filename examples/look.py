"""An agent that looks at the pictures in a folder and answers questions about them.

export OPENAI_API_KEY=…                          (or --model with any other that sees)
python examples/look.py ~/Pictures "In which picture is a dog?"
"""

import argparse
from pathlib import Path

from agentkit import Agent, ImagePart, ToolError, tool


def looking(folder: Path, model: str) -> Agent[None, str]:
    """Make an agent that sees one folder, and nothing else."""

    @tool(effect="read")
    def list_pictures() -> list[str]:
        """List the pictures by name."""
        kinds = {".png", ".jpg", ".jpeg", ".gif", ".webp"}
        return sorted(one.name for one in folder.iterdir() if one.suffix.lower() in kinds)

    @tool(effect="read")
    def look_at(name: str) -> ImagePart:
        """Look at one of the pictures."""
        if name not in list_pictures():
            raise ToolError(f"There is no picture {name!r}.")
        return ImagePart.from_path(folder / name)

    return Agent(
        model,
        instructions="Look at the pictures before you answer. Name the ones that you mean.",
        tools=[list_pictures, look_at],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("question")
    parser.add_argument("--model", default="openai:gpt-4o-mini")
    options = parser.parse_args()
    print(looking(options.folder, options.model).run_sync(options.question).output)
