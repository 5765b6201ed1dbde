"""Refuse real model calls in tests: what costs money, and answers differently each time."""

from __future__ import annotations

from typing import Self

from agentkit.models.base import GUARDS
from agentkit.testing.server import is_running


class ModelCallBlocked(RuntimeError):
    """A test was about to ask a real model.

    Not an `AgentKitError`: a fallback model or a retry would take it for an answer.
    """


class block_models:  # it is used as a function, or in a `with` statement
    """Refuse requests to real models from now on, or within a `with` statement.

    Refused is what `ChatModel` and the embedded model would send; a `ChatServer` of the
    test is no real model. In a `conftest.py` one line is enough:

        block_models()

    Raises:
        ModelCallBlocked: By the request, before anything is sent.
    """

    def __init__(self) -> None:
        GUARDS.append(self._refuse)

    def stop(self) -> None:
        """Let them pass again."""
        if self._refuse in GUARDS:
            GUARDS.remove(self._refuse)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _refuse(self, model: str, url: str) -> None:
        if not is_running(url):
            raise ModelCallBlocked(
                f"{model} was not asked: real model calls are blocked in this test. Give the "
                "agent a ScriptedModel, a ChatServer or a recording (agentkit_replay)."
            )
