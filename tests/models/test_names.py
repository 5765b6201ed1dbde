"""Model names such as `openai:gpt-4o`."""

from __future__ import annotations

import pytest

from agentkit.errors import (
    UnknownModel,
)
from agentkit.models import PROFILES, resolve_model


@pytest.mark.parametrize("spec", ["opnai:gpt-4o", "gpt-4o", "openai:", ":", ""])
def test_unknown_models(spec: str) -> None:
    """The error for an unknown model lists the providers, closest first."""
    with pytest.raises(UnknownModel, match=r"openai.*groq") as caught:
        resolve_model(spec)
    assert caught.value.model == spec


def test_resolve_model() -> None:
    """A provider's model may have colons in its name, and a model is returned unchanged."""
    model = resolve_model("ollama:llama3.1:8b")
    assert model.name == "ollama:llama3.1:8b"
    assert model.profile == PROFILES["ollama"]
    assert resolve_model(model) is model
