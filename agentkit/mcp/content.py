"""The content of MCP messages as the parts that models read, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote

import mcp_types as types

from agentkit.messages import (
    AudioPart,
    Content,
    FilePart,
    ImagePart,
    Part,
    TextPart,
)

_FORMATS = {"audio/mpeg": "mp3", "audio/x-wav": "wav", "audio/wave": "wav"}


def result_parts(result: types.CallToolResult) -> str | list[Part]:
    """Return what the model reads of a result; its structured content is in there once."""
    parts = [block_part(block) for block in result.content]
    structured = result.structured_content
    # Servers repeat it as text for clients that know only that.
    if structured is not None and not any(_is_json(part, structured) for part in parts):
        parts.append(TextPart(text=json.dumps(structured, ensure_ascii=False)))
    if all(isinstance(part, TextPart) for part in parts):
        return "\n".join(part.text for part in parts if isinstance(part, TextPart))
    return parts


def _is_json(part: Part, value: Any) -> bool:
    if not isinstance(part, TextPart):
        return False
    try:
        return json.loads(part.text) == value
    except ValueError:
        return False


def block_part(block: types.ContentBlock) -> Part:
    """Return one content block as a part."""
    match block:
        case types.TextContent():
            return TextPart(text=block.text)
        case types.ImageContent():
            return ImagePart(url=f"data:{block.mime_type};base64,{block.data}")
        case types.AudioContent():
            kind = block.mime_type.partition(";")[0]
            form = _FORMATS.get(kind, kind.rpartition("/")[2])
            return AudioPart(data=block.data, format=form)
        case types.ResourceLink():
            facts = (block.uri, block.mime_type, block.description)
            told = ", ".join(str(one) for one in facts if one)
            return TextPart(text=f"[resource {block.name}: {told}]")
        case types.EmbeddedResource():
            return resource_part(block.resource)


def resource_part(
    resource: types.TextResourceContents | types.BlobResourceContents,
) -> Part:
    """Return the content of a resource as a part: text, an image, or a file."""
    if isinstance(resource, types.TextResourceContents):
        return TextPart(text=resource.text)
    kind = resource.mime_type or "application/octet-stream"
    data = f"data:{kind};base64,{resource.blob}"
    if kind.startswith("image/"):
        return ImagePart(url=data)
    name = unquote(str(resource.uri).rstrip("/").rpartition("/")[2])
    return FilePart(data=data, filename=name or None)


def text_of(parts: Iterable[Part]) -> str:
    """Return the text of parts, and what stands where others are."""
    return "\n".join(
        part.text if isinstance(part, TextPart) else f"[{type(part).__name__}]" for part in parts
    )


def blocks_of(content: Content) -> Sequence[types.ContentBlock]:
    """Return what a tool has answered as content blocks."""
    if isinstance(content, str):
        return [types.TextContent(text=content)]
    return [_block(part) for part in content]


def _block(part: Part) -> types.ContentBlock:
    match part:
        case TextPart():
            return types.TextContent(text=part.text)
        case ImagePart() if part.url.startswith("data:"):
            kind, data = _split(part.url)
            return types.ImageContent(mime_type=kind, data=data)
        case ImagePart():
            return types.ResourceLink(name="image", uri=part.url)
        case AudioPart():
            return types.AudioContent(mime_type=f"audio/{part.format}", data=part.data)
        case FilePart() if part.data is not None:
            kind, data = _split(part.data)
            contents = types.BlobResourceContents(
                uri=f"file:///{part.filename or 'file'}", mime_type=kind, blob=data
            )
            return types.EmbeddedResource(resource=contents)
        case _:
            return types.TextContent(text=json.dumps(part.to_json(), ensure_ascii=False))


def _split(url: str) -> tuple[str, str]:
    """Return the media type and the base64 content of a `data:` URL."""
    head, _, data = url.partition(",")
    return head.removeprefix("data:").partition(";")[0] or "application/octet-stream", data
