"""Where more comes than can be taken: it waits boundedly, is read later, and nothing is lost."""

import asyncio
from typing import Any

import pytest
from tests.adapters.mqtt.conftest import tel

from kapelle.adapters.mqtt.reader import Reason


@pytest.mark.parametrize("bound", [{"waiting_max": 50}, {"waiting_size_max": 700}])
def test_many_rows_wait_boundedly_and_all_arrive(open_plant: Any, bound: dict[str, int]) -> None:
    """R-29: while the consumer does not ask, devices are not read; then nothing is missing."""

    async def check() -> None:
        async with open_plant(**bound, batch_big=10, batch_max=20) as plant:
            devices = [await plant.device(number) for number in range(10)]
            await plant.until(lambda: len(plant.sessions) == 10)
            plant.gate.clear()

            async def publish(number: int) -> None:
                for packet_id in range(1, 61):
                    devices[number].send(tel(4, packet_id, packet_id, number=number))
                    await asyncio.sleep(0.001)

            async with asyncio.TaskGroup() as tasks:
                for number in range(10):
                    tasks.create_task(publish(number))
            await asyncio.sleep(0.1)
            waiting = len(plant.endpoint.intake.messages)
            assert 40 <= waiting <= 150  # twice the bound stops everybody at once
            plant.gate.set()
            await plant.until(lambda: len(plant.power_w) == 600)
            assert sorted(plant.power_w) == sorted([*range(1, 61)] * 10)
            assert plant.counters.held["intake full"] > 0
            assert max(len(b.readings or ()) for b in plant.batches) <= 20

    asyncio.run(check())


def test_a_device_above_its_rate_is_read_later_not_lost(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant(publishes_per_s=200, publishes_burst=20) as plant:
            device = await plant.device()
            started = asyncio.get_running_loop().time()
            for packet_id in range(1, 121):
                device.send(tel(4, packet_id, packet_id))
                await asyncio.sleep(0)
            await plant.until(lambda: len(plant.power_w) == 120)
            device.send(tel(4, 0, 200))
            await plant.until(lambda: len(plant.power_w) == 121)
            assert asyncio.get_running_loop().time() - started > 0.4
            assert plant.counters.held["above its rate"] >= 1

    asyncio.run(check())


def test_more_unanswered_than_granted(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant(inflight_max=4) as plant:
            plant.mode = "hold"
            modern = await plant.device(1, version=5)
            modern.send(*(tel(5, n, n, number=1) for n in range(1, 6)))
            await modern.hears_the_end(Reason.RECEIVE_MAXIMUM_EXCEEDED)
            older = await plant.device(2)
            older.send(*(tel(4, n, n, number=2) for n in range(1, 6)))
            await plant.until(lambda: plant.counters.held["too many unanswered"] == 1)
            older.send(tel(4, 6, 6, number=2))
            await asyncio.sleep(0.1)
            assert len(plant.power_w) == 10
            plant.mode = "confirm"
            for batch in plant.held:
                plant.link.confirm(batch, {})
            await plant.until(lambda: len(plant.power_w) == 11)

    asyncio.run(check())
