"""Where a model is and how it is reached: URL, key, headers, profile.

The environment is read at each request, never when an object is made: a program
without a key can still load, replay and be tested.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from agentkit.errors import AgentKitError, ConfigurationError, MissingKey, UnknownModel
from agentkit.models.profiles import PROFILES, Profile, profile_for_url
from agentkit.redaction import remember_key

_SECRET_HEADERS = ("authorization", "api-key", "x-api-key")


def choose_profile(profile: Profile | str | None, base_url: str | None, model: str) -> Profile:
    """Return the profile that the caller chose, or else the one of the server.

    Raises:
        UnknownModel: There is no profile of this name.
        ConfigurationError: The base URL is not valid.
    """
    if isinstance(profile, Profile):
        return profile
    if profile is not None and profile not in PROFILES:
        raise UnknownModel(
            f"{profile!r} is not a known profile. Known profiles: {', '.join(PROFILES)}.",
            model=model,
        )
    if profile is not None or base_url is None:
        return PROFILES[profile or "openai"].for_model(model)
    try:
        base_url.encode()  # a lone surrogate would only be found out by the first request
        return profile_for_url(base_url).for_model(model)
    except ValueError as error:
        raise ConfigurationError(f"{base_url!r} is not a valid base URL: {error}.") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """One model of one server; the profile and the environment fill in what is None."""

    model: str
    profile: Profile
    base_url: str | None
    api_key: str | None = field(repr=False)
    own_headers: Mapping[str, str] = field(repr=False)  # A key may be in them.
    needs_key: bool

    @property
    def name(self) -> str:
        """`provider:model`."""
        return f"{self.profile.name}:{self.model}"

    def url(self, extra: Mapping[str, Any], path: str | None = None) -> str:
        """Return the URL for chat completions, or for `path`, with `extra` in its query.

        Raises:
            ConfigurationError: There is no base URL.
        """
        profile = self.profile
        base = self.base_url or os.environ.get(profile.url_variable or "") or profile.base_url
        if not base:
            variable = f" or set {profile.url_variable}" if profile.url_variable else ""
            raise ConfigurationError(
                f"{self.name} has no base URL. Pass base_url to ChatModel{variable}."
            )
        address, _, own = base.partition("?")
        address = address.rstrip("/").removesuffix("/chat/completions")
        query = profile.query
        if address.endswith("/v1"):  # Azure's newer form looks like every other server's.
            path, query = path or "/chat/completions", {}
        path = path or profile.path.format(model=quote(self.model, safe=""))
        query = "&".join(filter(None, (own, urlencode({**query, **extra}))))
        return f"{address}{path}?{query}" if query else address + path

    def headers(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of a request by lower-case name; those in `extra` win.

        Raises:
            MissingKey: The server needs a key and there is none.
            ConfigurationError: A value cannot be sent in a header.
        """
        headers = {"content-type": "application/json", "user-agent": "agentkit"}
        for more in (self.own_headers, extra):
            headers |= {name.lower(): value for name, value in more.items()}
        bearer = self.profile.auth == "bearer"
        key_header = "authorization" if bearer else self.profile.auth
        if key_header not in headers and (key := self._find_key()):
            headers[key_header] = f"Bearer {key}" if bearer else key
        for name, value in headers.items():
            if not (value.isascii() and value.isprintable()):
                # Without the value, which may be the key.
                raise ConfigurationError(
                    f"The header {name!r} for {self.name} cannot be sent: its value has a line "
                    "break or a character outside ASCII."
                )
            if name in _SECRET_HEADERS or name == key_header:
                remember_key(value.removeprefix("Bearer ").strip())
        return headers

    def identity(self) -> list[str]:
        """Return URL, key and headers, as far as there are any. They are secrets."""
        parts = [self.model]
        with suppress(AgentKitError):  # An agent can be made and replayed without them.
            parts.append(self.url({}))
        with suppress(AgentKitError):
            parts += [text for item in sorted(self.headers({}).items()) for text in item]
        return parts

    def _find_key(self) -> str | None:
        variable = self.profile.key_variable
        key = (self.api_key or "").strip() or os.environ.get(variable or "", "").strip()
        if not key and variable is not None and self.needs_key:
            raise MissingKey(
                f"{self.name} needs an API key. Set {variable}, or pass api_key to ChatModel.",
                variable=variable,
            )
        return key or None


def host_of(url: str) -> str:
    """Return host and port of a URL, without user name and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def public_url(url: str) -> str:
    """Return a URL without user name, password and query, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{host_of(url)}{parts.path}"


def redact_key(error: AgentKitError, headers: Mapping[str, str]) -> None:
    """Replace the key in an error, in case the server repeated it."""
    for name in _SECRET_HEADERS:
        secret = headers.get(name, "").removeprefix("Bearer ").strip()
        if len(secret) < 8:  # Too short for a key, and likely to be part of other words.
            continue
        error.args = tuple(
            one.replace(secret, "[key]") if isinstance(one, str) else one for one in error.args
        )
        for key, value in error.data().items():
            if isinstance(value, str):
                setattr(error, key, value.replace(secret, "[key]"))
