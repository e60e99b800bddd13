"""The agent as a process of its own, killed with SIGKILL while its plant is away."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
from tests.adapters.conformance.plant import DEVICE, SECRET, until
from tests.adapters.sunspec.inverter import Inverter, served
from tests.edge.worlds import plant_at

from kapelle.model.blocks import Readings
from kapelle.sim.ports import free_port

ENOUGH, REQUESTS = 5, 120
"""Readings on disk, and requests to the device until they are: it is asked five times for each,
several times more to find its models, and the disk is written once a second."""


@asynccontextmanager
async def agent_process(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "KAPELLE_EDGE_SECRET_DEV_0": SECRET}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kapelle.cli", "edge"),
        cwd=folder,
        env=environment,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


def kept(folder: Path) -> list[int]:
    """Return when each reading was measured that a dead agent left on its disk."""
    with closing(sqlite3.connect(folder / "edge.db")) as file:
        return [at_ns for (at_ns,) in file.execute("SELECT at_ns FROM readings")]


@pytest.mark.integration
def test_what_is_on_its_disk_outlasts_a_kill_and_arrives_once_with_its_time(tmp_path: Path) -> None:
    async def run() -> None:
        mqtt_port = free_port()
        inverter = Inverter()
        async with asyncio.timeout(100), served({1: inverter}) as modbus_port:
            (tmp_path / "edge.toml").write_text(
                f"[plant]\nport = {mqtt_port}\n[sunspec]\n[[sunspec.devices]]\n"
                f'id = "{DEVICE}"\nhost = "127.0.0.1"\nport = {modbus_port}\npoll_s = 0.1\n'
            )
            measured: list[int] = []
            for _ in range(2):
                asked = inverter.asked
                async with agent_process(tmp_path):
                    await until(lambda asked=asked: inverter.asked > asked + REQUESTS, 40.0)
                before, measured = measured, kept(tmp_path)
                assert len(measured) >= len(before) + ENOUGH
            assert len(set(measured)) == len(measured)
            async with plant_at(mqtt_port) as (plant, _), agent_process(tmp_path):

                async def arrived() -> list[int]:
                    blocks = await plant.stored(Readings)
                    return [at_ns for block in blocks for at_ns in block.measured_at_ns.tolist()]

                async def is_complete() -> bool:
                    return set(measured) <= set(await arrived())

                await until(is_complete, 40.0)
                told = await arrived()
                assert len(set(told)) == len(told)

    asyncio.run(run())
