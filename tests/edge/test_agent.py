"""The agent between a plant and a device nobody here wrote, both directions."""

import asyncio
from pathlib import Path

import pytest
from tests.adapters.conformance.plant import until
from tests.edge.worlds import whole

from kapelle.model.enums import AckStatus


def test_what_the_device_measures_reaches_the_journal(tmp_path: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), whole(tmp_path) as (plant, inverter, _):
            await until(plant.power_w)
            assert set(await plant.power_w()) == {-2000.0}
            inverter.put(701, "W", 1234)

            async def moved() -> bool:
                return 1234.0 in await plant.power_w()

            await until(moved)

    asyncio.run(run())


def test_a_setpoint_reaches_the_register_with_its_timer_and_is_read_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), whole(tmp_path) as (plant, inverter, _):
            await until(lambda: plant.send(-1500.0, revision=7))

            async def applied() -> bool:
                return (7, AckStatus.APPLIED) in await plant.answers()

            await until(applied)
            assert inverter.get(704, "WSet") == -1500
            assert inverter.get(704, "WSetMod") == 1
            assert inverter.get(704, "WSetEna") == 1
            assert inverter.get(704, "WSetRvrtTms") == 300
            assert inverter.get(704, "WSetRvrtRem") == pytest.approx(300, abs=60)

    asyncio.run(run())
