"""`agentkit models`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentkit.models import PROFILES
from tests.cli.support import agentkit

KEY = "sk-0123456789abcdef"


def test_models_lists_providers_and_never_keys(tmp_path: Path) -> None:
    """Name, URL, whether the key is set, tools and output modes; never the key."""
    done = agentkit("models", cwd=tmp_path, GROQ_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert rows["groq"][1:5] == ["https://api.groq.com/openai/v1", "GROQ_API_KEY", "yes", "native"]
    assert rows["mistral"][2:4] == ["MISTRAL_API_KEY", "no"]
    assert "constrained" in rows["local"]
    assert rows.keys() >= PROFILES.keys()
    assert KEY not in done.stdout + done.stderr


def test_models_as_json(tmp_path: Path) -> None:
    """The same as data."""
    done = agentkit("models", "--json", cwd=tmp_path, GROQ_API_KEY=KEY)
    (groq,) = [one for one in json.loads(done.stdout) if one["name"] == "groq"]
    assert groq == {
        "name": "groq",
        "base_url": "https://api.groq.com/openai/v1",
        "url_variable": None,
        "key_variable": "GROQ_API_KEY",
        "key_set": True,
        "tool_calling": "native",
        "output_modes": ["native", "tool", "json", "prompt"],
    }
    assert KEY not in done.stdout


@pytest.mark.parametrize("name", ["openai", "azure", "local", "compatible"])
def test_models_shows_every_profile(tmp_path: Path, name: str) -> None:
    """Every field of a profile has a value and a meaning."""
    done = agentkit("models", "--profile", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line[:1].isalpha()]
    assert lines[1].split()[:2] == ["name", name]
    assert [line for line in lines if len(line.split()) < 4] == [lines[0]]


def test_models_shows_a_profile_in_words(tmp_path: Path) -> None:
    """Sets, mappings and ranges are readable, and JSON has them as they are."""
    done = agentkit("models", "--profile", "mistral", cwd=tmp_path)
    for words in ("seed: random_seed", "temperature: 0 … 1.5", "alnum9"):
        assert words in done.stdout
    as_json = json.loads(agentkit("models", "--profile", "mistral", "--json", cwd=tmp_path).stdout)
    assert as_json["ranges"] == {"temperature": [0, 1.5]}
    assert as_json["drops"] == sorted(PROFILES["mistral"].drops)
