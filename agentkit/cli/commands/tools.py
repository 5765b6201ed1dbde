"""The commands that look before anything runs: `tools`, `models`, `doctor`.

What a tool's author, a file, a server or the environment says is hostile here;
see `tree.shown`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import fields, replace
from textwrap import indent
from typing import Any, cast

import anyio
from rich.highlighter import JSONHighlighter
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agentkit.cli.console import ERR, OUT, AsJson, print_json, print_table
from agentkit.cli.load import agent_named, agents_in, load_module, split_name
from agentkit.cli.view.offer import Listing, Offer, list_tools
from agentkit.cli.view.tree import shown
from agentkit.errors import ConfigurationError, InvalidTool, MissingKey, UnknownModel
from agentkit.models.profiles import COMPATIBLE, PROFILES, Profile, profile_source
from agentkit.tools.tool import Tool

__all__ = ["doctor", "models", "tools"]

_LEFT, _CUT = (0, 0, 0, 2), 400
_NARROW = 80


# tools


def tools(source: str, /, *, as_json: AsJson = False) -> None:
    """Show what the model will see of the tools in a file.

    Lists the tools at the file's top level and those of its agents.

    Args:
        source: FILE.py or MODULE, or FILE.py:NAME for what one agent offers.
        as_json: Print the `tools` of a request, as JSON.
    """
    place, name = split_name(source)
    with redirect_stdout(sys.stderr):  # the file may print, and stdout is for the list
        module = load_module(place)
        if name:
            agents, rest = {name: agent_named(module, name, place)}, []
        else:
            agents = agents_in(module)
            rest = [
                cast("Tool[..., Any]", one)
                for one in vars(module).values()
                if isinstance(one, Tool)
            ]
        if not agents and not rest:
            raise ConfigurationError(
                f"{place} has no tools: a function needs @tool, or a place among an agent's tools."
            )
        listing = anyio.run(list_tools, agents, rest)
    for note in listing.notes:
        ERR.print(Text(shown(note), style="yellow"))
    wrong = [one for one in listing.offers if one.problem is not None]
    if as_json:
        if not wrong:
            found = [one.definition.to_json() for one in listing.offers if one.definition]
            print_json(found)
    else:
        for offer in listing.offers:
            _print_offer(offer)
        _print_totals(listing, list(agents))
    if wrong:
        raise InvalidTool(wrong[0].problem or "", tool=wrong[0].name)


def _print_offer(offer: Offer) -> None:
    definition = offer.definition
    head = Text(shown(offer.name), style="bold cyan")
    facts = [*offer.facts]
    if definition is not None:
        facts[:0] = ["strict" if definition.strict else "not strict"]
        facts.append(f"about {definition.tokens} tokens")
    if offer.agents:
        facts.append(f"in {', '.join(offer.agents)}")
    OUT.print(head + Text(f"  {shown(', '.join(facts))}", style="not bold dim"))
    if offer.problem is not None:
        OUT.print(Padding(Text(f"✗ {shown(offer.problem)}", style="red"), _LEFT, expand=False))
    if definition is not None:
        if definition.description:
            OUT.print(Padding(Text(shown(definition.description)), _LEFT, expand=False))
        schema = shown(json.dumps(definition.parameters, indent=2, ensure_ascii=False))
        OUT.print(JSONHighlighter()(indent(schema, "  ")), soft_wrap=True)
    for warning in offer.warnings:
        OUT.print(Padding(Text(f"! {shown(warning)}", style="yellow"), _LEFT, expand=False))
    OUT.print()


def _print_totals(listing: Listing, agents: list[str]) -> None:
    def line(offers: list[Offer]) -> str:
        tokens = sum(one.definition.tokens for one in offers if one.definition)
        return f"{len(offers)} tool{'s' * (len(offers) != 1)}, about {tokens} tokens"

    if len(agents) > 1:
        for name in agents:
            total = line([one for one in listing.offers if name in one.agents])
            OUT.print(Text(f"{shown(name)}: {total} in each request"))
    end = " in each request" if len(agents) == 1 else ""
    OUT.print(Text(f"{line([*listing.offers])}{end}", style="bold"))


# models


def models(profile: str | None = None, *, as_json: AsJson = False) -> None:
    """Show the providers that are known, or everything about one.

    Args:
        profile: The provider, as in `provider:model`.
        as_json: Print JSON.
    """
    known = _profiles()
    if profile is None:
        found = [_summary(one) for one in known.values()]
        if as_json:
            print_json(found)
        else:
            _print_providers(found)
        return
    if profile not in known:
        raise UnknownModel(
            f"There is no profile {profile!r}; there are {', '.join(known)}.", model=profile
        )
    values = {one.name: _plain(getattr(known[profile], one.name)) for one in fields(Profile)}
    if as_json:
        print_json(values)
    else:
        _print_fields(values)


def _profiles() -> dict[str, Profile]:
    # Here: it looks for the embedded model, which the other commands do without.
    from agentkit.models import LOCAL

    return {**PROFILES, LOCAL.name: LOCAL, COMPATIBLE.name: COMPATIBLE}


def _summary(profile: Profile) -> dict[str, Any]:
    """What the table has of a profile. Of a key only whether there is one."""
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


def _print_providers(found: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("provider", "base URL", "key variable", "set", "tools", "output modes"):
        table.add_column(
            title,
            overflow="fold",
            no_wrap=title not in ("base URL", "output modes"),
            max_width=13 if title == "output modes" else None,  # the rows have two lines anyway
        )
    for one in found:
        url = one["base_url"] or {"local": "on this machine"}.get(one["name"], "yours: base_url=…")
        if one["url_variable"]:
            url = f"{one['base_url'] or ''}\nor ${one['url_variable']}".removeprefix("\nor ")
        state = {True: ("yes", "green"), False: ("no", "yellow"), None: ("",)}[one["key_set"]]
        cells = (
            Text(one["name"], "bold cyan"),
            Text(url),
            Text(one["key_variable"]) if one["key_variable"] else Text("none needed", "dim"),
            Text(*state),
            Text(one["tool_calling"]),
            Text(", ".join(one["output_modes"])),
        )
        table.add_row(*cells)
        if OUT.width < _NARROW:
            _print_below(cells[0], *cells[1:3], cells[4], cells[5])
    if OUT.width >= _NARROW:
        print_table(table)


def _print_below(head: Text, *rest: Text) -> None:
    """A row where a table has no room: its cells one under the other."""
    OUT.print(head)
    for one in rest:
        OUT.print(Padding(one, _LEFT, expand=False))


def _plain(value: Any) -> Any:
    """A profile's value as JSON has it; sets in order."""
    if isinstance(value, frozenset):
        return sorted(cast("frozenset[str]", value))
    if isinstance(value, tuple):
        return [_plain(one) for one in cast("tuple[Any, ...]", value)]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in cast("Mapping[str, Any]", value).items()}
    return value


def _print_fields(values: Mapping[str, Any]) -> None:
    # Here: only this table needs it. The class's docstring says what the fields mean.
    from docstring_parser import parse

    meanings = {one.arg_name: one.description or "" for one in parse(Profile.__doc__ or "").params}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, share in (("field", None), ("value", 2), ("meaning", 3)):
        table.add_column(title, ratio=share if OUT.is_terminal else None, overflow="fold")
    for name, value in values.items():
        meaning = Text(" ".join(meanings.get(name, "").split()), "dim")
        cells = Text(name, "cyan"), Text(_in_words(value)), meaning
        table.add_row(*cells)
        if OUT.width < _NARROW:
            _print_below(*cells)
    if OUT.width >= _NARROW:
        print_table(table)


def _in_words(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none"
    match value:
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


# doctor


def doctor(
    *,
    base_url: str,
    model: str | None = None,
    api_key_env: str | None = None,
    profile: str | None = None,
) -> None:
    """Ask a server what it can do, and print a profile that says so.

    Sends about a dozen short requests.

    Args:
        base_url: The address of a chat-completions server, such as http://localhost:8000/v1.
        model: The server's name for the model; not needed where there is only one.
        api_key_env: The environment variable that holds the key.
        profile: The known provider that the server is most like; by default as its address says.
    """
    # Here: asking needs an HTTP client, and the other commands do without.
    from agentkit.cli.commands.probe import Check, probe

    if api_key_env is not None and not os.environ.get(api_key_env, "").strip():
        raise MissingKey(
            f"--api-key-env names {api_key_env!r}, and there is no such environment variable, "
            "or it is empty.",
            variable=api_key_env,
        )
    with ERR.status(Text(f"Asking {shown(base_url)} …")) as status:

        def told(check: Check) -> None:
            status.update(Text(f"Asking {shown(base_url)}: after {check.name} …"))

        async def ask() -> Any:
            key = os.environ[api_key_env] if api_key_env is not None else None
            return await probe(base_url, model=model, api_key=key, profile=profile, told=told)

        found = anyio.run(ask)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("feature", "works", "seen"):
        table.add_column(title, overflow="fold")
    words = {True: ("yes", "green"), False: ("no", "red"), None: ("unknown", "yellow")}
    for check in found.checks:
        table.add_row(check.name, Text(*words[check.ok]), Text(shown(check.detail, _CUT)))
    OUT.print(Text(shown(f"{found.model} at {found.base_url}"), style="bold"))
    print_table(table)
    known = found.profile
    if api_key_env is not None:
        known = replace(known, key_variable=api_key_env)
    OUT.print()
    OUT.print(Text(shown(_program(found.base_url, found.model, known))), soft_wrap=True)


def _program(base_url: str, model: str, profile: Profile) -> str:
    """A program with the model as it was found, to paste."""
    source = profile_source(profile)
    lines = ["from agentkit import ChatModel"]
    lines.append(
        f"from agentkit.models import {'PROFILES' if 'PROFILES[' in source else 'Profile'}"
    )
    if source.startswith("replace("):
        lines[:0] = ["from dataclasses import replace", ""]
    call = f"model = ChatModel({model!r}, base_url={base_url!r}, profile=profile)"
    return "\n".join([*lines, "", f"profile = {source}", call])
