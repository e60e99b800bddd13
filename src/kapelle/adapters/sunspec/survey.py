"""Finding out what a SunSpec device is, and where its models lie: they move with every update."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kapelle.adapters.sunspec import codec, control, frames
from kapelle.adapters.sunspec.codec import Block
from kapelle.adapters.sunspec.control import Way
from kapelle.adapters.sunspec.link import Declined, Registers
from kapelle.adapters.sunspec.models import INVERTERS, METERS, READ_MAX
from kapelle.adapters.sunspec.settings import DeviceSettings
from kapelle.errors import KapelleError

UNKNOWN = (frames.Exceptional.ILLEGAL_ADDRESS, frames.Exceptional.ILLEGAL_FUNCTION)
"""What a device says where it has no such registers."""
_MARKER = b"SunS"
_BASES = (40_000, 50_000, 0)
_END = 0xFFFF
_MODELS_MAX = 64
"""A chain of models that is longer goes round in circles."""
_CONTROLLING = (120, 121, 123, 124, 702, 704)


class NotSunSpec(KapelleError):
    """What answers there is not the device that was configured; the message says why."""


class Moved(NotSunSpec):
    """Another model lies where one lay: the device was started anew, or updated."""


@dataclass(slots=True)
class Surveyed:
    """What a device is, and where its models lie."""

    connection: int = 0
    """On which it was found."""
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


async def survey(line: Registers, settings: DeviceSettings) -> Surveyed:
    """Find the models of a device. Raises NotSunSpec, LinkLost, Declined."""
    address = await _base(line, settings.unit)
    found = Surveyed(line.connection)
    for _ in range(_MODELS_MAX):
        model, length = await _head(line, settings.unit, address)
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
    common = await read(line, settings.unit, found, 1)
    found.maker, found.model, found.version, found.serial = (
        codec.text(common, name) for name in ("Mn", "Md", "Vr", "SN")
    )
    if settings.serial and found.serial != settings.serial:
        raise NotSunSpec(f"its serial number is {found.serial!r}, not {settings.serial!r}")
    blocks = {
        model: await read(line, settings.unit, found, model)
        for model in _CONTROLLING
        if model in found.places
    }
    found.way = control.way_of(blocks, settings.control)
    found.has_timer = found.way is not None and control.has_timer(found.way, blocks)
    return found


async def read(line: Registers, unit: int, found: Surveyed, model: int) -> Block:
    """Read a model. Raises Moved where it is no longer there, LinkLost, Declined."""
    address, length = found.places[model]
    raw = await line.read(unit, address, min(2 + length, READ_MAX))
    if (int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:4], "big")) != (model, length):
        raise Moved(f"model {model} is no longer at {address}")
    return Block(model, raw)


def telling(found: Surveyed, settings: DeviceSettings) -> list[int]:
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


async def _base(line: Registers, unit: int) -> int:
    told = ""
    for base in _BASES:
        try:
            if await line.read(unit, base, 2) == _MARKER:
                return base + 2
        except Declined as declined:
            if declined.code not in (*UNKNOWN, frames.Exceptional.ILLEGAL_VALUE):
                raise
            told = f" ({declined})"
    raise NotSunSpec(f"no SunSpec map begins at {', '.join(map(str, _BASES))}{told}")


async def _head(line: Registers, unit: int, address: int) -> tuple[int, int]:
    try:
        raw = await line.read(unit, address, 2)
    except Declined as declined:
        if declined.code not in UNKNOWN:
            raise
        # Some devices leave out the length of the end marker.
        raw = await line.read(unit, address, 1) + b"\0\0"
        if raw[:2] != b"\xff\xff":
            raise
    return int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:], "big")
