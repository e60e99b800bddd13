"""Simulated charging stations that speak OCPP 1.6J, each with a connection of its own."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.config import Config
from kapelle.model.blocks import Commands
from kapelle.model.enums import Metric
from kapelle.model.ids import Ints
from kapelle.sim.agents import Answers
from kapelle.sim.peers.ocpp import ChargePoint
from kapelle.sim.peers.party import Ground, Hearing, Meeting, Party, Setpoints, Tally
from kapelle.sim.telemetry import Reports

_FIRST_S = 1.0
_ATTEMPTS_MAX = 10


def configured(config: Config, meeting: Meeting) -> Hearing:
    """See `Side`: simulated stations report at the fleet's cadence, and take watts."""
    settings = OcppSettings(port=0, heartbeat_s=10, sample_s=0, charging_rate_unit="W")
    return Hearing(replace(config, ocpp=settings))


def party(ground: Ground) -> Party:
    """See `Side`."""
    return Stations(ground)


class Stations:
    """The party of charging stations. Listener of each."""

    is_read = False

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._setpoints = Setpoints(ground.rows)
        self._tally = Tally()
        named = zip(ground.names, ground.secrets, strict=True)
        self._points = [
            ChargePoint(index, name, secret, self, now_ns=ground.now_ns)
            for index, (name, secret) in enumerate(named)
        ]
        self._place = {row: index for index, row in enumerate(ground.rows.tolist())}
        self._free = [asyncio.Event() for _ in self._points]
        """Set while a station has its network."""
        self._attempts = [0] * len(self._points)
        for free in self._free:
            free.set()

    async def run(self) -> None:
        """See `Party`."""
        async with asyncio.TaskGroup() as group:
            for point in self._points:
                group.create_task(self._stay(point))

    async def _stay(self, point: ChargePoint) -> None:
        start, rng, index = self._ground.start, self._ground.rng, point.index
        await asyncio.sleep(rng.uniform(0.0, len(self._points) / start.connects_per_s))
        while True:
            await self._free[index].wait()
            try:
                await point.run(start.host, start.ports[self._ground.protocol])
                self._tally.drops += 1
            except ConnectionRefusedError:
                self._tally.refused += 1
            except OSError:
                self._tally.drops += 1
            pause_s = min(start.back_off_s_max, _FIRST_S * 2.0 ** self._attempts[index])
            self._attempts[index] = min(self._attempts[index] + 1, _ATTEMPTS_MAX)
            await asyncio.sleep(rng.uniform(0.0, pause_s))

    def say(self, reports: Reports) -> None:
        """See `Party`."""
        power_w = reports.values[Metric.POWER_W].tolist()
        import_wh = reports.values[Metric.IMPORT_WH].tolist()
        for row, watts, wh in zip(reports.rows.tolist(), power_w, import_wh, strict=True):
            self._points[self._place[row]].measure(watts, wh)
            self._tally.published += 1

    def answer(self, answers: Answers, at_ns: int) -> None:
        """See `Party`: a station answers by itself, and shows what it does in its schedule."""

    def take(self, now_ns: int) -> tuple[Ints, Commands]:
        """See `Party`."""
        return self._setpoints.take(now_ns)

    def lose(self, rows: Sequence[int], share_deaf: float) -> None:
        """See `Party`. Every connection breaks: WebSocket pings would find the deaf at once."""
        for row in rows:
            self._free[self._place[row]].clear()
            self._points[self._place[row]].cut()

    def bring_back(self, rows: Sequence[int], within_s: float) -> None:
        """See `Party`."""
        loop = asyncio.get_running_loop()
        for row in rows:
            index = self._place[row]
            self._attempts[index] = 0
            loop.call_later(self._ground.rng.uniform(0.0, within_s), self._free[index].set)

    def leave(self) -> None:
        """See `Party`."""
        for point in self._points:
            point.cut()

    def connected(self) -> int:
        """See `Party`."""
        return sum(point.up for point in self._points)

    def tally(self) -> Tally:
        """See `Party`."""
        waits_s, self._tally.waits_s = self._tally.waits_s, []
        forgotten = sum(point.overwritten for point in self._points)
        return replace(
            self._tally, commands=self._setpoints.count, forgotten=forgotten, waits_s=waits_s
        )

    def on_up(self, index: int) -> None:
        """Count it."""
        self._tally.connects += 1
        self._attempts[index] = 0

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        """Keep it for the next step."""
        self._setpoints.on_setpoint(index, setpoint_w, until_ns)

    def on_acked(self, index: int, waited_s: float) -> None:
        """Note how long it took."""
        self._tally.wait(waited_s)
