"""What model calls cost, by the price list of `genai-prices` (the extra `prices`)."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import replace

from agentkit.errors import ConfigurationError
from agentkit.messages import ModelResponse, Usage

__all__ = ["check_price", "priced"]

_UNPRICED = frozenset("local ollama lmstudio llamacpp openrouter scripted function".split())
"""What costs nothing, or says itself what it costs."""
_PROVIDERS = {"gemini": "google"}
"""Where our provider's name is not the price list's."""


def priced(model: str, response: ModelResponse) -> Usage:
    """The usage of a response with its cost, as the server or else the price list says.

    Args:
        model: `provider:model`.
        response: The answer; its own `model` is the exact name, where the server gives it.
    """
    if response.usage.cost is not None or not _installed():
        return response.usage
    for name in (response.model, model.partition(":")[2]):
        if name and (cost := _cost(model.partition(":")[0], name, response.usage)) is not None:
            return replace(response.usage, cost=cost)
    return response.usage


def check_price(model: str) -> None:
    """Check that a limit on money can be kept.

    Raises:
        ConfigurationError: There is no price for this model.
    """
    provider, _, name = model.partition(":")
    if provider in _UNPRICED:
        return
    if not _installed():
        raise ConfigurationError(
            'Limits.cost needs the price list: pip install "agentkit-replay[prices]".'
        )
    if _cost(provider, name, Usage(input_tokens=1)) is None:
        raise ConfigurationError(
            f"Limits.cost is set, and the price list has no price for {model!r}. Upgrade "
            "genai-prices, or limit total_tokens instead."
        )


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("genai_prices") is not None


def _cost(provider: str, model: str, usage: Usage) -> float | None:
    # Imported here: it is an extra, and takes 160 ms.
    import genai_prices

    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
    )
    try:
        price = genai_prices.calc_price(
            counted, model_ref=model, provider_id=_PROVIDERS.get(provider, provider)
        )
    except LookupError:
        return None
    return float(price.total_price)
