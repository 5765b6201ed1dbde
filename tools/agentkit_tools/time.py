"""Time, zones and the calendar: `time_tools(zone=…)`.

The only clock is `RunContext.now`, which a replay answers from the recording.
"""

from __future__ import annotations

import calendar
import difflib
import inspect
import re
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime
from typing import Annotated

from pydantic import Field

from agentkit import RunContext, Tool, ToolError
from agentkit.errors import ConfigurationError
from agentkit.tools import FunctionToolset

_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?(\d{2}))?", re.A)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
_ZONED = re.compile(
    r"(.*?)(?: +|(?=\[))\[?((?!(?:am|pm)$)[A-Za-z][\w/+-]*|[+-][\d:]+)\]?", re.A | re.I
)
_MAIL = re.compile(r"(\w{3}, )?\d{1,2} \w{3} \d{4} \d\d:\d\d(:\d\d)? (GMT|UTC?|[+-]\d{4})", re.A)
# Names that the system's folder of zones has beside the zones: its own zone, and other scales.
_NO_ZONES = ("localtime", "posixrules", "posix/", "right/")
_FORMS = ("%d %B %Y", "%d %b %Y", "%B %d %Y", "%b %d %Y", "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I %p", " %I:%M%p", " %I%p")
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_MOST = Field(ge=-10_000_000_000, le=10_000_000_000)


def time_tools(*, zone: str = "UTC") -> FunctionToolset:
    """Return tools for times: `now`, `convert_time`, `shift_time` and `time_between`.

    They read the clock of the run, which replays the same time, and the system's time zones;
    nothing else. Times that a change of the clocks skips or repeats are read as Python does,
    and the answer says so.

    Args:
        zone: The zone of times that name none, such as "Europe/Berlin". The zone of this
            machine is not used.

    Raises:
        ConfigurationError: There is no such zone.

    Example:
        >>> agent = Agent("openai:gpt-4o", tools=[time_tools(zone="Europe/Berlin")])
    """
    try:
        _zone(zone)
    except ToolError as error:
        raise ConfigurationError(
            f"zone={zone!r} cannot be used: {error.message} On a system without time zones, "
            "run: pip install tzdata"
        ) from error
    times = _Times(zone)
    functions: list[Callable[..., str]] = [
        times.now,
        times.convert_time,
        times.shift_time,
        times.time_between,
    ]
    return FunctionToolset(
        [
            Tool(function, description=f"{_summary(function)} Default zone: {zone}.", effect="read")
            for function in functions
        ]
    )


def _summary(function: Callable[..., str]) -> str:
    """Return a docstring without its arguments, which the schema describes."""
    return (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]


@dataclass(frozen=True, slots=True)
class _Times:
    """The functions behind the tools."""

    default: str

    def now(self, context: RunContext, zone: str | None = None) -> str:  # noqa: D417 - hidden
        """Return the date, the time and the day of the week.

        Args:
            zone: A time zone such as "Europe/Berlin" or "+02:00".
        """
        return _shown(context.now().replace(microsecond=0).astimezone(_zone(zone or self.default)))

    def convert_time(self, time: str, to: str | None = None, zone: str | None = None) -> str:
        """Read a date or time and show it in a time zone, with the day of the week.

        Args:
            time: ISO 8601 such as "2026-03-29T14:30+02:00", "2026-03-29 14:30 Europe/Berlin",
                "29 March 2026 2:30 pm", the form of e-mails, or seconds since 1970.
            to: The zone to show it in; that of the time by default.
            zone: The zone of a time that names none.
        """
        moment, notes = self._read(time, zone)
        return _shown(moment.astimezone(_zone(to)) if to else moment, notes)

    def shift_time(
        self,
        time: str,
        years: Annotated[int, Field(ge=-9999, le=9999)] = 0,
        months: Annotated[int, Field(ge=-120_000, le=120_000)] = 0,
        weeks: Annotated[int, _MOST] = 0,
        days: Annotated[int, _MOST] = 0,
        hours: Annotated[int, _MOST] = 0,
        minutes: Annotated[int, _MOST] = 0,
        seconds: Annotated[int, _MOST] = 0,
        zone: str | None = None,
    ) -> str:
        """Return the time that is so much later, or earlier with negative numbers.

        Years to days follow the calendar and keep the time on the clock; hours to seconds are
        elapsed time, also where the clocks change.

        Args:
            time: As for convert_time.
            years: Years to add.
            months: Months to add. The end of a shorter month replaces days that it has not.
            weeks: Weeks to add.
            days: Days to add.
            hours: Hours to add.
            minutes: Minutes to add.
            seconds: Seconds to add.
            zone: The zone of a time that names none.
        """
        moment, notes = self._read(time, zone)
        try:
            if years or months or weeks or days:
                local, shorter = _add_months(moment.replace(fold=0), years * 12 + months)
                local += timedelta(weeks=weeks, days=days)
                notes += shorter
                moment, changed = _settled(local)
                notes += changed
            elapsed = timedelta(hours=hours, minutes=minutes, seconds=seconds)
            moment = (moment.astimezone(UTC) + elapsed).astimezone(moment.tzinfo)
        except (OverflowError, ValueError) as error:
            raise ToolError("The result is not between the years 1 and 9999.") from error
        return _shown(moment, notes)

    def time_between(self, start: str, end: str, zone: str | None = None) -> str:
        """Return the time that passes from one moment to another.

        Args:
            start: The first moment, as for convert_time.
            end: The second one.
            zone: The zone of times that name none.
        """
        (first, notes), (second, more) = self._read(start, zone), self._read(end, zone)
        seconds = (second - first.astimezone(UTC)) / timedelta(seconds=1)
        sign, left = "-" if seconds < 0 else "", abs(int(seconds))
        parts: list[str] = []
        for size, unit in _UNITS:
            count, left = divmod(left, size)
            if count:
                parts.append(f"{count} {unit}{'s' if count > 1 else ''}")
        days = (second.astimezone(first.tzinfo).date() - first.date()).days
        text = f"{sign}{', '.join(parts) or '0 seconds'} ({seconds:.15g} seconds)"
        return _joined(f"{text}; days from date to date: {days}", [*notes, *more])

    def _read(self, text: str, zone: str | None) -> tuple[datetime, list[str]]:
        """Return a time with its zone, and what has to be known about it.

        Raises:
            ToolError: It is not a time, or there is no such zone.
        """
        text = " ".join(text.split())
        if len(text) > 100:
            raise ToolError("A date or time has at most 100 characters.")
        default = _zone(zone or self.default)
        moment, match = _parsed(text), None
        if moment is None and (match := _ZONED.fullmatch(text)):
            moment = _parsed(match[1])
            if moment is not None:
                default = _zone(match[2])
        if moment is None:
            raise ToolError(
                f"{text!r} is not a date or time that can be read. Write it as "
                "2026-03-29T14:30+02:00 or 2026-03-29 14:30 Europe/Berlin; for words such as "
                "'tomorrow', call now and shift_time."
            )
        if not 1 < moment.year < 9999:  # a zone may lead out of the calendar
            raise ToolError(f"{text!r} is not between the years 2 and 9998.")
        if moment.tzinfo is None:
            return _settled(moment.replace(tzinfo=default))
        return (moment.astimezone(default) if match else moment), []


def _zone(name: str) -> tzinfo:
    """Return the zone of a name or of an offset.

    Raises:
        ToolError: There is none.
    """
    if name in ("UTC", "Z"):
        return UTC
    if match := _OFFSET.fullmatch(name.strip()):
        offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
        if offset < timedelta(hours=24) and int(match[3] or 0) < 60:
            return timezone(-offset if match[1] == "-" else offset)
    elif len(name) <= 64 and _ZONE.fullmatch(name) and not name.startswith(_NO_ZONES):
        try:
            return zoneinfo.ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass
    raise ToolError(f"There is no time zone {name[:64]!r}.{_similar(name[:64])}")


def _similar(name: str) -> str:
    """Return the zones whose names are like it, or how they are named."""
    wanted = name.lower().replace(" ", "_")
    known = zoneinfo.available_timezones()
    zones = {zone.lower(): zone for zone in known if not zone.startswith(_NO_ZONES)}
    cities = {zone.rpartition("/")[2]: zone for zone in sorted(zones)}
    close = difflib.get_close_matches(wanted, [*zones, *cities], n=3, cutoff=0.7)
    names = dict.fromkeys(zones[cities.get(one, one)] for one in close)
    if names:
        return f" Similar: {', '.join(names)}."
    return " Use a name such as Europe/Berlin or America/New_York, or an offset such as +02:00."


def _parsed(text: str) -> datetime | None:
    """Read a date or time in one of the forms that are known.

    Raises:
        ToolError: It is read in several ways.
    """
    if re.fullmatch(r"-?\d{9,13}(\.\d{1,6})?", text, re.A):
        seconds = float(text)  # of 13 digits are milliseconds
        return _epoch(seconds / 1000 if abs(seconds) >= 100_000_000_000 else seconds)
    if re.match(r"\d{1,2}[/-]\d{1,2}[/-]\d|\d{1,2}\.\d{1,2}\.\d\d\b", text, re.A):
        raise ToolError(
            f"{text!r} is read differently from country to country. Write year, month and day in "
            "this order, as in 2026-03-29."
        )
    try:
        return (
            parsedate_to_datetime(text) if _MAIL.fullmatch(text) else datetime.fromisoformat(text)
        )
    except (ValueError, TypeError):
        pass
    plain = re.sub(r"(?<=\d)(st|nd|rd|th)\b|,|\bat\b|^\w+day\b", " ", text, flags=re.I | re.A)
    plain = " ".join(re.sub(r"\b([ap])\.m\.?", r"\1m", plain, flags=re.I | re.A).split())
    for form in _FORMS:
        for clock in _CLOCKS:
            try:
                return datetime.strptime(plain, form + clock)  # noqa: DTZ007 - gets one
            except ValueError:
                continue
    return None


def _epoch(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _settled(moment: datetime) -> tuple[datetime, list[str]]:
    """Return a time that exists, and a note where the clocks skip or repeat it."""
    before, after = moment.replace(fold=0), moment.replace(fold=1)
    first, second = before.utcoffset() or timedelta(), after.utcoffset() or timedelta()
    if first == second:
        return moment, []
    wall = f"{moment:%H:%M:%S} on {moment:%Y-%m-%d} in {moment.tzinfo}"
    if first > second:
        first_time, second_time = before.isoformat(), after.isoformat()
        return before, [
            f"{wall} occurs twice: as {first_time}, which is taken here, and as {second_time}."
        ]
    real = before.astimezone(UTC).astimezone(moment.tzinfo)
    return real, [f"{wall} does not exist: the clocks skip it. {real.isoformat()} is taken."]


def _add_months(moment: datetime, months: int) -> tuple[datetime, list[str]]:
    """Return the same day some months later, or the last day of a month that has it not."""
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    day = min(moment.day, last)
    moved = moment.replace(year=year, month=month + 1, day=day)
    return moved, [] if day == moment.day else [f"{moved:%B %Y} has no day {moment.day}."]


def _shown(moment: datetime, notes: list[str] | None = None) -> str:
    zone = moment.tzinfo
    name = f", {zone.key}" if isinstance(zone, zoneinfo.ZoneInfo) else ""
    week = moment.isocalendar().week
    return _joined(f"{moment.isoformat()} ({moment:%A}, week {week}{name})", notes or [])


def _joined(text: str, notes: list[str]) -> str:
    return "\n".join([text, *(f"[{note}]" for note in dict.fromkeys(notes))])
