"""One SunSpec device behind a line: reading it, and giving it setpoints."""

import math
from typing import NamedTuple

from kapelle.adapters.sunspec import control, frames, readings
from kapelle.adapters.sunspec.codec import Block
from kapelle.adapters.sunspec.control import Refused, Step, Way
from kapelle.adapters.sunspec.link import Declined, Registers
from kapelle.adapters.sunspec.settings import DeviceSettings
from kapelle.adapters.sunspec.survey import UNKNOWN, Moved, Surveyed, read, survey, telling
from kapelle.model.enums import AckStatus, Metric
from kapelle.ports import Clock

_LOOKS = 6
_LOOK_S = 0.5
"""How often, and how long apart, a device is read back until it shows what it was written. [s]"""


class Said(NamedTuple):
    """What became of a setpoint."""

    status: AckStatus
    reason: str = ""


class Unit:
    """A device, or one of several behind a gateway.

    Everything raises LinkLost, where the line is gone, Declined, where the device says no, and
    NotSunSpec, where it is not the one that was configured, or not one at all.
    """

    def __init__(self, line: Registers, settings: DeviceSettings, clock: Clock) -> None:
        self.settings = settings
        self.found: Surveyed | None = None
        self.may_have_written = False
        """Whether the last setpoint began to be written: nobody knows what a device holds whose
        line is lost after that."""
        self._line = line
        self._clock = clock

    async def poll(self, ours_w: float) -> tuple[dict[Metric, float], int]:
        """Return what the device measures, and when. [UTC ns]

        Args:
            ours_w: The setpoint it was given last; NaN for none. [W]
        """
        blocks = await self._read_all()
        now_ns = self._clock.now_ns()
        assert self.found is not None
        said = readings.metrics(blocks, self.settings.measure)
        standing_w = control.standing_w(self.found.way, blocks)
        if not math.isnan(standing_w):
            said[Metric.SETPOINT_W] = standing_w
        if said:
            said[Metric.MODE] = float(readings.mode(blocks, standing_w, ours_w))
        return said, now_ns

    async def tell(self, setpoint_w: float, revert_s: float, deadline_ns: int) -> Said:
        """Give the device a setpoint, or release it (NaN), and read back what it made of that.

        Either it stands as it was asked, or it is taken back.

        Args:
            setpoint_w: Positive towards the grid. [W]
            revert_s: How long it holds without another one; NaN where nobody said. [s]
            deadline_ns: It is not begun later. [UTC ns]
        """
        self.may_have_written = False
        blocks = await self._read_all()
        assert self.found is not None
        way = self.found.way
        if way is None:
            return Said(AckStatus.REJECTED, "the device has no model that takes setpoints")
        is_release = math.isnan(setpoint_w)
        if not is_release and (why := self._unsafe(way, blocks, revert_s)):
            return Said(AckStatus.REJECTED, why)
        try:
            written = control.steps(way, blocks, setpoint_w, revert_s)
        except Refused as refused:
            return Said(AckStatus.REJECTED, str(refused))
        if self._clock.now_ns() > deadline_ns:
            return Said(AckStatus.EXPIRED, "it expired before the device could be written")
        self.may_have_written = True
        try:
            for step in written:
                await self._write(way, step)
            difference = await self._look(way, written)
        except Declined as declined:
            if declined.code not in (*UNKNOWN, frames.Exceptional.ILLEGAL_VALUE):
                raise
            difference = str(declined)
        if not difference:
            return Said(AckStatus.APPLIED)
        if not is_release:
            for step in control.steps(way, blocks, math.nan, revert_s):
                await self._write(way, step)
        return Said(AckStatus.REJECTED, difference)

    async def _read_all(self) -> dict[int, Block]:
        """Read every block of use; find the models anew where they moved."""
        if self.found is None or self.found.connection != self._line.connection:
            await self._survey()
        try:
            return await self._blocks()
        except Moved:
            await self._survey()
        except Declined as declined:
            if declined.code not in UNKNOWN:
                raise
            await self._survey()
        return await self._blocks()

    async def _survey(self) -> None:
        self.found = None
        self.found = await survey(self._line, self.settings)

    async def _blocks(self) -> dict[int, Block]:
        assert self.found is not None
        chosen = telling(self.found, self.settings)
        return {model: await self._block(model) for model in chosen}

    async def _block(self, model: int) -> Block:
        assert self.found is not None
        return await read(self._line, self.settings.unit, self.found, model)

    async def _write(self, way: Way, step: Step) -> None:
        assert self.found is not None
        address, _ = self.found.places[way.model]
        for offset, raw in control.runs(way, step):
            await self._line.write(
                self.settings.unit, address + offset, raw, on=self.found.connection
            )

    async def _look(self, way: Way, written: list[Step]) -> str:
        """Return where the device is not as it was written, after giving it time."""
        difference = ""
        for look in range(_LOOKS):
            if look:
                await self._clock.sleep(_LOOK_S)
            block = await self._block(way.model)
            if again := control.restart(way, written, block):
                await self._write(way, again)
                difference = f"{way.remaining} shows that the revert timer does not run"
            elif not (difference := control.differs(written, block)):
                break
        return difference

    def _unsafe(self, way: Way, blocks: dict[int, Block], revert_s: float) -> str:
        """Return why a setpoint could stand for ever; empty where it could not."""
        if not control.has_timer(way, blocks):
            if self.settings.agent_reverts:
                return ""
            return "the device has no revert timer; see agent_reverts"
        return "a setpoint without revert_s" if math.isnan(revert_s) else ""
