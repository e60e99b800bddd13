"""A plant, an edge agent and SunSpec devices, all real and all on this machine."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.adapters.conformance.plant import DEVICE, SECRET, Plant, enrolled, opened
from tests.adapters.sunspec.inverter import Inverter, served

from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.mqtt.settings import MqttSettings
from kapelle.adapters.sunspec.settings import DeviceSettings, SunSpecSettings
from kapelle.edge.buffer import Buffer
from kapelle.edge.service import Agent
from kapelle.edge.settings import BufferSettings, EdgeConfig, UplinkSettings
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock

POLL_S = 0.2


@dataclass
class Site:
    """What an agent stands between."""

    inverter: Inverter
    modbus_port: int
    mqtt_port: int
    folder: Path

    def config(self, **device: Any) -> EdgeConfig:
        """Return the configuration of an agent for the one device."""
        given: dict[str, Any] = {"poll_s": POLL_S, "answer_s": 1.0} | device
        one = DeviceSettings(DEVICE, "127.0.0.1", self.modbus_port, **given)
        return EdgeConfig(
            UplinkSettings(port=self.mqtt_port, answer_s=3.0),
            BufferSettings(self.folder / "edge.db"),
            SunSpecSettings((one,)),
        )


@asynccontextmanager
async def agent_of(config: EdgeConfig) -> AsyncIterator[tuple[Agent, Buffer]]:
    """Run an agent as long as the block lasts."""
    clock = SystemClock()
    buffer = Buffer(config.buffer, clock.now_ns())
    try:
        secrets = {device.id: SECRET for device in config.sunspec.devices}
        agent = Agent(config, secrets, buffer, clock)
        async with background() as beside:
            beside.start(agent.run(), "agent")
            yield agent, buffer
    finally:
        buffer.close(clock.now_ns())


@asynccontextmanager
async def plant_at(port: int, **mqtt: Any) -> AsyncIterator[tuple[Plant, int]]:
    """Run a plant's endpoint with ingest and journal; yield it and its port."""
    directory = enrolled("mqtt")
    endpoint = MqttEndpoint(
        settings=MqttSettings(port=port, **mqtt), directory=directory, clock=SystemClock()
    )
    async with opened(endpoint, directory) as plant:
        yield plant, endpoint.port


@asynccontextmanager
async def whole(folder: Path, **device: Any) -> AsyncIterator[tuple[Plant, Inverter, Agent]]:
    """Run everything."""
    inverter = Inverter()
    async with AsyncExitStack() as stack:
        modbus_port = await stack.enter_async_context(served({1: inverter}))
        plant, mqtt_port = await stack.enter_async_context(plant_at(0))
        site = Site(inverter, modbus_port, mqtt_port, folder)
        agent, _ = await stack.enter_async_context(agent_of(site.config(**device)))
        yield plant, inverter, agent
