"""Devices over the API: one folded fleet in two partitions, asked in every way there is."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from tests.fleet.fleet_worlds import (
    Report,
    acks,
    block,
    commands,
    enrolled,
    power,
    s,
    say,
    sessions,
    tick,
)

from kapelle.api.server import build
from kapelle.api.settings import ApiSettings
from kapelle.api.watch import Watch
from kapelle.fleet.columns import Fleet
from kapelle.fleet.reconciliation.conditions import DISTRUSTED
from kapelle.fleet.reconciliation.device_state import exclusions_of
from kapelle.journal.memory import MemoryJournal
from kapelle.model.enums import (
    AckStatus,
    Condition,
    DeviceKind,
    Exclusion,
    Freshness,
    Metric,
    SessionEvent,
)
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Members
from kapelle.model.signals import Signal
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock

TOKEN = "test-token-of-32-characters-here"
DEVICES = 8
GONE = 5
SILENT = 6
Ask = Callable[..., httpx.Response]


@pytest.fixture
def fleets() -> dict[int, Fleet]:
    """0, 2, 4, 6 and 1, 3, 5, 7; 0 is under command, 5 has left, 6 has never spoken."""
    made = {}
    for partition in range(2):
        fleet = made[partition] = Fleet.empty(partition, 2)
        numbers = list(range(partition, DEVICES, 2))
        kinds = [DeviceKind.PV if no % 4 == 3 else DeviceKind.BATTERY for no in numbers]
        say(fleet, enrolled(numbers, kind=np.array(kinds, np.uint8)))
        say(fleet, sessions(*((no, SessionEvent.UP, 1) for no in numbers)))
        say(fleet, Members("north", [no for no in numbers if no < 3]))
        for at_s in (7.0, 8.0, 9.0):
            speak = [no for no in numbers if no not in (SILENT, GONE)]
            say(fleet, block([power(no, at_s, 100.0 * no) for no in speak]))
        tick(fleet, 9.5)
    zero = made[0]
    say(zero, commands([0], 3_000.0, at_s=10.0), acks([0], AckStatus.APPLIED, at_s=10.5))
    told = {Metric.POWER_W: -3_000.0, Metric.SOC: 0.5}
    for at_s in (17.0, 18.0, 19.0):
        say(zero, block([Report(0, s(at_s), s(at_s), s(at_s), told)]))
        tick(zero, at_s + 0.5)
    zero.condition[1] = Condition.FROZEN | Condition.DEAF
    say(made[1], enrolled([GONE], active=np.zeros(1, np.uint8)))
    return made


@pytest.fixture
def directory() -> Directory:
    rows = [Bearer(no, f"dev-{no}", no != GONE, 5e3, 4e3) for no in range(DEVICES)]
    return Directory.build(2, rows)


@pytest.fixture
def ask(fleets: dict[int, Fleet], directory: Directory) -> Ask:
    clock = SystemClock()
    journal = MemoryJournal(clock)

    def made(known: dict[int, Fleet]) -> Any:
        return build(
            journal=journal,
            watch=Watch(journal=journal, clock=clock, partitions=2),
            clock=clock,
            settings=ApiSettings(port=0),
            token=TOKEN,
            directory=directory,
            fleets=lambda: known,
        )

    async def once(path: str, known: dict[int, Fleet], query: dict[str, object]) -> httpx.Response:
        transport = httpx.ASGITransport(app=made(known))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://plant") as http:
            return await http.get(path, params=query, headers=headers)  # type: ignore[arg-type]  # also what no client would send

    def call(
        path: str = "/v1/devices", known: dict[int, Fleet] | None = None, **query: object
    ) -> httpx.Response:
        return asyncio.run(once(path, fleets if known is None else known, query))

    return call


def numbers(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [device["device_no"] for device in answer.json()["devices"]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, [0, 1, 2, 3, 4, 6, 7]),
        ({"resource": "north"}, [0, 1, 2]),
        ({"resource": "nowhere"}, []),
        ({"kind": "pv"}, [3, 7]),
        ({"kind": "PV"}, [3, 7]),
        ({"vendor": "maker-1"}, [1, 4, 7]),
        ({"vendor": "nobody"}, []),
        ({"freshness": "never"}, [6]),
        ({"freshness": "live", "resource": "north"}, [0, 1, 2]),
        ({"standing": "diverged_sign"}, [0]),
        ({"standing": "in_sync"}, []),
        ({"condition": "frozen"}, [2]),
        ({"condition": "sign_turned"}, [0]),
        ({"condition": "any"}, [0, 2]),
        ({"condition": "flapping"}, []),
        ({"excluded": "silent"}, [6]),
        ({"excluded": "condition"}, [0, 2]),
        ({"excluded": "any"}, [0, 2, 6]),
        ({"excluded": "none", "kind": "battery"}, [1, 4]),
    ],
)
def test_every_filter(ask: Ask, query: dict[str, str], found: list[int]) -> None:
    answer = ask(**query)
    assert numbers(answer) == found
    assert answer.json()["matched"] == len(found)


@pytest.mark.parametrize("field", ["kind", "freshness", "standing", "condition", "excluded"])
def test_a_word_nobody_knows_is_refused_with_those_there_are(ask: Ask, field: str) -> None:
    answer = ask(**{field: "purple"})
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(":filter-unknown")
    assert "'purple' is none of" in answer.json()["detail"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_hold_every_device_once(ask: Ask, limit: int) -> None:
    found, after = [], -1
    while True:
        page = ask(limit=limit, after=after)
        assert len(page.json()["devices"]) <= limit
        assert page.json()["matched"] == 7
        found += numbers(page)
        after = page.json()["next_after"]
        if after is None:
            break
    assert found == [0, 1, 2, 3, 4, 6, 7]


def test_one_device_with_all_that_is_known(ask: Ask) -> None:
    told = ask("/v1/devices/dev-0").json()
    assert (told["device_id"], told["vendor"], told["site"]) == ("dev-0", "maker-0", "site-0")
    assert (told["desired"]["setpoint_w"], told["desired"]["revision"]) == (3_000.0, 1)
    assert told["observed"]["power_w"] == -3_000.0
    assert told["observed"]["soc"] == 0.5
    assert told["reported"]["connected"] is True
    assert told["standing"] == "diverged_sign"
    assert told["failsafe"] == "120 s"


def test_what_is_not_known_is_null_and_never_a_number(ask: Ask) -> None:
    told = ask("/v1/devices/dev-6").json()
    nulls = ("power_w", "soc", "measured_at", "skew_s")
    assert {name: told["observed"][name] for name in nulls} == dict.fromkeys(nulls)
    assert told["desired"]["setpoint_w"] is None
    assert told["reported"]["mode"] is None
    assert told["standing"] == "none"
    assert told["standing_since"] is None
    (brief,) = (one for one in ask().json()["devices"] if one["device_no"] == SILENT)
    assert (brief["power_w"], brief["soc"], brief["measured_at"]) == (None, None, None)


@pytest.mark.parametrize("name", ["dev-5", "dev-99", "%00", "a/b"])
def test_who_is_not_enrolled_is_not_found(ask: Ask, name: str) -> None:
    assert ask(f"/v1/devices/{name}").status_code == 404


def test_who_keeps_no_partition_says_so(ask: Ask) -> None:
    for path in ("/v1/devices", "/v1/devices/dev-0"):
        answer = ask(path, {})
        assert answer.status_code == 503
        assert answer.json()["type"].endswith(":devices-elsewhere")


def test_the_tag_changes_with_every_version_and_with_nothing_else(
    ask: Ask, fleets: dict[int, Fleet]
) -> None:
    fleet = fleets[0]
    changes: list[Callable[[], None]] = [
        lambda: say(fleet, block([power(0, 20.0, 1.0)])),
        lambda: say(fleet, commands([0], 1_000.0, 2, at_s=20.0)),
        lambda: say(fleet, enrolled([0], vendor=(b"other",))),
    ]
    tag = ask("/v1/devices/dev-0").headers["ETag"]
    for change in changes:
        assert ask("/v1/devices/dev-0").headers["ETag"] == tag
        change()
        now = ask("/v1/devices/dev-0").headers["ETag"]
        assert now != tag
        tag = now
    tick(fleet, 21.0)
    assert ask("/v1/devices/dev-0").headers["ETag"] == tag, "time alone is no version"


def test_many_exclusions_are_those_of_each(fleets: dict[int, Fleet]) -> None:
    fleet = fleets[0]
    draw = np.random.default_rng(7)
    rows = np.arange(fleet.size, dtype=np.int32)
    for _ in range(200):
        fleet.excluded[rows] = draw.choice([0, 0, int(Exclusion.UNKNOWN)], fleet.size)
        fleet.condition[rows] = draw.choice([0, 0, int(Condition.FROZEN)], fleet.size)
        fleet.freshness[rows] = draw.integers(0, len(Freshness), fleet.size)
        fleet.connected[rows] = draw.choice([False, True], fleet.size)
        expected = []
        for row in rows.tolist():
            if fleet.excluded[row]:
                expected.append(int(fleet.excluded[row]))
            elif int(fleet.condition[row]) & int(DISTRUSTED):
                expected.append(Exclusion.CONDITION)
            elif fleet.freshness[row] not in (Freshness.LIVE, Freshness.LATE):
                expected.append(Exclusion.SILENT)
            else:
                expected.append(Exclusion.NONE if fleet.connected[row] else Exclusion.UNREACHABLE)
        assert exclusions_of(fleet, rows).tolist() == expected


def test_a_device_the_directory_does_not_know_yet_is_no_error(
    ask: Ask, fleets: dict[int, Fleet]
) -> None:
    say(fleets[0], enrolled([DEVICES]))
    answer = ask("/v1/devices")
    assert answer.status_code == 200
    assert DEVICES not in numbers(answer)


def test_why_a_device_does_what_it_does(ask: Ask, fleets: dict[int, Fleet]) -> None:
    zero = fleets[0]
    zero.signals["north"] = Signal("north", 1, 0.5, 0.5, 1, zero.now_ns + 900 * NS_PER_S)
    told = ask("/v1/devices/dev-0/why").json()
    assert (told["resource"], told["order_no"], told["setpoint_w"]) == ("north", 1, 3000.0)
    assert [reason["code"] for reason in told["reasons"]][:2] == ["nameplate", "nameplate"]
    assert told["reasons"][0]["value"] == 5000.0
    assert ask("/v1/devices/dev-2/why").json()["setpoint_w"] is None
    assert ask("/v1/devices/nobody/why").status_code == 404


def test_an_owner_who_opted_out_is_told_as_that(ask: Ask, fleets: dict[int, Fleet]) -> None:
    until_ns = fleets[0].now_ns + 3_600 * NS_PER_S
    say(fleets[0], enrolled([0], opted_out_until_ns=np.int64(until_ns)))
    told = ask("/v1/devices/dev-0").json()
    assert told["excluded"] == "opted_out"
    assert told["excluded_until"] is not None
    assert numbers(ask(excluded="opted_out")) == [0]
    reasons = ask("/v1/devices/dev-0/why").json()["reasons"]
    assert "opted_out" in [reason["code"] for reason in reasons]
