"""SunSpec devices behind a Modbus TCP gateway: batteries and inverters with models 1, 701, 702, 704
and 713, which take setpoints, run their revert timers and say what is left of them.

The gateway answers an edge agent (`kapelle.edge`), which is the real one in a simulation, too.
"""

import asyncio
import math
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from kapelle.adapters.sunspec.models import MODELS, STRING
from kapelle.adapters.sunspec.settings import DeviceSettings, SunSpecSettings
from kapelle.edge.buffer import Buffer
from kapelle.edge.service import Agent
from kapelle.edge.settings import BufferSettings, EdgeConfig, UplinkSettings
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock
from kapelle.runtime.background import background

UNITS_MAX = 247
"""Modbus unit ids lie between 1 and 247."""
_BASE = 40_000
_LENGTHS: Mapping[int, int] = {1: 66, 701: 153, 702: 50, 704: 65, 713: 7}
"""Models in the order of the map, and registers that follow each one's head."""
_REQUEST = struct.Struct(">HHHBBHH")
_READ, _WRITE, _FAILED = 3, 16, 0x80
_FUNCTION, _ADDRESS, _TARGET = 1, 2, 11
_RUNNING = 3


class Listener(Protocol):
    """Who is told what devices are told."""

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        """A device was given a power, positive towards the grid; NaN: its own schedule. [W]"""


class Inverter:
    """One device: its registers."""

    def __init__(self, index: int, rated_w: float, listener: Listener) -> None:
        self._index = index
        self._listener = listener
        self._places: dict[int, int] = {}
        self._until_ns = 0
        self.is_away = False
        """Its bus is broken: the gateway answers that it does not."""
        raw = bytearray(b"SunS")
        for model, length in _LENGTHS.items():
            self._places[model] = len(raw)
            # Everything is missing until it is said.
            block = bytearray(struct.pack(">HH", model, length) + bytes(2 * length))
            for point in MODELS[model].values():
                size = 2 * point.kind.registers
                block[2 * point.offset : 2 * point.offset + size] = point.kind.missing.to_bytes(
                    size, "big"
                )
            raw += block
        self.raw = raw + b"\xff\xff\0\0"
        self._begin(rated_w)

    def _begin(self, rated_w: float) -> None:
        for name, text in (("Mn", "kapelle"), ("Md", "simulated"), ("SN", f"{self._index:06d}")):
            self._write(1, name, text.encode())
        given = {
            701: {"InvSt": _RUNNING, "W_SF": 1, "TotWh_SF": 0},
            702: {"WMaxRtg": round(rated_w / 10), "W_SF": 1},
            704: {
                "WSetEna": 0, "WSetMod": 1, "WSet": 0, "WSet_SF": 0, "WSetEnaRvrt": 0,
                "WSetRvrtTms": 0, "WSetRvrtRem": 0,
            },
            713: {"Pct_SF": -2},
        }  # fmt: skip
        for model, points in given.items():
            for name, value in points.items():
                self.put(model, name, value)

    def put(self, model: int, name: str, value: int) -> None:
        """Set a point as it stands in the registers."""
        kind = MODELS[model][name].kind
        self._write(model, name, value.to_bytes(2 * kind.registers, "big", signed=kind.signed))

    def get(self, model: int, name: str) -> int:
        """Return a point as it stands in the registers."""
        point = MODELS[model][name]
        at = self._places[model] + 2 * point.offset
        raw = self.raw[at : at + 2 * point.kind.registers]
        return int.from_bytes(raw, "big", signed=point.kind.signed)

    def measure(self, power_w: float, soc: float, export_wh: float, import_wh: float) -> None:
        """Say what is measured now; NaN for a state of charge it has not."""
        self.put(701, "W", round(power_w / 10))
        self.put(701, "TotWhInj", round(export_wh))
        self.put(701, "TotWhAbs", round(import_wh))
        if not math.isnan(soc):
            self.put(713, "SoC", round(soc * 10_000))

    def take(self, at: int, raw: bytes, now_ns: int) -> None:
        """Take what was written, and follow it."""
        self.raw[at : at + len(raw)] = raw
        if not self.get(704, "WSetEna"):
            self._release()
            return
        self._until_ns = now_ns + self.get(704, "WSetRvrtTms") * NS_PER_S
        self._listener.on_setpoint(self._index, float(self.get(704, "WSet")), self._until_ns)

    def run_down(self, now_ns: int) -> None:
        """Let the revert timer run."""
        left_ns = self._until_ns - now_ns
        if self._until_ns and left_ns <= 0:
            self.put(704, "WSetEna", 0)
            self._release()
        self.put(704, "WSetRvrtRem", max(0, left_ns // NS_PER_S) if self._until_ns else 0)

    def _release(self) -> None:
        if self._until_ns:
            self._until_ns = 0
            self._listener.on_setpoint(self._index, math.nan, 0)

    def _write(self, model: int, name: str, raw: bytes) -> None:
        point = MODELS[model][name]
        at = self._places[model] + 2 * point.offset
        if point.kind is STRING:
            raw = raw.ljust(2 * point.size, b"\0")
        self.raw[at : at + len(raw)] = raw


class Gateway:
    """Devices behind one socket; the first has unit id 1."""

    def __init__(
        self, rated_w: Sequence[float], listener: Listener, *, now_ns: Callable[[], int]
    ) -> None:
        assert len(rated_w) <= UNITS_MAX
        self.units = [Inverter(index, watts, listener) for index, watts in enumerate(rated_w)]
        self.port = 0
        self._now_ns = now_ns
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1") -> AsyncIterator[None]:
        """Answer as long as the block lasts, on a free port."""
        server = await asyncio.start_server(self._converse, host, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            self.cut()
            await asyncio.sleep(0)

    def cut(self) -> None:
        """Drop every connection without a goodbye."""
        for writer in self._open:
            writer.transport.abort()

    def tick(self) -> None:
        """Let every revert timer run."""
        now_ns = self._now_ns()
        for unit in self.units:
            unit.run_down(now_ns)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                asked = await reader.readexactly(_REQUEST.size)
                transaction, _, _, number, function, address, count = _REQUEST.unpack(asked)
                written = b""
                if function == _WRITE:
                    (size,) = await reader.readexactly(1)
                    written = await reader.readexactly(size)
                pdu = self._answer(number, function, 2 * (address - _BASE), 2 * count, written)
                writer.write(struct.pack(">HHHB", transaction, 0, len(pdu) + 1, number) + pdu)
                await writer.drain()
        except (OSError, EOFError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._open.discard(writer)

    def _answer(self, number: int, function: int, at: int, size: int, written: bytes) -> bytes:
        if not 1 <= number <= len(self.units) or self.units[number - 1].is_away:
            return bytes([function | _FAILED, _TARGET])
        unit = self.units[number - 1]
        if at < 0 or at + size > len(unit.raw):
            return bytes([function | _FAILED, _ADDRESS])
        unit.run_down(self._now_ns())
        if function == _READ:
            return bytes([_READ, size]) + bytes(unit.raw[at : at + size])
        if function == _WRITE and len(written) == size:
            unit.take(at, written, self._now_ns())
            return struct.pack(">BHH", _WRITE, at // 2 + _BASE, size // 2)
        return bytes([function | _FAILED, _FUNCTION])


@asynccontextmanager
async def agent_beside(
    gateway: Gateway,
    secrets: Mapping[str, str],
    plant: tuple[str, int],
    file: Path,
    *,
    poll_s: float,
    clock: Clock,
) -> AsyncIterator[Agent]:
    """Run the real edge agent for the devices behind a gateway, as long as the block lasts.

    Args:
        gateway: Is being served.
        secrets: Name and secret of each device, in the order of their units.
        plant: Host and port of its MQTT endpoint.
        file: Where the agent keeps what the plant has not got.
        poll_s: How often each device is read. [s]
        clock: The agent's.
    """
    devices = tuple(
        DeviceSettings(name, "127.0.0.1", gateway.port, unit, poll_s=poll_s)
        for unit, name in enumerate(secrets, start=1)
    )
    host, port = plant
    config = EdgeConfig(UplinkSettings(host, port), BufferSettings(file), SunSpecSettings(devices))
    buffer = Buffer(config.buffer, clock.now_ns())
    try:
        agent = Agent(config, secrets, buffer, clock)
        async with background() as beside:
            beside.start(agent.run(), f"edge agent at {gateway.port}")
            yield agent
    finally:
        buffer.close(clock.now_ns())
