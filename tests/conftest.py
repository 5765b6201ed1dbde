"""What tests of several folders need: every async test runs on both backends."""

from __future__ import annotations

import pytest

from tests.effects import done


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The event loop of the test; anyio's plugin reads this."""
    return request.param


@pytest.fixture
def nothing_done() -> None:
    """Empty the notes of the tools of `tests.effects`."""
    done.clear()
