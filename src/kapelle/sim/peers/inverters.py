"""Simulated SunSpec devices behind Modbus gateways, each with the real edge agent beside it."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kapelle.config import Config
from kapelle.model.blocks import Commands
from kapelle.model.enums import Metric
from kapelle.model.ids import Ints
from kapelle.runtime.clock import SystemClock
from kapelle.sim.agents import Answers
from kapelle.sim.peers.party import Ground, Hearing, Meeting, Party, Setpoints, Tally
from kapelle.sim.peers.sunspec import Gateway, Inverter, agent_beside
from kapelle.sim.telemetry import Reports

_UNITS = 40
"""Devices behind one gateway: they share its line, and are read one after the other."""


@dataclass(slots=True)
class _Told:
    """Listener of a gateway whose first unit is not the party's first device."""

    setpoints: Setpoints
    first: int

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        self.setpoints.on_setpoint(self.first + index, setpoint_w, until_ns)


def configured(config: Config, meeting: Meeting) -> Hearing:
    """See `Side`: their edge agents speak MQTT."""
    return Hearing(config)


def party(ground: Ground) -> Party:
    """See `Side`."""
    return Inverters(ground)


class Inverters:
    """The party of SunSpec devices."""

    is_read = True

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._setpoints = Setpoints(ground.rows)
        self._tally = Tally()
        block = ground.devices.enrolled
        rated_w = np.maximum(block.nameplate_up_w, block.nameplate_down_w)[ground.rows].tolist()
        self._gateways = [
            Gateway(
                rated_w[first : first + _UNITS],
                _Told(self._setpoints, first),
                now_ns=ground.now_ns,
            )
            for first in range(0, len(rated_w), _UNITS)
        ]
        units = [unit for gateway in self._gateways for unit in gateway.units]
        self._units: dict[int, Inverter] = dict(zip(ground.rows.tolist(), units, strict=True))

    async def run(self) -> None:
        """See `Party`."""
        start = self._ground.start
        named = list(zip(self._ground.names, self._ground.secrets, strict=True))
        async with AsyncExitStack() as stack:
            for number, gateway in enumerate(self._gateways):
                await stack.enter_async_context(gateway.serve())
                first = number * _UNITS
                beside = agent_beside(
                    gateway,
                    dict(named[first : first + _UNITS]),
                    (start.host, start.port),
                    Path(start.directory) / f"edge-{number}.db",
                    poll_s=start.plan.telemetry_period_s,
                    clock=SystemClock(),
                )
                await stack.enter_async_context(beside)
            await asyncio.Event().wait()

    def say(self, reports: Reports) -> None:
        """See `Party`: the registers show it to whoever reads them."""
        metrics = (Metric.POWER_W, Metric.SOC, Metric.EXPORT_WH, Metric.IMPORT_WH)
        columns = [reports.values[metric].tolist() for metric in metrics]
        for row, *measured in zip(reports.rows.tolist(), *columns, strict=True):
            self._units[row].measure(*measured)

    def answer(self, answers: Answers, at_ns: int) -> None:
        """See `Party`: the agent answers, by what it reads back."""

    def take(self, now_ns: int) -> tuple[Ints, Commands]:
        """See `Party`."""
        for gateway in self._gateways:
            gateway.tick()
        return self._setpoints.take(now_ns)

    def lose(self, rows: Sequence[int], share_deaf: float) -> None:
        """See `Party`: the gateway no longer reaches them, while the agent stays connected."""
        for row in rows:
            self._units[row].is_away = True

    def bring_back(self, rows: Sequence[int], within_s: float) -> None:
        """See `Party`."""
        for row in rows:
            self._units[row].is_away = False

    def leave(self) -> None:
        """See `Party`."""
        for gateway in self._gateways:
            gateway.cut()

    def connected(self) -> int:
        """See `Party`: those the agent can reach."""
        return sum(not unit.is_away for unit in self._units.values())

    def tally(self) -> Tally:
        """See `Party`: what the agent sends is its own affair."""
        return Tally(commands=self._setpoints.count)
