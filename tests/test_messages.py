"""Parts of messages, made of bytes and of files."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import pytest

from agentkit import Agent, tool
from agentkit.messages import FilePart, ImagePart, ToolMessage
from agentkit.models import ChatModel
from agentkit.testing import ChatServer, reply

IMAGES = {
    "png": (b"\x89PNG\r\n\x1a\n...", "image/png"),
    "jpg": (b"\xff\xd8\xff\xe0...", "image/jpeg"),
    "gif": (b"GIF89a...", "image/gif"),
    "webp": (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_of_bytes_and_files(kind: str, tmp_path: Path) -> None:
    """The media type is that of the content, whatever the file's name says."""
    data, media_type = IMAGES[kind]
    path = tmp_path / "picture.bmp"
    path.write_bytes(data)
    for image in (ImagePart.from_bytes(data), ImagePart.from_path(path, detail="low")):
        head, _, text = image.url.partition(",")
        assert head == f"data:{media_type};base64"
        assert b64decode(text) == data
    assert ImagePart.from_path(str(path), detail="low").detail == "low"


def test_images_of_other_kinds(tmp_path: Path) -> None:
    """Another kind needs a media type, or a name that tells it; other files are refused."""
    assert ImagePart.from_bytes(b"BM", "image/bmp").url.startswith("data:image/bmp;")
    (tmp_path / "a.bmp").write_bytes(b"BM")
    assert ImagePart.from_path(tmp_path / "a.bmp").url.startswith("data:image/bmp;")
    (tmp_path / "a.txt").write_text("Hello")
    with pytest.raises(ValueError, match="begins with b'Hello', which is not PNG"):
        ImagePart.from_path(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="media_type"):
        ImagePart.from_bytes(b"")


def test_files(tmp_path: Path) -> None:
    """A file keeps its name and its type."""
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    part = FilePart.from_path(tmp_path / "a.pdf")
    assert part == FilePart(data="data:application/pdf;base64,JVBERg==", filename="a.pdf")
    (tmp_path / "b").write_bytes(b"x")
    assert str(FilePart.from_path(tmp_path / "b").data).startswith("data:application/octet-stream;")


@pytest.mark.anyio
async def test_an_image_as_a_tool_result() -> None:
    """The server gets it behind the results; the history has it as the tool gave it."""
    image = ImagePart.from_bytes(IMAGES["png"][0])

    @tool
    def photo() -> ImagePart:
        """Take a photo."""
        return image

    script = [reply(calls=[("photo", {}), ("photo", {})]), reply("Fine."), reply("Yes.")]
    with ChatServer(script) as server:
        agent = Agent(ChatModel("any", base_url=server.base_url), tools=[photo])
        result = await agent.run("Look!")
        await agent.run("Sure?", history=result.messages)
    roles = ["user", "assistant", "tool", "tool", "user", "assistant", "user"]
    assert [one["role"] for one in server.requests[2].json["messages"]] == roles
    shown = server.requests[1].json["messages"][4]["content"]
    assert [one["type"] for one in shown] == ["text", "image_url"] * 2
    answers = [one for one in result.messages if isinstance(one, ToolMessage)]
    assert [one.content for one in answers] == [(image,), (image,)]
