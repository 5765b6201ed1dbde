"""What tests of several folders need: every async test runs on both backends."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.effects import done

# How many examples a law gets: `make test` asks for the first, `make storm` for the second.
# How long one takes to make says how busy the machine is.
_ANY_TIME = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("test", _ANY_TIME, max_examples=10)
settings.register_profile("storm", _ANY_TIME, max_examples=150)
settings.load_profile("test")

# A shell ignores Ctrl-C in what it runs in the background, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The event loop of the test; anyio's plugin reads this."""
    return request.param


@pytest.fixture
def nothing_done() -> None:
    """Empty the notes of the tools of `tests.effects`."""
    done.clear()
