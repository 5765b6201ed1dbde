"""What tests of several folders need: every async test runs on both backends."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.effects import done

# How many examples a law gets: `make test` asks for the first, `make storm` for the second.
settings.register_profile("test", max_examples=20, deadline=None)
settings.register_profile("storm", max_examples=150, deadline=None)
settings.load_profile("test")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The event loop of the test; anyio's plugin reads this."""
    return request.param


@pytest.fixture
def nothing_done() -> None:
    """Empty the notes of the tools of `tests.effects`."""
    done.clear()
