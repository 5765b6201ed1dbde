"""Short waits between retries, unless the server sets them."""

from __future__ import annotations

import pytest

from agentkit.models.chat import model as chat_model


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_model, "WAIT_FIRST", 0.001)
