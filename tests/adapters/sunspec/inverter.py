"""A SunSpec device nobody here wrote: the registers of pysunspec2's `device_1547`, encoded by it,
served by pymodbus. Only the clockwork behind the registers is ours."""

import json
import time
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sunspec2
    from sunspec2.file.client import FileClientModel

RECORDED = Path(sunspec2.__file__).parent / "tests" / "test_data" / "device_1547.json"
BATTERY: dict[int, dict[str, object]] = {
    701: {"InvSt": 3, "W": -2000, "WMaxLimPctEna": None},
    702: {"WChaRteMaxRtg": 5000, "WDisChaRteMaxRtg": 5000},
    704: {
        "WSetEna": 0,
        "WSetMod": 1,
        "WSet": 0,
        "WSet_SF": 0,
        "WSetEnaRvrt": 0,
        "WSetRvrtTms": 0,
        "WSetRvrtRem": 0,
    },
    713: {"WHRtg": 10_000, "SoC": 550, "SoH": 990, "Sta": 0, "WH_SF": 0, "Pct_SF": -1},
}
"""What turns the recorded inverter into a battery: the recording leaves these points out."""


def recorded() -> list[dict[str, Any]]:
    """Return the models of the recorded device, without the end marker."""
    models: list[dict[str, Any]] = json.loads(RECORDED.read_text())["models"]
    return [model for model in models if model["ID"] != 0xFFFF]


@dataclass
class Inverter:
    """One device: its registers, and what they do by themselves."""

    changed: Mapping[int, Mapping[str, object]] = field(default_factory=lambda: BATTERY)
    models: list[dict[str, Any]] = field(default_factory=recorded)
    base: int = 40_000
    now: Callable[[], float] = time.monotonic
    writes: list[tuple[int, list[int]]] = field(default_factory=list)
    """Every write request, by address."""
    asked: int = 0
    decline: Callable[[int, int, bool], int] = lambda function, address, writes: 0
    """Makes an exception code of a request, 0 for none."""
    silent: bool = False

    def __post_init__(self) -> None:
        self._models: dict[int, FileClientModel] = {}
        self._until: dict[str, float] = {}
        self.registers: list[int] = []
        self.lay_out(self.base)

    def lay_out(self, base: int) -> None:
        """Put the models one after the other, as after a start."""
        self.base = base
        raw = b"SunS"
        for recorded_model in self.models:
            model = FileClientModel(model_id=recorded_model["ID"], data=recorded_model)
            for name, value in self.changed.get(model.model_id, {}).items():
                if name in model.points:
                    model.points[name].value = value
            coded = bytearray(model.get_mb())
            coded[2:4] = (len(coded) // 2 - 2).to_bytes(2, "big")
            model.model_addr = base + len(raw) // 2
            self._models[model.model_id] = model
            raw += bytes(coded)
        raw += b"\xff\xff\0\0"
        cut = [raw[at : at + 2] for at in range(0, len(raw), 2)]
        self.registers[:] = [int.from_bytes(two, "big") for two in cut]

    def get(self, model: int, name: str) -> int:
        """Return a point as it stands in the registers, with sign."""
        at, point = self._place(model, name)
        raw = b"".join(word.to_bytes(2, "big") for word in self.registers[at : at + point.len])
        return int.from_bytes(raw, "big", signed=point.pdef["type"].startswith("int"))

    def put(self, model: int, name: str, value: int) -> None:
        """Set a point."""
        at, point = self._place(model, name)
        signed = value < 0
        raw = value.to_bytes(2 * point.len, "big", signed=signed)
        for word in range(point.len):
            self.registers[at + word] = int.from_bytes(raw[2 * word : 2 * word + 2], "big")

    def _place(self, model: int, name: str) -> tuple[int, Any]:
        found = self._models[model]
        point = found.points[name]
        return found.model_addr - self.base + point.offset, point

    async def touch(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Let time pass for the registers, before a request is carried out."""
        self.registers = registers
        self.asked += 1
        if code := self.decline(function, address, values is not None):
            return ExcCodes(code)
        if values is not None:
            self.writes.append((address, [int(value) for value in values]))
            self._wind(address, count, [int(value) for value in values])
        self._run_down()
        return None

    def _wind(self, address: int, count: int, values: list[int]) -> None:
        """Start the revert timer of what is enabled, or set, by this write."""
        for model, enable, timer in TIMERS:
            if model not in self._models:
                continue
            ena_at, _ = self._place(model, enable)
            timer_at, point = self._place(model, timer)
            at = address - self.base
            if at <= ena_at < at + count and values[ena_at - at]:
                self._until[enable] = self.now() + self.get(model, timer)
            elif at <= timer_at < at + count and self.get(model, enable):
                words = values[timer_at - at : timer_at - at + point.len]
                seconds = int.from_bytes(b"".join(w.to_bytes(2, "big") for w in words), "big")
                self._until[enable] = self.now() + seconds

    def _run_down(self) -> None:
        for model, enable, timer in TIMERS:
            if model not in self._models or enable not in self._until:
                continue
            left = self._until[enable] - self.now()
            if model == 704:
                self.put(model, timer.replace("RvrtTms", "RvrtRem"), max(0, round(left)))
            if left <= 0:
                self.put(model, enable, 0)
                del self._until[enable]

    def tick(self) -> None:
        """Let time pass without a request."""
        self._run_down()


TIMERS = (
    (704, "WSetEna", "WSetRvrtTms"),
    (704, "WMaxLimPctEna", "WMaxLimPctRvrtTms"),
    (124, "StorCtl_Mod", "InOutWRte_RvrtTms"),
    (123, "WMaxLim_Ena", "WMaxLimPct_RvrtTms"),
)


@asynccontextmanager
async def served(units: Mapping[int, Inverter], port: int = 0) -> AsyncIterator[int]:
    """Serve devices behind one socket, by unit id; yield the port."""
    devices = [
        SimDevice(
            id=number,
            simdata=[SimData(unit.base, values=list(unit.registers), datatype=DataType.REGISTERS)],
            action=unit.touch,
        )
        for number, unit in units.items()
    ]
    server = ModbusTcpServer(devices, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        yield server.transport.sockets[0].getsockname()[1]
    finally:
        await server.shutdown()
