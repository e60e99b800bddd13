"""Blocks of registers for tests, point by point."""

from kapelle.adapters.sunspec import models
from kapelle.adapters.sunspec.codec import Block, registers
from kapelle.adapters.sunspec.models import MODELS, REPEATED, Point


def block(model: int, **points: int | str) -> Block:
    """Return a model's block; what is not named the device does not have."""
    length = max(p.offset + (p.kind.registers or p.size) for p in MODELS[model].values())
    raw = bytearray(2 * length)
    for point in MODELS[model].values():
        size = point.kind.registers or point.size
        raw[2 * point.offset : 2 * (point.offset + size)] = point.kind.missing.to_bytes(
            2 * size, "big"
        )
    raw[:4] = model.to_bytes(2, "big") + (length - 2).to_bytes(2, "big")
    for name, value in points.items():
        put(raw, MODELS[model][name], value)
    return Block(model, bytes(raw))


def with_group(made: Block, *members: dict[str, int | str]) -> Block:
    """Return a block with repetitions of its group behind it."""
    group = REPEATED[made.model]
    raw = bytearray(made.raw.ljust(2 * group.first, b"\0"))
    put(raw, MODELS[made.model][group.counted_by], len(members))
    for member in members:
        part = bytearray(2 * group.size)
        for name, value in member.items():
            put(part, group.points[name], value)
        raw += part
    return Block(made.model, bytes(raw))


def put(raw: bytearray, point: Point, value: int | str) -> None:
    at = 2 * point.offset
    if isinstance(value, str):
        assert point.kind is models.STRING
        raw[at : at + 2 * point.size] = value.encode().ljust(2 * point.size, b"\0")
    else:
        coded = registers(point.kind, value)
        raw[at : at + len(coded)] = coded
