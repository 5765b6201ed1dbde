"""Profiles: what each server supports, as data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentkit.models import PROFILES, Profile
from agentkit.models.profiles import COMPATIBLE, profile_for_url, profile_source

ALL = pytest.mark.parametrize("profile", [COMPATIBLE, *PROFILES.values()], ids=lambda one: one.name)


@ALL
def test_profiles_as_source(profile: Profile) -> None:
    """The source of a profile evaluates to the same profile."""
    names = {"Profile": Profile, "PROFILES": PROFILES, "replace": replace}
    assert eval(profile_source(profile), names) == profile
    changed = replace(profile, stream_usage=False, drops=frozenset({"seed", "user"}))
    assert eval(profile_source(changed), names) == changed


@ALL
def test_variants_name_fields(profile: Profile) -> None:
    """Every variant changes fields that exist, and its pattern compiles."""
    for pattern, changes in profile.variants:
        assert changes
        assert profile.for_model("no such model") == profile, pattern


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda one: one.name)
def test_a_base_url_identifies_its_server(profile: Profile) -> None:
    """The base URL of a hosted server leads back to its profile."""
    if profile.base_url is not None and profile.hosts:
        assert profile_for_url(profile.base_url) == profile


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://x.openai.azure.com", "azure"),
        ("https://user:pw@API.openai.com/v1", "openai"),
        ("http://localhost:1234/v1", "lmstudio"),
        ("https://openrouter.ai.evil.example/v1", "compatible"),
        ("https://notopenrouter.ai/v1", "compatible"),
        ("http://localhost:21234/v1", "compatible"),
    ],
)
def test_profiles_for_urls(url: str, name: str) -> None:
    """Hosts are compared whole or from their end; an unknown one is merely compatible."""
    assert profile_for_url(url).name == name


def test_names_may_be_any_collection() -> None:
    """They are kept as sets, by which what was encoded of a message is found again."""
    profile = Profile(name="own", names=["user"], echo={"audio"})  # pyright: ignore[reportArgumentType] # not everybody checks types
    assert profile == Profile(name="own", names=frozenset({"user"}), echo=frozenset({"audio"}))
    assert hash(profile.names)
