"""SunSpec registers <-> values. What a device does not have is NaN, never 0."""

import math
from typing import NamedTuple

from kapelle.adapters.sunspec.models import MODELS, REPEATED, Kind, Point

_SCALE_MAX = 10
"""Scale factors lie between -10 and 10; anything else is no scale factor."""


class Block(NamedTuple):
    """The registers of one model, read at once, its number and length first."""

    model: int
    raw: bytes


def number(block: Block, name: str) -> float:
    """Return a point with its scale factor, NaN where it has none. [unit of the point]"""
    point = MODELS[block.model][name]
    return _scaled(block, point, whole(block, name))


def whole(block: Block, name: str) -> int | None:
    """Return a point as it stands in the registers; None where the device does not have it."""
    return _whole(block.raw, MODELS[block.model][name])


def text(block: Block, name: str) -> str:
    """Return a text without what fills it up; bytes that are no ASCII show as such."""
    point = MODELS[block.model][name]
    return _text(block.raw, point)


def repeated(block: Block, name: str) -> list[float]:
    """Return a point of every repetition of a model's group, as far as it was read."""
    point = REPEATED[block.model].points[name]
    return [_scaled(block, point, _whole(raw, point)) for raw in _repetitions(block)]


def repeated_text(block: Block, name: str) -> list[str]:
    """Return a text of every repetition of a model's group, as far as it was read."""
    point = REPEATED[block.model].points[name]
    return [_text(raw, point) for raw in _repetitions(block)]


def raw_of(block: Block, name: str, value: float) -> int | None:
    """Return the whole number that stands for a value; None where the point cannot hold it.

    It cannot where it has a scale factor the device does not say, or too few bits.
    """
    point = MODELS[block.model][name]
    scale = _scale(block, point)
    if scale is None or not math.isfinite(value):
        return None
    raw = round(value / 10.0**scale)
    kind = point.kind
    bits = 16 * kind.registers
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if kind.signed else (0, (1 << bits) - 1)
    return raw if low <= raw <= high and raw & ((1 << bits) - 1) != kind.missing else None


def registers(kind: Kind, raw: int) -> bytes:
    """Return a whole number as it is written."""
    return raw.to_bytes(2 * kind.registers, "big", signed=kind.signed)


def _scaled(block: Block, point: Point, raw: int | None) -> float:
    scale = _scale(block, point)
    # A value whose scale factor is missing could be anything.
    if raw is None or scale is None:
        return math.nan
    # Dividing keeps 2301 at -1 as 230.1, which multiplying by 0.1 would not.
    return raw * 10.0**scale if scale >= 0 else raw / 10.0**-scale


def _scale(block: Block, point: Point) -> int | None:
    if not point.scale:
        return 0
    scale = whole(block, point.scale)
    return scale if scale is not None and abs(scale) <= _SCALE_MAX else None


def _whole(raw: bytes, point: Point) -> int | None:
    kind = point.kind
    cut = raw[2 * point.offset : 2 * (point.offset + kind.registers)]
    # Older revisions of a model are shorter: what they lack is missing.
    if len(cut) < 2 * kind.registers or int.from_bytes(cut, "big") == kind.missing:
        return None
    return int.from_bytes(cut, "big", signed=kind.signed)


def _text(raw: bytes, point: Point) -> str:
    cut = raw[2 * point.offset : 2 * (point.offset + point.size)]
    return cut.split(b"\0")[0].decode("ascii", "backslashreplace").strip()


def _repetitions(block: Block) -> list[bytes]:
    group = REPEATED[block.model]
    count = whole(block, group.counted_by) or 0
    ends = (2 * (group.first + group.size * (n + 1)) for n in range(count))
    cut: list[bytes] = []
    for end in ends:
        if end > len(block.raw):
            break
        cut.append(block.raw[end - 2 * group.size : end])
    return cut
