"""Who may use an endpoint, and how much: keys, compared without telling how much of one fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import TypeAlias, cast

from agentkit.errors import ConfigurationError
from agentkit.serve.wire import WireError
from agentkit.settings import Limits


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What the holder of a key may use.

    Attributes:
        name: Who it is, for `deps` and for your log; never sent back.
        limits: Bound each run, besides the agent's own limits.
        concurrency: Runs at the same time; one more is refused with status 429.
    """

    name: str = ""
    limits: Limits | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        """Check the number."""
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigurationError(f"concurrency={self.concurrency!r}: expected at least 1.")


Keys: TypeAlias = Iterable[str] | Mapping[str, Key] | None


class Gate:
    """Lets requests in by their `Authorization` header."""

    def __init__(self, keys: Keys) -> None:
        if isinstance(keys, str) or (keys is not None and not all(map(_is_key, keys))):
            raise ConfigurationError(
                "keys= takes a list of keys, or a dict from keys to agentkit.serve.Key; a key "
                "is text of at least 8 characters without spaces."
            )
        named: Mapping[str, Key] = (
            cast("Mapping[str, Key]", keys)
            if isinstance(keys, Mapping)
            else dict.fromkeys(keys or (), Key())
        )
        self._keys = [(_digest(text), key) for text, key in named.items()]
        self._open = keys is None
        self._running: dict[int, int] = {}

    def holder(self, authorization: str) -> Key:
        """Return what a request may use.

        Raises:
            WireError: Its key is missing or unknown.
        """
        if self._open:
            return _ANYBODY
        scheme, _, given = authorization.partition(" ")
        presented = _digest(given.strip())
        found = [key for digest, key in self._keys if compare_digest(digest, presented)]
        if scheme.lower() != "bearer" or not found:
            why = "Incorrect API key provided." if given else "You did not provide an API key."
            text = f"{why} Send it as `Authorization: Bearer KEY`."
            raise WireError(401, text, type="invalid_request_error", code="invalid_api_key")
        return found[0]

    def enter(self, key: Key) -> None:
        """Count a run of a key's holder.

        Raises:
            WireError: There are too many at the same time.
        """
        running = self._running.get(id(key), 0)
        if key.concurrency is not None and running >= key.concurrency:
            text = f"This key may have {key.concurrency} requests at a time. Try again later."
            raise WireError(429, text, type="requests", code="rate_limit_exceeded", retry_after=1)
        self._running[id(key)] = running + 1

    def leave(self, key: Key) -> None:
        """Count its end."""
        self._running[id(key)] -= 1


_ANYBODY = Key()


def _is_key(key: object) -> bool:
    return isinstance(key, str) and len(key) >= 8 and not any(map(str.isspace, key))


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()
