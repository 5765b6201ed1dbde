"""Sampling parameters as one server takes them: renamed, clamped, left out, or refused.

Pure; `encode` starts here. A caller uses the reference's names; the profile knows
what its server takes, and every change is reported as a `Note`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentkit.errors import InvalidSetting
from agentkit.messages import JsonObject
from agentkit.models.profiles import Profile

_PASSED_THROUGH = ("extra_body", "extra_headers", "extra_query")


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """A change that was made for the server: becomes a `Warned` event."""

    code: str
    text: str
    data: JsonObject


def adapt_settings(
    settings: Mapping[str, Any], profile: Profile, *, strict: bool = False
) -> tuple[dict[str, Any], list[Note]]:
    """Translate parameters, including `extra_body`, for a server.

    Returns:
        The fields of the request body in stable order, and the changes.

    Raises:
        InvalidSetting: With `strict`, a parameter that the server does not take; or audio
            output without `audio`.
    """
    notes: list[Note] = []
    fields: dict[str, Any] = {}
    requested = {**profile.defaults, **settings}
    dropped = profile.drops
    if requested.get("reasoning_effort") != "none":
        dropped |= profile.drops_reasoning
    for name in sorted(requested):
        value = requested[name]
        if value is None or name in _PASSED_THROUGH:
            continue
        if name in dropped:
            notes.append(_dropped(name, value, profile))
            continue
        if name in profile.ranges:
            value = _clamped(name, value, profile, notes)
        fields[profile.renames.get(name, name)] = value
    if strict and notes:
        first = notes[0].data
        raise InvalidSetting(
            f"{notes[0].text.removesuffix('.')}, and strict_settings=True forbids that.",
            field=first["field"],
            value=repr(first["value"]),
            allowed=first.get("allowed", "not supported"),
        )
    own = dict(settings.get("extra_body") or {})
    fields |= own
    audio = own.get("audio", requested.get("audio"))
    if "audio" in (fields.get("modalities") or ()) and not audio:
        raise InvalidSetting(
            "modalities includes 'audio', but audio is not set, which a spoken answer needs. Set "
            "audio={'voice': …, 'format': …}.",
            field="audio",
            value=repr(audio),
            allowed="{'voice': …, 'format': …}",
        )
    return fields, notes


def _dropped(name: str, value: Any, profile: Profile) -> Note:
    text = f"{name}={value!r} was left out: {profile.name} does not support it here."
    return Note(code="dropped_parameter", text=text, data={"field": name, "value": value})


def _clamped(name: str, value: Any, profile: Profile, notes: list[Note]) -> Any:
    least, most = profile.ranges[name]
    if not isinstance(value, (int, float)) or least <= value <= most:
        return value
    nearest, allowed = min(max(value, least), most), f"{least}…{most}"
    text = f"{name}={value!r} was changed to {nearest!r}: {profile.name} accepts {allowed}."
    data = {"field": name, "value": value, "allowed": allowed}
    notes.append(Note(code="clamped_parameter", text=text, data=data))
    return nearest
