"""How a device's session begins, is taken over, is kept alive and ends, and who hears of it."""

import asyncio
from typing import Any

import numpy as np
from tests.adapters.mqtt.conftest import VERSIONS, Plant, Raw, tel

from kapelle.adapters.mqtt import reader, writer
from kapelle.adapters.mqtt.packets import Answer, ConnAck, Disconnect
from kapelle.adapters.mqtt.reader import Property, Reason
from kapelle.fleet.columns import Fleet
from kapelle.fleet.reconciliation.conditions import step_conditions
from kapelle.fleet.sessions import apply_sessions
from kapelle.model.blocks import Sessions
from kapelle.model.enums import Condition, SessionEvent


@VERSIONS
def test_sessions_come_and_go(open_plant: Any, version: int) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            device = await plant.device(2, version=version)
            device.send(writer.goodbye(version))
            await plant.until(lambda: len(plant.sessions) == 2)
            device = await plant.device(2, version=version)
            device.close()
            await plant.until(lambda: len(plant.sessions) == 4)
            up, down = (2, SessionEvent.UP), (2, SessionEvent.DOWN)
            assert plant.sessions == [up, down, up, down]
            numbers = [n for b in plant.batches if b.sessions for n in b.sessions.session.tolist()]
            assert numbers[0] == numbers[1] < numbers[2] == numbers[3]

    asyncio.run(check())


def with_will(version: int, topic: str, retain: bool = False) -> bytes:
    properties = b"\0" if version == 5 else b""
    flags = 0xC0 | 0x02 | 0x04 | (0x20 if retain else 0)
    return writer.packet(
        reader.CONNECT << 4,
        writer.text("MQTT"),
        bytes((version, flags, 0, 60)),
        properties,
        writer.text("dev-2"),
        properties,
        writer.text(topic),
        writer.text(b"gone"),
        writer.text("dev-2"),
        writer.text("dev-2!"),
    )


@VERSIONS
def test_a_will_speaks_when_the_connection_breaks_and_only_then(
    open_plant: Any, version: int
) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            for last, event in (
                (b"", SessionEvent.WILL),
                (writer.goodbye(version), SessionEvent.DOWN),
            ):
                device = await plant.raw_client(version)
                device.send(with_will(version, "v1/dev-2/evt"))
                answer = await device.next()
                assert isinstance(answer, ConnAck)
                assert answer.code == 0
                device.send(last)
                device.close()
                await plant.until(lambda: len(plant.sessions) % 2 == 0 and bool(plant.sessions))
                assert plant.sessions[-1] == (2, event)
                plant.sessions.clear()
            if version == 5:
                device = await plant.raw_client(version)
                device.send(with_will(version, "v1/dev-2/evt"))
                await device.next()
                device.send(writer.packet(reader.DISCONNECT << 4, b"\x04"))
                await plant.until(lambda: (2, SessionEvent.WILL) in plant.sessions)

    asyncio.run(check())


async def take_over(plant: Plant, older: Raw, version: int) -> Raw:
    """Connect a second time as dev-1; the first is gone, and told why where its version can."""
    newer = await plant.device(1, version=version)
    if version == 5:
        await older.hears_the_end(Reason.SESSION_TAKEN_OVER)
    else:
        assert await older.next() is None
    return newer


@VERSIONS
def test_the_newest_session_wins_and_flapping_raises_an_alarm(
    open_plant: Any, version: int
) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            older = await plant.device(1, version=version)
            for count in range(1, 5):
                newer = await take_over(plant, older, version)
                older.send(tel(version, 666, 1, number=1))  # fenced
                older = newer
                assert plant.counters.takeovers == count
                assert plant.counters.flaps == (count >= 3)
            older.send(tel(version, 5, 1, number=1))
            assert await older.next() == Answer(reader.PUBACK, 1)
            assert plant.power_w == [5.0]
            assert plant.sessions[-1] == (1, SessionEvent.UP)
            assert plant.counters.sessions == 1

    asyncio.run(check())


@VERSIONS
def test_two_sessions_with_one_credential_are_a_condition_of_the_device(
    open_plant: Any, version: int
) -> None:
    """R-25 to its end: what the endpoint tells is what the fleet counts; a third time is one."""

    async def check() -> None:
        async with open_plant() as plant:
            older = await plant.device(1, version=version)
            for count in range(1, 5):
                older = await take_over(plant, older, version)
                await plant.until(lambda count=count: len(plant.sessions) == 2 * count + 1)
                assert plant.sessions[-2:] == [(1, SessionEvent.TAKEN), (1, SessionEvent.UP)]
                assert _conditions(plant.session_blocks, 1) == (
                    Condition.CONTESTED if count >= 3 else 0
                )

    asyncio.run(check())


def _conditions(blocks: list[Sessions], row: int) -> int:
    fleet = Fleet.empty()
    fleet.reserve(row + 1)
    for block in blocks:
        apply_sessions(fleet, block)
    fleet.now_ns = int(blocks[-1].at_ns.max()) + 1
    step_conditions(fleet, np.empty(0, np.intp))
    return int(fleet.condition[row])


def test_keep_alive_is_enforced_at_one_and_a_half_times(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            silent = await plant.device(1, version=5, keep_alive_s=1)
            pinging = await plant.device(2, version=5, keep_alive_s=1)
            started = asyncio.get_running_loop().time()

            async def ping() -> None:
                while True:
                    pinging.send(writer.PINGREQ)
                    await asyncio.sleep(0.5)

            pings = asyncio.create_task(ping())
            last = await silent.next()
            waited_s = asyncio.get_running_loop().time() - started
            assert isinstance(last, Disconnect)
            assert last.code == Reason.KEEP_ALIVE_TIMEOUT
            assert 1.4 < waited_s < 4.0
            pings.cancel()
            assert plant.counters.dropped == {"keep-alive": 1}
            assert plant.counters.sessions == 1

    asyncio.run(check())


def test_mqtt_5_is_told_our_limits(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant(inflight_max=17, keep_alive_s_max=100) as plant:
            client = await plant.raw_client(5)
            client.send(
                writer.connect(
                    5,
                    "dev-0",
                    username="dev-0",
                    password="dev-0!",
                    keep_alive_s=0,
                    given={Property.SESSION_EXPIRY: 3600},
                )
            )
            answer = await client.next()
            assert isinstance(answer, ConnAck)
            told = answer.properties
            assert told[Property.RECEIVE_MAXIMUM] == 17
            assert told[Property.MAXIMUM_QOS] == 1
            assert told[Property.SERVER_KEEP_ALIVE] == 100
            assert told[Property.SESSION_EXPIRY] == 0
            assert told[Property.WILDCARD_AVAILABLE] == 0
            assert Property.TOPIC_ALIAS_MAXIMUM not in told

    asyncio.run(check())


def test_the_end_says_goodbye(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            device = await plant.device(version=5)
        await device.hears_the_end(Reason.SERVER_SHUTTING_DOWN)

    asyncio.run(check())
