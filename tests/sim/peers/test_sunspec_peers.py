"""Simulated SunSpec devices: pysunspec2 reads them, and the real agent commands them."""

import asyncio
import math
import warnings
from pathlib import Path

import pytest
from tests.adapters.conformance.plant import DEVICE, SECRET, enrolled, opened, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.mqtt.settings import MqttSettings
from kapelle.model.enums import AckStatus
from kapelle.runtime.clock import SystemClock
from kapelle.sim.peers.sunspec import Gateway, agent_beside


class Heard:
    """What devices were told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, float]] = []

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        self.told.append((index, setpoint_w))


def test_pysunspec2_reads_them() -> None:
    def read(port: int) -> list[object]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            device = SunSpecModbusClientDeviceTCP(slave_id=2, ipaddr="127.0.0.1", ipport=port)
            device.connect()
            device.scan(connect=False)
            said = [
                sorted(model.model_id for model in device.model_list),
                [model.error_info for model in device.model_list if model.error_info],
                device.models[701][0].W.cvalue,
                device.models[713][0].SoC.cvalue,
                device.models[1][0].SN.value,
            ]
            device.disconnect()
        return said

    async def run() -> None:
        gateway = Gateway([5_000.0, 8_000.0], Heard(), now_ns=SystemClock().now_ns)
        gateway.units[1].measure(-2_000.0, 0.55, 10.0, 20.0)
        async with asyncio.timeout(30), gateway.serve():
            assert await asyncio.to_thread(read, gateway.port) == [
                [1, 701, 702, 704, 713], [], -2_000, pytest.approx(55.0), "000001",
            ]  # fmt: skip

    asyncio.run(run())


def test_an_order_reaches_them_through_the_real_agent_and_ends_by_itself(tmp_path: Path) -> None:
    async def run() -> None:
        clock, heard = SystemClock(), Heard()
        ahead_ns = 0
        gateway = Gateway([5_000.0], heard, now_ns=lambda: clock.now_ns() + ahead_ns)
        gateway.units[0].measure(-2_000.0, 0.55, 10.0, 20.0)
        directory = enrolled("mqtt")
        endpoint = MqttEndpoint(settings=MqttSettings(port=0), directory=directory, clock=clock)
        async with (
            asyncio.timeout(60),
            opened(endpoint, directory) as plant,
            gateway.serve(),
            agent_beside(
                gateway, {DEVICE: SECRET}, ("127.0.0.1", endpoint.port), tmp_path / "edge.db",
                poll_s=0.2, clock=clock,
            ),
        ):  # fmt: skip
            await until(plant.power_w)
            await until(lambda: plant.send(-1_500.0, revision=3))

            async def applied() -> bool:
                return (3, AckStatus.APPLIED) in await plant.answers()

            await until(applied)
            assert (0, -1_500.0) in heard.told
            ahead_ns = 301 * 10**9
            gateway.tick()
            assert math.isnan(heard.told[-1][1])

    asyncio.run(run())
