"""SunSpec on trial: the edge agent, with a device of pysunspec2's that pymodbus serves."""

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from pymodbus.constants import ExcCodes
from tests.adapters.conformance.plant import DEVICE, SECRET, enrolled, until
from tests.adapters.sunspec.inverter import Inverter, served

from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.mqtt.settings import MqttSettings
from kapelle.adapters.sunspec.settings import DeviceSettings, SunSpecSettings
from kapelle.edge.buffer import Buffer
from kapelle.edge.service import Agent
from kapelle.edge.settings import BufferSettings, EdgeConfig, UplinkSettings
from kapelle.ports import Adapter
from kapelle.registry.directory import Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock

UNKNOWN = -0x8000


class Told(Inverter):
    """A device that notes every setpoint that is put into force, and every release."""

    def __post_init__(self) -> None:
        self.told: list[float | None] = []
        super().__post_init__()
        self.put(701, "W", UNKNOWN)

    async def touch(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        at, _ = self._place(704, "WSetEna")
        if values is not None and address - self.base == at:
            self.told.append(float(self.get(704, "WSet")) if values[0] else None)
        return await super().touch(function, start, address, count, registers, values)


class Relay:
    """A wire between agent and plant that can be cut."""

    def __init__(self) -> None:
        self._ends: list[asyncio.StreamWriter] = []
        self._is_cut = False
        self.port = 0

    @asynccontextmanager
    async def open(self, to_port: int) -> AsyncIterator[None]:
        tasks: set[asyncio.Task[None]] = set()

        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while heard := await reader.read(65_536):
                    writer.write(heard)
                    await writer.drain()
            writer.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                if self._is_cut:
                    return
                there, back = await asyncio.open_connection("127.0.0.1", to_port)
                self._ends += [writer, back]
                async with asyncio.TaskGroup() as both:
                    both.create_task(pass_on(reader, back))
                    both.create_task(pass_on(there, writer))
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            self.cut()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)

    def cut(self) -> None:
        self._is_cut = True
        for end in self._ends:
            end.transport.abort()


class SunSpecPeer:
    """The device and the agent beside it."""

    def __init__(self, inverter: Told, agent: Agent, buffer: Buffer, relay: Relay) -> None:
        self._inverter = inverter
        self._device = agent.devices[0]
        self._buffer = buffer
        self._relay = relay

    async def report(self, power_w: float) -> bool:
        self._inverter.put(701, "W", round(power_w))
        await self._device.look()
        try:
            await until(lambda: not self._buffer.waiting(DEVICE), patience_s=1.0)
        except TimeoutError:
            return False
        return True

    async def babble(self) -> None:
        draw = random.Random(1)
        for _ in range(5):
            words = self._inverter.registers
            words[:] = [draw.randrange(0x10000) for _ in words]
            await self._device.look()
        self._inverter.lay_out(self._inverter.base)

    async def told(self) -> list[float | None]:
        return list(self._inverter.told)

    async def cut(self) -> None:
        self._relay.cut()


class SunSpecTrial:
    name = "sunspec"
    commands = True
    sessions = True

    def adapter(self) -> tuple[Adapter, Directory]:
        directory = enrolled("mqtt")
        settings = MqttSettings(port=0)
        return MqttEndpoint(settings=settings, directory=directory, clock=SystemClock()), directory

    def connect(self, adapter: Adapter) -> AbstractAsyncContextManager[SunSpecPeer]:
        return _connected(adapter, SECRET)

    def stranger(self, adapter: Adapter) -> AbstractAsyncContextManager[SunSpecPeer]:
        return _connected(adapter, "a wrong secret")


@asynccontextmanager
async def _connected(adapter: Adapter, secret: str) -> AsyncIterator[SunSpecPeer]:
    assert isinstance(adapter, MqttEndpoint)
    inverter, relay, clock = Told(), Relay(), SystemClock()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        modbus_port = await stack.enter_async_context(served({1: inverter}))
        await stack.enter_async_context(relay.open(adapter.port))
        # It is read when it is told to report, and once at the start.
        device = DeviceSettings(DEVICE, "127.0.0.1", modbus_port, poll_s=3_600.0)
        config = EdgeConfig(
            UplinkSettings(port=relay.port),
            BufferSettings(folder / "edge.db"),
            SunSpecSettings((device,)),
        )
        buffer = Buffer(config.buffer, clock.now_ns())
        stack.callback(lambda: buffer.close(clock.now_ns()))
        agent = Agent(config, {DEVICE: secret}, buffer, clock)
        beside = await stack.enter_async_context(background())
        beside.start(agent.run(), "agent")
        try:
            # The first reading is acknowledged after the subscription was.
            await agent.devices[0].look()
            await until(lambda: not buffer.waiting(DEVICE), patience_s=2.0)
        except TimeoutError as silence:
            raise ConnectionError("the plant acknowledges nothing") from silence
        yield SunSpecPeer(inverter, agent, buffer, relay)
