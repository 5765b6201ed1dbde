"""The cost of model calls, by the price list of `genai-prices` (the extra `prices`).

Each response of a run passes through here before its usage is counted.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import replace

from agentkit.errors import ConfigurationError
from agentkit.messages import ModelResponse, Usage

_UNPRICED = frozenset("local ollama lmstudio llamacpp openrouter scripted function".split())
"""Providers that cost nothing, or report the cost themselves."""
_PROVIDERS = {"gemini": "google"}
"""Providers with another name in the price list."""


def usage_with_cost(model: str, response: ModelResponse) -> Usage:
    """Return the usage of a response with its cost: the server's own, or by the price list.

    Args:
        model: `provider:model`.
        response: The answer; its own `model` is the exact name, where the server sends it.
    """
    if response.usage.cost is not None or not _installed():
        return response.usage
    for name in (response.model, model.partition(":")[2]):
        if name and (cost := _cost(model.partition(":")[0], name, response.usage)) is not None:
            return replace(response.usage, cost=cost)
    return response.usage


def check_price(model: str) -> None:
    """Check that a limit on cost can be enforced.

    Raises:
        ConfigurationError: There is no price for this model.
    """
    provider, _, name = model.partition(":")
    if provider in _UNPRICED:
        return
    if not _installed():
        raise ConfigurationError(
            "Limits.cost needs a price list, which is not installed. "
            'Run: pip install "agentkit-replay[prices]"'
        )
    if _cost(provider, name, Usage(input_tokens=1)) is None:
        raise ConfigurationError(
            f"Limits.cost cannot be enforced: the price list has no price for {model!r}. "
            "Upgrade genai-prices, or limit total_tokens instead."
        )


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("genai_prices") is not None


def _cost(provider: str, model: str, usage: Usage) -> float | None:
    # Imported here: it is an extra, and takes 160 ms.
    import genai_prices

    amounts = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
    )
    try:
        price = genai_prices.calc_price(
            amounts, model_ref=model, provider_id=_PROVIDERS.get(provider, provider)
        )
    except LookupError:
        return None
    return float(price.total_price)
