"""Stations as they are in the field: what each kind accepts, ignores, or does not know."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from ocpp.exceptions import OCPPError
from tests.adapters.conformance.plant import DEVICE, until
from tests.adapters.ocpp.conftest import Serve, bearers
from tests.adapters.ocpp.stations import connected

from kapelle.adapters.errands import Errands
from kapelle.model.blocks import Readings
from kapelle.model.enums import AckStatus, Metric, SessionEvent

VERSIONS = ["1.6", "2.0.1", "2.1"]
every_version = pytest.mark.parametrize("version", VERSIONS)
Run = Callable[[Callable[[], Any]], None]
NAN = float("nan")


async def answered(plant: Any, revision: int, *wanted: AckStatus) -> None:
    async def has() -> bool:
        return {(revision, status) for status in wanted} <= set(await plant.answers())

    await until(has)


async def newest(plant: Any, metric: Metric) -> float:
    values = [
        value
        for block in await plant.stored(Readings)
        for value in block.values.get(metric, ())
        if value == value
    ]
    return float(values[-1])


@every_version
def test_accepted_is_said_by_the_station_and_applied_by_its_schedule(
    serve: Serve, run: Run, version: str
) -> None:
    async def check() -> None:
        async with serve() as served, connected(served.port, version) as station:
            await station.boot()
            await station.plug_in()
            assert await served.plant.send(-6_000.0)
            await answered(served.plant, 1, AckStatus.ACCEPTED, AckStatus.APPLIED)
            assert await newest(served.plant, Metric.SETPOINT_W) == -6_000.0
            await served.plant.send(NAN, revision=2)
            await answered(served.plant, 2, AckStatus.ACCEPTED)
            await served.plant.send(NAN, revision=3)
            await answered(served.plant, 3, AckStatus.APPLIED)  # there was none any more

    run(check)


@every_version
@pytest.mark.parametrize("habit", ["ignores", "shows_schedule"])
def test_who_accepts_and_shows_nothing_is_not_said_to_have_applied(
    serve: Serve, run: Run, version: str, habit: str
) -> None:
    async def check() -> None:
        habits = {habit: habit == "ignores"}
        async with serve() as served, connected(served.port, version, **habits) as station:
            await station.boot()
            await station.plug_in()
            await served.plant.send(-6_000.0)
            await answered(served.plant, 1, AckStatus.ACCEPTED)
            await served.plant.send(-5_000.0, revision=2)
            await answered(served.plant, 2, AckStatus.ACCEPTED)
            assert AckStatus.APPLIED not in {status for _, status in await served.plant.answers()}

    run(check)


@every_version
@pytest.mark.parametrize(
    ("units", "unit", "limit"), [("Power", "W", 6_900.0), ("Current", "A", 10.0), ("", "A", 10.0)]
)
def test_limits_are_sent_in_the_unit_a_station_takes(
    serve: Serve, run: Run, version: str, units: str, unit: str, limit: float
) -> None:
    async def check() -> None:
        async with serve() as served, connected(served.port, version, units=units) as station:
            await station.boot()
            await served.plant.send(-6_900.0)
            await until(lambda: station.profiles)
            (profile,) = station.profiles.values()
            schedule = profile["charging_schedule"]
            schedule = schedule[0] if isinstance(schedule, list) else schedule
            assert schedule["charging_rate_unit"] == unit
            # 11 kW is three phases of 230 V, until something else is measured.
            assert float(schedule["charging_schedule_period"][0]["limit"]) == limit

    run(check)


@every_version
@pytest.mark.parametrize("errors", [False, True])
def test_a_station_that_takes_no_profile_as_a_whole_gets_defaults_for_its_vehicles(
    serve: Serve, run: Run, version: str, errors: bool
) -> None:
    async def check() -> None:
        habits: dict[str, Any] = {"takes_station_profile": False, "units": "Power"}
        habits["answers_with_errors"] = errors
        async with serve() as served, connected(served.port, version, **habits) as station:
            await station.boot()
            await station.plug_in(1)
            await station.plug_in(2)
            await served.plant.send(-8_000.0)
            await answered(served.plant, 1, AckStatus.ACCEPTED)
            assert {profile["evse"] for profile in station.profiles.values()} == {1, 2}
            assert station.told == [-4_000.0, -4_000.0]
            await served.plant.send(NAN, revision=2)
            await until(lambda: not station.profiles)

    run(check)


@every_version
def test_a_session_from_plug_to_plug(serve: Serve, run: Run, version: str) -> None:
    async def check() -> None:
        async with serve() as served, connected(served.port, version) as station:
            plant = served.plant
            await station.boot()
            await station.status("Available")
            await station.heartbeat()
            assert set(await plant.power_w()) == {0.0}
            assert await newest(plant, Metric.MIN_W) == 0.0
            await station.plug_in(meter_wh=1_000)
            assert await newest(plant, Metric.MIN_W) == -11_000.0
            assert await newest(plant, Metric.IMPORT_WH) == 1_000.0
            await station.measure(-7_000.0, Voltage=231.0, SoC=40)
            assert (await plant.power_w())[-1] == -7_000.0
            assert await newest(plant, Metric.SOC) == 0.4
            await station.unplug(meter_wh=3_000)
            assert await newest(plant, Metric.IMPORT_WH) == 3_000.0
            assert (await plant.power_w())[-1] == 0.0
            assert await newest(plant, Metric.MIN_W) == 0.0
            assert await plant.reasons() == []

    run(check)


def test_devices_of_single_evses_are_told_apart(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with (
            serve(addresses=(f"{DEVICE}/1", f"{DEVICE}/2")) as served,
            connected(served.port, "1.6", units="Power") as station,
        ):
            await station.boot()
            await station.plug_in(1)
            await station.measure(-3_000.0, connector=1)
            await station.measure(-4_000.0, connector=2)
            blocks = await served.plant.stored(Readings)
            told = [
                (number, power)
                for block in blocks
                for number, power in zip(
                    block.device_no.tolist(),
                    block.values.get(Metric.POWER_W, [NAN] * len(block)),
                    strict=True,
                )
            ]
            assert (0, -3_000.0) in told
            assert (1, -4_000.0) in told
            assert await served.plant.send(-2_000.0)
            await until(lambda: station.profiles)
            assert {profile["evse"] for profile in station.profiles.values()} == {1}

    run(check)


def test_a_station_is_set_up_when_it_boots_but_not_each_time_it_boots(
    serve: Serve, run: Run
) -> None:
    async def check() -> None:
        async with serve() as served:
            asked = []
            for turn in range(4):
                async with connected(served.port, "1.6") as station:
                    await station.boot()
                    await served.plant.send(-2_000.0, revision=len(asked) + turn)
                    await until(lambda: station.profiles)
                    if not asked:
                        await until(lambda: "HeartbeatInterval" in dict(station.asked))
                    asked += [name for name, _ in station.asked]
            assert asked.count("MeterValueSampleInterval") == 1
            assert asked.count("HeartbeatInterval") == 1

    run(check)


def test_a_set_up_that_was_cut_off_is_made_up_for(
    serve: Serve, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kapelle.adapters.ocpp.session._SET_UP_AGAIN_NS", 0)

    async def check() -> None:
        async with serve() as served:
            async with connected(served.port, "1.6", leaves_when_changed=True) as station:
                await station.heartbeat()
                await until(lambda: served.endpoint.counters.sessions == 0)
                assert len(station.asked) == 1
            async with connected(served.port, "1.6") as station:
                await station.heartbeat()
                await until(lambda: "HeartbeatInterval" in dict(station.asked))

    run(check)


def test_a_transaction_that_is_reported_twice_gets_one_number(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve() as served, served.raw() as socket:
            start = (
                '{"connectorId":1,"idTag":"x","meterStart":7,"timestamp":"2026-11-22T09:41:06Z"}'
            )
            told = []
            for name in ("a", "b"):
                await socket.send(f'[2,"{name}","StartTransaction",{start}]')
                async with asyncio.timeout(10):
                    while not (answer := str(await socket.recv())).startswith(f'[3,"{name}"'):
                        pass
                told.append(answer.partition("transactionId")[2])
            assert told[0] == told[1]
            other = start.replace(":7,", ":8,")
            await socket.send(f'[2,"c","StartTransaction",{other}]')
            async with asyncio.timeout(10):
                while not (answer := str(await socket.recv())).startswith('[3,"c"'):
                    pass
            assert answer.partition("transactionId")[2] != told[0]

    run(check)


def test_a_full_disk_is_answered_with_an_error_and_commands_go_on(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve() as served, connected(served.port, "1.6") as station:
            await station.boot()
            await station.plug_in()
            served.plant.fill_disk()
            with pytest.raises(OCPPError) as error:
                await station.measure(-1_000.0)
            assert error.value.code == "InternalError"
            await station.heartbeat()  # nothing to store: answered
            assert await served.plant.send(-2_000.0)
            await until(lambda: station.told)
            served.plant.empty_disk()
            await station.measure(-1_500.0)
            assert (await served.plant.power_w())[-1] == -1_500.0
            await answered(served.plant, 1, AckStatus.ACCEPTED)

    run(check)


def test_one_station_that_does_not_answer_holds_up_nobody(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with (
            serve(addresses=(DEVICE, "dev-1"), call_s=30.0, command_s=60.0) as served,
            served.raw(identity="dev-1") as _,
            connected(served.port, "1.6") as station,
        ):
            await station.boot()
            began = asyncio.get_running_loop().time()
            assert await served.plant.send(-2_000.0)
            await answered(served.plant, 1, AckStatus.APPLIED)
            assert asyncio.get_running_loop().time() - began < 15.0

    run(check)


def test_as_many_may_be_deaf_as_may_be_connected(
    serve: Serve, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each station has a connection of its own: none waits for its turn until others answer."""
    at_once: list[int] = []

    class Noting(Errands):
        def __init__(self, *given: Any, **named: Any) -> None:
            at_once.append(named["at_once"])
            super().__init__(*given, **named)

    monkeypatch.setattr("kapelle.adapters.ocpp.endpoint.Errands", Noting)

    async def check() -> None:
        async with serve(connections_max=3_000):
            assert at_once == [3_000]

    run(check)


def test_the_newest_connection_wins_and_the_older_is_told(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve() as served, connected(served.port, "1.6") as older:
            await older.boot()
            async with connected(served.port, "1.6") as newer:
                await newer.boot()
                await until(lambda: older._connection.close_code is not None)
                assert older._connection.close_code == 1000
                await served.plant.send(-2_000.0)
                await until(lambda: newer.told)
                assert older.told == []

                async def noted() -> bool:
                    taken = [SessionEvent.UP, SessionEvent.TAKEN, SessionEvent.UP]
                    return await served.plant.events() == taken

                await until(noted)
            assert served.endpoint.counters.takeovers == 1

    run(check)


def test_a_station_that_is_no_longer_enrolled_is_sent_away(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve() as served, connected(served.port, "2.0.1") as station:
            await station.boot()
            (bearer,) = bearers((DEVICE,))
            served.directory.apply([bearer._replace(active=False)])
            await until(lambda: station._connection.close_code is not None)
            assert station._connection.close_code == 1008
            assert served.endpoint.counters.sessions == 0

    run(check)
