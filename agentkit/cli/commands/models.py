"""`agentkit models`: the known providers, and what their profiles say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from docstring_parser import parse
from pydantic_core import to_jsonable_python
from rich.text import Text

from agentkit.cli.console import OUT, AsJson, print_json, print_rows
from agentkit.errors import UnknownModel
from agentkit.models.profiles import COMPATIBLE, LOCAL, PROFILES, Profile

_WIDE = 80
"""Columns that the tables need."""


def models(profile: str | None = None, *, as_json: AsJson = False) -> None:
    """Show the providers that are known, or everything about one.

    Args:
        profile: The provider, as in `provider:model`.
        as_json: Print JSON.
    """
    known = {**PROFILES, LOCAL.name: LOCAL, COMPATIBLE.name: COMPATIBLE}
    if profile is not None and profile not in known:
        raise UnknownModel(
            f"There is no profile {profile!r}; there are {', '.join(known)}.", model=profile
        )
    if profile is not None:
        fields_of = {one.name: _plain(getattr(known[profile], one.name)) for one in fields(Profile)}
        print_json(fields_of) if as_json else _print_fields(fields_of)
    else:
        summaries = [_summary(one) for one in known.values()]
        print_json(summaries) if as_json else _print_providers(summaries)


def _summary(profile: Profile) -> dict[str, Any]:
    """Return what the table has of a profile; of a key, only whether it is set."""
    variable = profile.key_variable
    return {
        "name": profile.name,
        "base_url": profile.base_url,
        "url_variable": profile.url_variable,
        "key_variable": variable,
        "key_set": None if variable is None else bool(os.environ.get(variable, "").strip()),
        "tool_calling": profile.tool_calling,
        "output_modes": list(profile.output_modes),
    }


def _print_providers(summaries: list[dict[str, Any]]) -> None:
    whole = {"no_wrap": True}
    titles = {
        "provider": whole,
        "base URL": {},
        "key variable": whole,
        "set": whole,
        "tools": whole,
        "output modes": {"max_width": 13},  # the rows have two lines anyway
    }
    rows = ([Text(cell) for cell in _cells(one)] for one in summaries)
    print_rows(titles, rows, narrow=_WIDE)


def _cells(profile: dict[str, Any]) -> list[str]:
    base, variable = profile["base_url"], profile["url_variable"]
    address = "\nor ".join(filter(None, [base, variable and f"${variable}"]))
    unknown = "on this machine" if profile["name"] == LOCAL.name else "yours: base_url=…"
    return [
        profile["name"],
        address or unknown,
        profile["key_variable"] or "none needed",
        {True: "yes", False: "no", None: ""}[profile["key_set"]],
        profile["tool_calling"],
        ", ".join(profile["output_modes"]),
    ]


def _plain(value: Any) -> Any:
    """Return a profile's value as JSON; sets in order."""
    plain = to_jsonable_python(value)
    return sorted(plain) if isinstance(value, frozenset) else plain


def _print_fields(values: Mapping[str, Any]) -> None:
    # The docstring of the class says what its fields mean.
    meanings = {one.arg_name: one.description or "" for one in parse(Profile.__doc__ or "").params}
    shares = {"field": None, "value": 2, "meaning": 3}
    titles = {
        title: {"ratio": share if OUT.is_terminal else None} for title, share in shares.items()
    }
    rows = (
        [
            Text(name, "cyan"),
            Text(_in_words(value)),
            Text(" ".join(meanings.get(name, "").split()), "dim"),
        ]
        for name, value in values.items()
    )
    print_rows(titles, rows, narrow=_WIDE)


def _in_words(value: Any) -> str:
    match value:
        case None | [] | {} if not value:
            return "none"
        case bool():
            return "yes" if value else "no"
        case [str(), *_]:
            return ", ".join(value)
        case {**items}:
            return "\n".join(f"{key}: {_in_words(one)}" for key, one in items.items())
        case [[str(), dict()], *_]:  # variants
            return "\n".join(f"{pattern}\n{_in_words(changes)}" for pattern, changes in value)
        case [*items]:
            return " … ".join(str(one) for one in items)
        case _:
            return str(value)
