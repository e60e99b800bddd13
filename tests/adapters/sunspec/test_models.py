"""The table of points against the model definitions that pysunspec2 carries."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import sunspec2
from sunspec2.device import Model

from kapelle.adapters.sunspec import models
from kapelle.adapters.sunspec.codec import Block, number, whole
from kapelle.adapters.sunspec.models import MODELS, READ_MAX, REPEATED, Point

DEFINED = Path(sunspec2.__file__).parent / "models" / "json"
KINDS = {
    "int16": models.INT16,
    "uint16": models.UINT16,
    "count": models.UINT16,
    "enum16": models.ENUM16,
    "bitfield16": models.BITFIELD16,
    "sunssf": models.SUNSSF,
    "int32": models.INT32,
    "uint32": models.UINT32,
    "acc32": models.ACC32,
    "uint64": models.UINT64,
    "acc64": models.ACC64,
    "string": models.STRING,
}


def defined(group: dict[str, Any]) -> dict[str, Point]:
    """Return the points of a group as the definition has them."""
    found, offset = {}, 0
    for point in group["points"]:
        if point["type"] in KINDS:
            kind = KINDS[point["type"]]
            size = point["size"] if kind is models.STRING else 0
            found[point["name"]] = Point(offset, kind, point.get("sf", ""), size)
        offset += point["size"]
    return found


def definition(model: int) -> dict[str, Any]:
    group: dict[str, Any] = json.loads((DEFINED / f"model_{model}.json").read_text())["group"]
    return group


@pytest.mark.parametrize("model", MODELS)
def test_points_lie_where_the_definition_puts_them(model: int) -> None:
    every = defined(definition(model))
    assert {name: every[name] for name in MODELS[model]} == dict(MODELS[model])


@pytest.mark.parametrize("model", REPEATED)
def test_repeated_groups_lie_where_the_definition_puts_them(model: int) -> None:
    group = REPEATED[model]
    whole = definition(model)
    (inner,) = whole["groups"]
    every = defined(inner)
    assert {name: every[name] for name in group.points} == dict(group.points)
    assert group.first == sum(point["size"] for point in whole["points"])
    assert group.size == sum(point["size"] for point in inner["points"])


def test_one_read_reaches_every_point_and_its_scale_factor() -> None:
    for points in MODELS.values():
        for point in points.values():
            assert point.offset + (point.kind.registers or point.size) <= READ_MAX
            assert not point.scale or point.scale in points


PROMISED = {1, 101, 102, 103, 120, 121, 122, 123, 124, 160, 201, 202, 203, 204}
PROMISED |= {701, 702, 703, 704, 713, 714, 802}
WORDS = (0, 1, 7, 100, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0xFFFE, 0xFFFD, 2, 3)
"""Half of all registers: what is missing, what is nearly so, and what is likely a scale factor."""


@pytest.mark.parametrize("model", sorted(PROMISED))
def test_whatever_registers_hold_pysunspec2_reads_the_same(model: int) -> None:
    draw = random.Random(model)
    count = sum(point["size"] for point in definition(model)["points"])
    seen = 0
    for _ in range(40):
        words = [
            draw.choice(WORDS) if draw.random() < 0.5 else draw.randrange(1 << 16)
            for _ in range(count)
        ]
        words[:2] = [model, count - 2]
        if model in REPEATED:
            words[MODELS[model][REPEATED[model].counted_by].offset] = 0
        raw = b"".join(word.to_bytes(2, "big") for word in words)
        theirs = Model(model, data=raw, model_len=count - 2)
        for name, point in MODELS[model].items():
            if point.kind is models.STRING:
                continue
            said = theirs.points[name].value
            if point.kind in (models.ACC32, models.ACC64) and said == 0:
                said = None  # It never counted.
            assert whole(Block(model, raw), name) == said, name
            scale = theirs.points[point.scale].value if point.scale else 0
            if said is not None and scale is not None and abs(scale) <= 10:
                seen += 1
                wanted = pytest.approx(said * 10.0**scale, rel=1e-12)
                assert number(Block(model, raw), name) == wanted, name
    assert seen or model == 1
