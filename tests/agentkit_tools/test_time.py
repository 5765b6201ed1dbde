"""Times, zones, and clocks that skip or repeat an hour."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from agentkit_tools.time import time_tools

from agentkit import Agent, Toolset
from agentkit.errors import ConfigurationError
from agentkit.testing import ScriptedModel
from tests.agentkit_tools.support import call, named, refusal
from tests.support import tool_texts

pytestmark = pytest.mark.anyio


@pytest.fixture
def times() -> Toolset:
    """Return tools whose times are those of Berlin."""
    return time_tools(zone="Europe/Berlin")


async def test_now_is_the_time_in_a_zone(times: Toolset) -> None:
    """To the second, with the day of the week."""
    answer = await call(times, "now", zone="UTC")
    moment = datetime.fromisoformat(answer.split(" ")[0])
    assert abs(moment - datetime.now(UTC)) < timedelta(seconds=5)
    assert f"({moment:%A}, week {moment.isocalendar().week})" in answer
    assert "Europe/Berlin" in await call(times, "now")


async def test_a_replay_gets_the_same_time(times: Toolset) -> None:
    """The tool runs again and reads the clock of the recording."""
    agent = Agent(ScriptedModel([[("now", {})], "Late."]), tools=[times])
    first = await agent.run("What time is it?")
    time.sleep(1.1)  # noqa: ASYNC251 - the answer counts seconds
    assert first.trace is not None
    again = await agent.replay(first.trace, plan="tools_live")
    assert tool_texts(again) == tool_texts(first)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-29T14:30+05:30", "2026-03-29T14:30:00+05:30"),
        ("2026-03-29T14:30:15Z", "2026-03-29T14:30:15+00:00"),
        ("2026-07-01 14:30", "2026-07-01T14:30:00+02:00"),
        ("2026-07-01", "2026-07-01T00:00:00+02:00"),
        ("2026-07-01 14:30 America/New_York", "2026-07-01T14:30:00-04:00"),
        ("2026-07-01T14:30[Asia/Tokyo]", "2026-07-01T14:30:00+09:00"),
        ("2026-07-01 14:30 +02:00", "2026-07-01T14:30:00+02:00"),
        ("1 July 2026 2:30 pm", "2026-07-01T14:30:00+02:00"),
        ("Wednesday, July 1st, 2026 at 2 p.m.", "2026-07-01T14:00:00+02:00"),
        ("2026-07-01 2:30 PM Asia/Tokyo", "2026-07-01T14:30:00+09:00"),
        ("01.07.2026 14:30", "2026-07-01T14:30:00+02:00"),
        ("Wed, 01 Jul 2026 14:30:00 +0100", "2026-07-01T14:30:00+01:00"),
        ("1790000000", "2026-09-21T14:13:20+00:00"),
        ("1790000000000", "2026-09-21T14:13:20+00:00"),
    ],
)
async def test_times_are_read_in_the_usual_forms(times: Toolset, text: str, moment: str) -> None:
    """ISO 8601, with a zone or without, as people write it, e-mails, and seconds."""
    assert (await call(times, "convert_time", time=text)).split(" ")[0] == moment


async def test_a_time_is_shown_in_another_zone(times: Toolset) -> None:
    """A name or an offset; the day may change."""
    shown = await call(times, "convert_time", time="2026-07-01 20:00", to="Asia/Tokyo")
    assert shown == "2026-07-02T03:00:00+09:00 (Thursday, week 27, Asia/Tokyo)"
    shown = await call(times, "convert_time", time="2026-07-01 20:00", zone="UTC", to="-03:30")
    assert shown == "2026-07-01T16:30:00-03:30 (Wednesday, week 27)"


# Where the clocks change


async def test_a_time_that_the_clocks_skip_is_named(times: Toolset) -> None:
    """In a gap Python takes the offset from before it, and the answer says which time that is."""
    assert await call(times, "convert_time", time="2026-03-29 02:30") == (
        "2026-03-29T03:30:00+02:00 (Sunday, week 13, Europe/Berlin)\n"
        "[02:30:00 on 2026-03-29 in Europe/Berlin does not exist: the clocks skip it. "
        "2026-03-29T03:30:00+02:00 is taken.]"
    )


async def test_a_time_that_occurs_twice_is_named(times: Toolset) -> None:
    """In a fold the first is taken; with an offset there is no question."""
    first, second = "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"
    assert await call(times, "convert_time", time="2026-10-25 02:30") == (
        f"{first} (Sunday, week 43, Europe/Berlin)\n"
        "[02:30:00 on 2026-10-25 in Europe/Berlin occurs twice: "
        f"as {first}, which is taken here, and as {second}.]"
    )
    assert await call(times, "convert_time", time=second) == f"{second} (Sunday, week 43)"


async def test_days_follow_the_calendar_and_hours_the_clock(times: Toolset) -> None:
    """The night of the change has 23 hours."""
    noon = "2026-03-28 12:00"
    day = await call(times, "shift_time", time=noon, days=1)
    assert day.startswith("2026-03-29T12:00:00+02:00")
    hours = await call(times, "shift_time", time=noon, hours=24)
    assert hours.startswith("2026-03-29T13:00:00+02:00")
    between = await call(times, "time_between", start=noon, end="2026-03-29 12:00")
    assert between == "23 hours (82800 seconds); days from date to date: 1"
    gap = await call(times, "shift_time", time="2026-03-28 02:30", days=1)
    assert "02:30:00 on 2026-03-29 in Europe/Berlin does not exist" in gap


async def test_the_end_of_a_shorter_month_is_taken(times: Toolset) -> None:
    """And the answer says so."""
    for start, months, end, note in [
        ("2026-01-31", 1, "2026-02-28", "\n[February 2026 has no day 31.]"),
        ("2026-01-31", -2, "2025-11-30", "\n[November 2025 has no day 31.]"),
        ("2026-12-15", 1, "2027-01-15", ""),
    ]:
        shifted = await call(times, "shift_time", time=start, months=months)
        assert shifted.startswith(end)
        assert shifted.partition(")")[2] == note


async def test_differences_are_exact(times: Toolset) -> None:
    """Across zones, backwards, and below a second."""
    start, end = "2026-07-01 12:00 Asia/Tokyo", "2026-07-03T14:01:05+02:00"
    assert await call(times, "time_between", start=start, end=end) == (
        "2 days, 9 hours, 1 minute, 5 seconds (205265 seconds); days from date to date: 2"
    )
    assert (await call(times, "time_between", start=end, end=start)).startswith("-2 days, 9 hours")
    start, end = "2026-07-01T12:00:00.25Z", "2026-07-01T12:00:00.5Z"
    assert "(0.25 seconds)" in await call(times, "time_between", start=start, end=end)


# What is refused


@pytest.mark.parametrize(
    ("zone", "reason"),
    [
        ("Berlin", "Similar: Europe/Berlin."),
        ("new york", "Similar: America/New_York."),
        ("PST", "Use a name such as Europe/Berlin"),
        ("+99:00", "There is no time zone '+99:00'."),
        ("Europe", "There is no time zone 'Europe'."),
    ],
)
async def test_a_wrong_zone_is_answered_with_similar_ones(
    times: Toolset, zone: str, reason: str
) -> None:
    """Abbreviations mean several zones and are no names."""
    assert reason in await refusal(times, "now", zone=zone)


@pytest.mark.parametrize(
    "zone",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "Europe/../../../etc/passwd",
        "localtime",
        "right/UTC",
        "\x00",
        "Europe/Berlin\n",
        "a" * 5000,
        "zone.tab",
        "Europe/Berlin/x",
    ],
)
async def test_a_zone_is_no_path(times: Toolset, zone: str) -> None:
    """Names lead to no file, and not to the zone of this machine."""
    reason = await refusal(times, "now", zone=zone)
    assert reason.startswith("There is no time zone")
    assert len(reason) < 250


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("03/04/2026", "read differently from country to country"),
        ("1-2-26", "read differently from country to country"),
        ("tomorrow", "call now and shift_time"),
        ("2026-02-30", "not a date or time"),
        ("14:30", "not a date or time"),
        ("", "not a date or time"),
        ("2026-07-01 14:30 PST", "There is no time zone 'PST'."),
        ("0001-01-01T00:00+14:00", "not between the years"),
        ("9999-12-31T23:59-12:00", "not between the years"),
        ("9" * 100, "not a date or time"),
        ("[" * 100, "not a date or time"),
        ("1" * 100_000, "at most 100 characters"),
    ],
)
async def test_what_is_no_time_is_explained(times: Toolset, text: str, reason: str) -> None:
    """Above all a date that may mean another one."""
    assert reason in await refusal(times, "convert_time", time=text)


@pytest.mark.parametrize(
    "shift",
    [{"days": 10**10}, {"years": 9000}, {"months": -30_000}, {"seconds": -(10**11), "hours": 1}],
)
async def test_a_shift_stays_in_the_calendar(times: Toolset, shift: dict[str, int]) -> None:
    """Whatever the number is."""
    assert await refusal(times, "shift_time", time="2026-07-01", **shift)


def test_the_default_zone_has_to_exist() -> None:
    """When the tools are made, and not when they are called."""
    with pytest.raises(ConfigurationError, match=r"zone='Mars' cannot be used"):
        time_tools(zone="Mars")


def test_the_tools_only_read(times: Toolset) -> None:
    """And tell the model which zone is meant where none is named."""
    for tool in named(times).values():
        assert tool.effect == "read"
        assert tool.description.endswith("Default zone: Europe/Berlin.")
