"""One SunSpec device behind a line: finding its models, reading it, giving it setpoints."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kapelle.adapters.sunspec import codec, control, frames, readings
from kapelle.adapters.sunspec.codec import Block
from kapelle.adapters.sunspec.control import Refused, Step, Way
from kapelle.adapters.sunspec.link import Declined, Registers
from kapelle.adapters.sunspec.models import INVERTERS, METERS, READ_MAX
from kapelle.adapters.sunspec.settings import DeviceSettings
from kapelle.errors import KapelleError
from kapelle.model.enums import AckStatus, Metric
from kapelle.ports import Clock

_MARKER = b"SunS"
_BASES = (40_000, 50_000, 0)
_END = 0xFFFF
_MODELS_MAX = 64
"""A chain of models that is longer goes round in circles."""
_LOOKS = 6
_LOOK_S = 0.5
"""How often, and how long apart, a device is read back until it shows what it was written. [s]"""
_UNKNOWN = (frames.Exceptional.ILLEGAL_ADDRESS, frames.Exceptional.ILLEGAL_FUNCTION)


class NotSunSpec(KapelleError):
    """What answers there is not the device that was configured; the message says why."""


class Said(NamedTuple):
    """What became of a setpoint."""

    status: AckStatus
    reason: str = ""


@dataclass(slots=True)
class Surveyed:
    """What a device is, and where its models lie."""

    maker: str = ""
    model: str = ""
    version: str = ""
    serial: str = ""
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Model -> address and length of its first block."""
    way: Way | None = None
    """How it takes setpoints."""
    has_timer: bool = False
    """Whether it takes them back by itself."""


class Unit:
    """A device, or one of several behind a gateway.

    Everything raises LinkLost, where the line is gone, and Declined, where the device says no.
    """

    def __init__(self, line: Registers, settings: DeviceSettings, clock: Clock) -> None:
        self.settings = settings
        self.found: Surveyed | None = None
        self.may_have_written = False
        """Whether the last setpoint began to be written: nobody knows what a device holds whose
        line is lost after that."""
        self._line = line
        self._clock = clock
        self._connection = -1

    async def poll(self, ours_w: float) -> tuple[dict[Metric, float], int]:
        """Return what the device measures, and when. [UTC ns]

        Args:
            ours_w: The setpoint it was given last; NaN for none. [W]

        Raises:
            NotSunSpec: It is not the device that was configured, or not one at all.
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
            if declined.code not in (*_UNKNOWN, frames.Exceptional.ILLEGAL_VALUE):
                raise
            difference = str(declined)
        if not difference:
            return Said(AckStatus.APPLIED)
        if not is_release:
            for step in control.steps(way, blocks, math.nan, revert_s):
                await self._write(way, step)
        return Said(AckStatus.REJECTED, difference)

    async def survey(self) -> Surveyed:
        """Find the models of the device. Raises NotSunSpec."""
        self.found = None
        connection = self._line.connection
        address = await self._base()
        found = Surveyed()
        for _ in range(_MODELS_MAX):
            model, length = await self._head(address)
            if model == _END:
                break
            # Of several blocks of a model the first speaks for the device.
            found.places.setdefault(model, (address, length))
            address += 2 + length
            if address > 0xFFFF:
                raise NotSunSpec("the chain of its models leaves the address space")
        else:
            raise NotSunSpec(f"it has more than {_MODELS_MAX} models, or their chain is a ring")
        if 1 not in found.places:
            raise NotSunSpec("it lacks model 1, which says what it is")
        self._connection = max(connection, self._line.connection)
        common = await self._block(1, found)
        found.maker, found.model, found.version, found.serial = (
            codec.text(common, name) for name in ("Mn", "Md", "Vr", "SN")
        )
        wanted = self.settings.serial
        if wanted and found.serial != wanted:
            raise NotSunSpec(f"its serial number is {found.serial!r}, not {wanted!r}")
        blocks = {model: await self._block(model, found) for model in _controlling(found)}
        found.way = control.way_of(blocks, self.settings.control)
        found.has_timer = found.way is not None and control.has_timer(found.way, blocks)
        self.found = found
        return found

    async def _read_all(self) -> dict[int, Block]:
        """Read every block of use; find the models anew where they moved."""
        if self.found is None or self._connection != self._line.connection:
            await self.survey()
        try:
            return await self._blocks()
        except _Moved:
            await self.survey()
        except Declined as declined:
            if declined.code not in _UNKNOWN:
                raise
            await self.survey()
        try:
            return await self._blocks()
        except _Moved as moved:
            self.found = None
            raise NotSunSpec("its models move while it is read") from moved

    async def _blocks(self) -> dict[int, Block]:
        assert self.found is not None
        chosen = _telling(self.found, self.settings)
        return {model: await self._block(model, self.found) for model in chosen}

    async def _block(self, model: int, found: Surveyed) -> Block:
        address, length = found.places[model]
        count = min(2 + length, READ_MAX)
        raw = await self._line.read(self.settings.unit, address, count)
        head = int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:4], "big")
        if head != (model, length):
            raise _Moved
        return Block(model, raw)

    async def _base(self) -> int:
        declined: Declined | None = None
        for base in _BASES:
            try:
                if await self._line.read(self.settings.unit, base, 2) == _MARKER:
                    return base + 2
            except Declined as error:
                if error.code not in (*_UNKNOWN, frames.Exceptional.ILLEGAL_VALUE):
                    raise
                declined = error
        told = f" ({declined})" if declined is not None else ""
        raise NotSunSpec(f"no SunSpec map begins at {', '.join(map(str, _BASES))}{told}")

    async def _head(self, address: int) -> tuple[int, int]:
        try:
            raw = await self._line.read(self.settings.unit, address, 2)
        except Declined as declined:
            if declined.code not in _UNKNOWN:
                raise
            # Some devices leave out the length of the end marker.
            raw = await self._line.read(self.settings.unit, address, 1) + b"\0\0"
            if raw[:2] != b"\xff\xff":
                raise
        return int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:], "big")

    async def _write(self, way: Way, step: Step) -> None:
        assert self.found is not None
        address, _ = self.found.places[way.model]
        for offset, raw in control.runs(way, step):
            await self._line.write(self.settings.unit, address + offset, raw)

    async def _look(self, way: Way, written: list[Step]) -> str:
        """Return where the device is not as it was written, after giving it time."""
        assert self.found is not None
        difference = ""
        for look in range(_LOOKS):
            if look:
                await self._clock.sleep(_LOOK_S)
            block = await self._block(way.model, self.found)
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


class _Moved(Exception):
    """Another model lies where one lay."""


def _telling(found: Surveyed, settings: DeviceSettings) -> list[int]:
    """Return the models to read each time."""
    every = {_first(INVERTERS, found), 122, 124, 703, 713, 802}
    if settings.measure == "storage":
        every.add(_first((714, 160), found))
    elif settings.measure != "inverter":
        every.add(_first(METERS, found))
    if found.way is not None:
        sources = control.REFERENCES[found.way.model]
        every |= {found.way.model, *(model for model, _ in sources)}
    return sorted(model for model in every if model in found.places)


def _first(models: Sequence[int], found: Surveyed) -> int:
    """Return the first model a device has; 0 for none."""
    return next((model for model in models if model in found.places), 0)


def _controlling(found: Surveyed) -> list[int]:
    return [model for model in (120, 121, 123, 124, 702, 704) if model in found.places]
