"""The agent between a plant and a device nobody here wrote, both directions."""

import asyncio
import gc
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from tests.adapters.conformance.plant import DEVICE, Plant, until
from tests.adapters.sunspec.inverter import Inverter, served
from tests.edge import worlds
from tests.edge.worlds import Site, agent_of, plant_at, whole

from kapelle.adapters.sunspec.settings import SunSpecSettings
from kapelle.edge.buffer import Buffer
from kapelle.model.blocks import Readings
from kapelle.model.enums import AckStatus, Metric


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


class Noting(Buffer):
    """A buffer that notes when each reading was taken."""

    taken: ClassVar[list[int]] = []

    def add(self, device: str, values: dict[Metric, float], at_ns: int) -> None:
        self.taken.append(at_ns)
        super().add(device, values, at_ns)


async def measured(plant: Plant) -> Counter[int]:
    blocks = await plant.stored(Readings)
    return Counter(at_ns for block in blocks for at_ns in block.measured_at_ns.tolist())


def test_nothing_is_lost_while_the_plant_is_away_and_the_agent_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worlds, "Buffer", Noting)
    Noting.taken.clear()

    async def run() -> None:
        inverter = Inverter()
        async with asyncio.timeout(90), served({1: inverter}) as modbus_port:
            async with plant_at(0) as (plant, mqtt_port):
                site = Site(inverter, modbus_port, mqtt_port, tmp_path)
                async with agent_of(site.config(poll_s=0.1)):
                    await until(lambda: measured(plant))
                first = await measured(plant)
            # The plant is gone; the agent dies and comes back twice, and goes on reading.
            for _ in range(2):
                before = len(Noting.taken)
                async with agent_of(site.config(poll_s=0.1)):
                    await until(lambda before=before: len(Noting.taken) > before + 5)
            async with plant_at(mqtt_port) as (plant, _), agent_of(site.config(poll_s=0.1)):

                async def caught_up() -> bool:
                    known = first + await measured(plant)
                    return set(Noting.taken[:-5]) <= set(known)

                await until(caught_up)
                # With the time the device was read, and in the order of the readings.
                blocks = await plant.stored(Readings)
                rank = {
                    order: at_ns
                    for block in blocks
                    for order, at_ns in zip(
                        block.order.tolist(), block.measured_at_ns.tolist(), strict=True
                    )
                }
                assert [rank[order] for order in sorted(rank)] == sorted(rank.values())

    asyncio.run(run())


def test_a_plant_that_falls_silent_leaves_the_device_to_its_own_timer(tmp_path: Path) -> None:
    async def run() -> None:
        inverter = Inverter()
        async with asyncio.timeout(90), served({1: inverter}) as modbus_port:
            async with plant_at(0) as (plant, mqtt_port):
                site = Site(inverter, modbus_port, mqtt_port, tmp_path)
                async with agent_of(site.config()):
                    await until(lambda: plant.send(-1500.0))
                    await until(lambda: inverter.get(704, "WSetEna") == 1)
            # Both are gone. Only the device is left, and five minutes pass.
            later = inverter.now() + 301.0
            inverter.now = lambda: later
            inverter.tick()
            assert inverter.get(704, "WSetEna") == 0

    asyncio.run(run())


def test_a_dead_unit_behind_a_gateway_holds_up_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        inverter = Inverter()
        async with (
            asyncio.timeout(90),
            served({1: inverter}) as modbus_port,
            plant_at(0) as (plant, mqtt_port),
        ):
            config = Site(inverter, modbus_port, mqtt_port, tmp_path).config()
            absent = replace(config.sunspec.devices[0], id="dev-9", unit=9)
            both = replace(config, sunspec=SunSpecSettings((absent, *config.sunspec.devices)))
            async with agent_of(both):
                await until(plant.power_w)
                await until(lambda: plant.send(-1500.0, revision=3))

                async def applied() -> bool:
                    return (3, AckStatus.APPLIED) in await plant.answers()

                await until(applied)

    asyncio.run(run())


def test_over_tls_the_plant_s_certificate_is_checked(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command: it makes the certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        f" -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {key} -out {cert}"
    )
    subprocess.run(words.split(), check=True, capture_output=True, timeout=30)

    async def run() -> None:
        inverter = Inverter()
        async with (
            asyncio.timeout(90),
            served({1: inverter}) as modbus_port,
            plant_at(0, tls_certificate=str(cert), tls_key=str(key)) as (plant, mqtt_port),
        ):
            config = Site(inverter, modbus_port, mqtt_port, tmp_path).config()
            tls = replace(config.plant, host="localhost", tls=True, tls_authority=str(cert))
            strange = replace(tls, tls_authority="")
            async with agent_of(replace(config, plant=strange)) as (_, buffer):
                await until(lambda: buffer.has_stored(DEVICE))
            # No socket of a handshake that failed waits for this: it would be a warning.
            gc.collect()
            assert await plant.power_w() == []
            async with agent_of(replace(config, plant=tls)):
                await until(plant.power_w)

    asyncio.run(run())
