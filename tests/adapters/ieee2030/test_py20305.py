"""Proven by py20305, the client of SunSpec's Project Satori: nobody here wrote it, nor the device
behind it (pysunspec2's registers, served by pymodbus)."""

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.conformance.plant import Plant, enrolled, opened, until
from tests.adapters.foreign import python_environment
from tests.adapters.ieee2030.certificates import authority, signed
from tests.adapters.ieee2030.trial import settings
from tests.adapters.sunspec.inverter import BATTERY, Inverter, served

from kapelle.adapters.ieee2030.endpoint import Ieee2030Endpoint
from kapelle.model.blocks import Acks
from kapelle.model.enums import AckStatus
from kapelle.runtime.clock import SystemClock

PEER = (
    "py20305[sunspec]==0.16.0",
    "pysunspec2==1.3.7",
    "pydantic==2.14.3",
    "xsdata==26.10",
    "xsdata-pydantic==24.5",
    "aiohttp==3.14.5",
    "cryptography==50.0.2",
    "lxml==6.1.3",
)
UNIT = 5
PERCENT = {**BATTERY, 704: {**BATTERY[704], "WSetPct": 0, "WSetPct_SF": -1}}
"""A battery that takes a percentage; the one of the SunSpec tests only takes watts."""
pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def python() -> Path:
    return python_environment("py20305", PEER)


def configuration(folder: Path, port: int, modbus: int, **more: Any) -> Path:
    device = signed("device")
    text: dict[str, Any] = {
        "server": {"url": f"https://127.0.0.1:{port}", "server_2018_compat": True},
        "tls": {
            "client_cert": str(device.certificate),
            "client_key": str(device.key),
            "ca_cert": str(authority().certificate),
        },
        "devices": [
            {
                "type": "sunspec",
                "lfdi": device.lfdi,
                "host": "127.0.0.1",
                "port": modbus,
                "unit_id": UNIT,
            }
        ],
        "telemetry": {"post_rate_seconds": 1, "power_direction": "split"},
        "history": {"enabled": False},
        "discovery": {"enabled": False},
        "logging": {"level": "DEBUG"},
    }
    file = folder / "client.json"
    file.write_text(json.dumps(text | more))
    return file


@asynccontextmanager
async def running(python: Path, file: Path) -> AsyncIterator[Path]:
    """Run the client; yields its log."""
    log = file.with_suffix(".log")
    with log.open("wb") as out:
        words = ["-m", "py20305", "--config", str(file), "--multicast-transport", "off"]
        client = await asyncio.create_subprocess_exec(
            str(python), *words, cwd=file.parent, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield log
    finally:
        client.terminate()
        try:
            async with asyncio.timeout(10):
                await client.wait()
        except TimeoutError:
            client.kill()
            await client.wait()


@asynccontextmanager
async def bridged(
    python: Path, folder: Path, inverter: Inverter, **more: Any
) -> AsyncIterator[tuple[Plant, Ieee2030Endpoint]]:
    """The plant, the client, and the device behind it."""
    async with (
        asyncio.timeout(150),
        served({UNIT: inverter}) as modbus,
        life(folder) as (plant, endpoint),
        beside(python, configuration(folder, endpoint.port, modbus, **more)),
    ):
        yield plant, endpoint


@asynccontextmanager
async def life(folder: Path, port: int = 0) -> AsyncIterator[tuple[Plant, Ieee2030Endpoint]]:
    """One life of the plant."""
    directory = enrolled("ieee2030", signed("device").lfdi)
    given: dict[str, object] = {"poll_s": 60, "poll_spread_s": 0, "post_s": 1, "silence_s": 90.0}
    given["notify_networks"] = ("127.0.0.0/8",)
    # It gives the output of a DER flowDirection 1, the load 19.
    given["forward_is_export"] = (signed("device").lfdi.lower(),)
    endpoint = Ieee2030Endpoint(
        settings=settings(port=port, **given),
        directory=directory,
        clock=SystemClock(),
        file=folder / "notes.db",
    )
    async with opened(endpoint, directory) as plant:
        yield plant, endpoint


@asynccontextmanager
async def beside(python: Path, file: Path) -> AsyncIterator[None]:
    """Run the client; what it logged is shown where a test fails."""
    async with running(python, file) as log:
        try:
            yield
        except BaseException:
            print(log.read_text()[-8_000:])
            raise


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def words(plant: Plant) -> list[tuple[int, str]]:
    """Return (status, reason) of every answer."""
    return [
        (status, reason.decode())
        for block in await plant.stored(Acks)
        for status, reason in zip(block.status.tolist(), block.reason, strict=True)
    ]


def test_a_control_reaches_the_register_and_its_phases_come_back(
    python: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        inverter = Inverter(changed=PERCENT)
        async with bridged(python, tmp_path, inverter) as (plant, _):
            # Told as soon as it is heard, before it first looks: a fifth of what it can charge.
            await until(lambda: plant.send(-1_000.0, revert_s=8.0), 60)
            await until(lambda: inverter.get(704, "WSetEna"), 60)
            await until(lambda: inverter.get(704, "WSetPct") == -200, 60)  # Tenths of a percent.
            # Its readings, net of both directions: the battery charges with 2 kW.
            await until(plant.power_w, 60)
            assert (await plant.power_w())[-1] == pytest.approx(-2_000, abs=5)
            before = [AckStatus.RECEIVED, AckStatus.APPLIED]

            async def told() -> list[tuple[int, str]]:
                return await words(plant)

            async def ended() -> bool:
                return AckStatus.COMPLETED in [status for status, _ in await told()]

            await until(ended, 60)
            assert await told() == [(status, "") for status in (*before, AckStatus.COMPLETED)]

    asyncio.run(run())


def test_a_control_the_device_lacks_is_rejected_with_252(python: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with bridged(python, tmp_path, Inverter(changed=BATTERY)) as (plant, _):
            await until(lambda: plant.send(-1_000.0, ttl_s=60), 60)

            async def refused() -> bool:
                return AckStatus.REJECTED in [status for status, _ in await words(plant)]

            await until(refused, 90)
            assert (AckStatus.REJECTED, "252: control or its value is not possible") in (
                await words(plant)
            )

    asyncio.run(run())


def test_a_subscriber_hears_at_once_and_a_restart_of_the_plant_changes_nothing_for_its_device(
    python: Path, tmp_path: Path
) -> None:
    """Between them the client looks once a minute: what it hears in between, it was notified of."""
    subscribed = {
        "enabled": True,
        "notification_host": "127.0.0.1",
        "notification_external_host": "127.0.0.1",
        "notification_port": free_port(),
        "notification_client_cert_mode": "enforce",
    }

    async def run() -> None:
        inverter = Inverter(changed=PERCENT)
        async with (
            asyncio.timeout(150),
            served({UNIT: inverter}) as modbus,
            AsyncExitStack() as outliving,
        ):
            async with life(tmp_path) as (plant, endpoint):
                file = configuration(tmp_path, endpoint.port, modbus, subscription=subscribed)
                await outliving.enter_async_context(beside(python, file))
                # Once it reports, it has looked and subscribed.
                await until(plant.power_w, 60)
                assert await plant.send(2_500.0)
                await until(lambda: inverter.get(704, "WSetPct") == 500, 20)
                assert inverter.get(704, "WSetEna")

                async def started() -> bool:
                    return (1, AckStatus.APPLIED) in await plant.answers()

                await until(started, 20)
                assert endpoint.counters.notified >= 1
            async with life(tmp_path, endpoint.port) as (plant, again):
                # Its mirror is not known any more: it makes it again.
                await until(plant.power_w, 60)
                assert inverter.get(704, "WSetEna")
                assert inverter.get(704, "WSetPct") == 500
                # It is still subscribed, and hears that what it was told before is over.
                assert await plant.send(float("nan"), revision=2, epoch=2)
                await until(lambda: not inverter.get(704, "WSetEna"), 20)

                async def released() -> bool:
                    return (2, AckStatus.APPLIED) in await plant.answers()

                await until(released, 20)
                assert again.counters.notified >= 1

    asyncio.run(run())
