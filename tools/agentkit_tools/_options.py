"""Checks of what a user passes to a tool family."""

from __future__ import annotations

import math

from agentkit.errors import ConfigurationError


def check_positive(**options: float) -> None:
    """Check that options are finite numbers above 0.

    Raises:
        ConfigurationError: One is not; the text names it.
    """
    for name, value in options.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not is_number or not math.isfinite(value) or value <= 0:
            raise ConfigurationError(f"{name}={value!r} has to be a number above 0.")


def missing(family: str, package: str) -> ConfigurationError:
    """Return the error for a package that is not installed."""
    return ConfigurationError(
        f"{family} needs {package}, which is not installed. "
        'Run: pip install "agentkit-replay[tools]"'
    )
