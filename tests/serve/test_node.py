"""The official client for Node, run by the node that comes as a wheel with pyright."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from agentkit import Agent
from agentkit.serve import app
from agentkit.testing import ScriptedModel
from tests.support import double, from_npm, running

SCRIPT = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "key-of-ada-1", maxRetries: 0 });
const asked = { model: "counter", messages: [{ role: "user", content: "2 * 2?" }] };
const said = { models: [], text: "", usage: null };
for await (const one of await client.models.list()) said.models.push(one.id);
const stream = await client.chat.completions.create(
  { ...asked, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  said.text += chunk.choices[0]?.delta?.content ?? "";
  said.usage = chunk.usage ?? said.usage;
}
const whole = await client.chat.completions.create(asked);
said.whole = whole.choices[0].message.content;
try {
  await client.chat.completions.create({ ...asked, n: 2 });
} catch (error) {
  said.error = [error.status, error.param];
}
console.log(JSON.stringify(said));
"""


@pytest.fixture(scope="session")
def client() -> tuple[str, Path]:
    """Return node, and a folder that has the client, installed once for all runs."""
    node, modules = from_npm("openai-node", {"openai": "7.57.0"})
    return node, modules.parent


def test_the_official_client_for_node(client: tuple[str, Path]) -> None:
    """Models, a streamed answer with its usage, a whole one, and a refusal."""
    node, folder = client
    script = folder / "client.mjs"
    script.write_text(SCRIPT, encoding="utf-8")
    model = ScriptedModel([[("double", {"number": 2})], "It is 4."] * 2)
    served = app(Agent(model, name="counter", tools=[double]), keys=["key-of-ada-1"])
    with running(served) as url:
        done = subprocess.run(
            [node, str(script), f"{url}/v1"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["usage"]["total_tokens"] == 0
    del said["usage"]
    assert said == {
        "models": ["counter"],
        "text": "It is 4.",
        "whole": "It is 4.",
        "error": [400, "n"],
    }
