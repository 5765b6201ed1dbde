"""The cost of model calls, by the price list of `genai-prices` (the extra `prices`).

Each response of a run passes through here before its usage is counted.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass, replace
from math import inf
from typing import Any, cast

from agentkit._checks import is_number
from agentkit._options import options
from agentkit.errors import ConfigurationError
from agentkit.messages import ModelResponse, Usage
from agentkit.models.base import Model, check_argument

_UNPRICED = frozenset("local ollama lmstudio llamacpp openrouter scripted function".split())
"""Providers that cost nothing, or report the cost themselves."""
_PROVIDERS = {"gemini": "google"}
"""Providers with another name in the price list."""
_unlisted: dict[tuple[str, str], object] = {}
"""Providers and models that a price list does not have, with that list."""
_UNLISTED = 256


@options
@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """The price of a model that no price list has, in USD per million tokens.

        model = ChatModel("ours", base_url="…", price=Price(input=0.5, output=1.5))

    Attributes:
        input: For input tokens.
        output: For output tokens, reasoning included.
        cached: For input tokens that the server had in its cache; `input` if None.

    Raises:
        InvalidSetting: A price is not a number >= 0.
    """

    input: float
    output: float
    cached: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        prices: dict[str, Any] = {"input": self.input, "output": self.output}
        if self.cached is not None:
            prices["cached"] = self.cached
        for name, value in prices.items():
            valid = is_number(value) and 0 <= value < inf
            check_argument(f"Price.{name}", value, valid, "a number >= 0")

    def of(self, usage: Usage) -> float:
        """Return the cost of these tokens in USD."""
        cached = usage.cached_tokens
        read = self.input if self.cached is None else self.cached
        fresh = max(usage.input_tokens - cached, 0) * self.input
        return (fresh + cached * read + usage.output_tokens * self.output) / 1_000_000


def usage_with_cost(model: str, response: ModelResponse) -> Usage:
    """Return the usage of a response with its cost: the server's own, or by the price list.

    Args:
        model: `provider:model`.
        response: The answer; its own `model` is the exact name, where the server sends it.
    """
    if response.usage.cost is not None or not _installed():
        return response.usage
    provider, _, named = model.partition(":")
    for name in dict.fromkeys((response.model, named)):
        if name and (cost := _cost(provider, name, response.usage)) is not None:
            return replace(response.usage, cost=cost)
    return response.usage


def check_price(model: Model) -> None:
    """Check that a limit on cost can be enforced, for each model that may answer.

    Raises:
        ConfigurationError: There is no price for this model.
    """
    wrapped: Any = getattr(model, "wrapped", None)
    if isinstance(wrapped, tuple):  # those of a model of another library may be anything
        for one in cast("tuple[Model, ...]", wrapped):
            check_price(one)
    elif not isinstance(getattr(model, "price", None), Price):
        _check_listed(model.name)


def _check_listed(model: str) -> None:
    provider, _, name = model.partition(":")
    if provider in _UNPRICED:
        return
    own = (
        "pass ChatModel(…, price=Price(input=…, output=…)), in USD per million tokens, or limit "
        "total_tokens instead."
    )
    if not _installed():
        raise ConfigurationError(
            f"Limits.cost needs a price for {model!r}, and the price list is not installed. "
            f'Run: pip install "agentkit-replay[prices]", {own}'
        )
    if _cost(provider, name, Usage(input_tokens=1)) is None:
        raise ConfigurationError(
            f"Limits.cost cannot be enforced: the price list has no price for {model!r}. "
            f"Upgrade genai-prices, {own}"
        )


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("genai_prices") is not None


def _cost(provider: str, model: str, usage: Usage) -> float | None:
    # Imported here: it is an extra, and takes 160 ms.
    import genai_prices

    prices = genai_prices.data_snapshot.get_snapshot()
    if _unlisted.get((provider, model)) is prices:
        return None
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
        if len(_unlisted) >= _UNLISTED:
            _unlisted.clear()
        _unlisted[provider, model] = prices
        return None
    return float(price.total_price)
