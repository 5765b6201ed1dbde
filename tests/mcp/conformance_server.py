"""What the scenarios of @modelcontextprotocol/conformance expect of a tool server."""

from __future__ import annotations

import sys
from typing import Any

import anyio

from agentkit import AudioPart, FilePart, ImagePart, RunContext, TextPart, Tool, tool
from agentkit.errors import ToolError

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@tool
def test_simple_text() -> str:
    """Answer with text."""
    return "This is a simple text response for testing."


@tool
def test_image_content() -> ImagePart:
    """Answer with an image."""
    return ImagePart(url=PIXEL)


@tool
def test_audio_content() -> AudioPart:
    """Answer with audio."""
    return AudioPart(
        data="UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=", format="wav"
    )


@tool
def test_embedded_resource() -> FilePart:
    """Answer with a resource."""
    return FilePart(data="data:text/plain;base64,VGhpcyBpcyBhIHRlc3Qu", filename="a.txt")


@tool
def test_multiple_content_types() -> list[Any]:
    """Answer with several kinds of content."""
    return [
        TextPart(text="Multiple content types test:"),
        ImagePart(url=PIXEL),
        test_embedded_resource(),
    ]


@tool
def test_error_handling() -> str:
    """Fail."""
    raise ToolError("This tool intentionally returns an error for testing")


@tool
async def test_tool_with_progress(context: RunContext[Any]) -> str:
    """Report progress."""
    for step in (0, 50, 100):
        context.progress(
            {"progress": step, "total": 100, "message": f"Completed step {step} of 100"}
        )
        await anyio.sleep(0.05)
    return "Done."


def asking(name: str, properties: dict[str, Any]) -> Tool[..., Any]:
    """Return a tool that asks the user for these fields."""
    schema = {"type": "object", "properties": properties, "required": []}

    async def ask(context: RunContext[Any], message: str = "Please fill in.") -> str:
        decision = await context.ask(message, schema=schema)
        return f"Elicitation completed: {decision}"

    return Tool(ask, name=name, description="Ask the user.")


WORDS, CONSTS = ["option1", "option2"], [{"const": "value1", "title": "First Option"}]
test_elicitation = asking(
    "test_elicitation",
    {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    },
)
test_defaults = asking(
    "test_elicitation_sep1034_defaults",
    {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {
            "type": "string",
            "enum": ["active", "inactive", "pending"],
            "default": "active",
        },
        "verified": {"type": "boolean", "default": True},
    },
)
test_enums = asking(
    "test_elicitation_sep1330_enums",
    {
        "untitledSingle": {"type": "string", "enum": WORDS},
        "titledSingle": {"type": "string", "oneOf": CONSTS},
        "legacyEnum": {"type": "string", "enum": WORDS, "enumNames": ["One", "Two"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": WORDS}},
        "titledMulti": {"type": "array", "items": {"anyOf": CONSTS}},
    },
)
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
    "additionalProperties": False,
}


def _schema(name: str = "", address: Any = None) -> str:
    return name


TOOLS = [
    test_simple_text,
    test_image_content,
    test_audio_content,
    test_embedded_resource,
    test_multiple_content_types,
    test_error_handling,
    test_tool_with_progress,
    test_elicitation,
    test_defaults,
    test_enums,
    Tool.from_schema("json_schema_2020_12_tool", "Tool with a JSON Schema.", SCHEMA, _schema),
]

if __name__ == "__main__":
    from agentkit.mcp import serve_sync  # its tools are another test's, too

    serve_sync(*TOOLS, http=sys.argv[1])
