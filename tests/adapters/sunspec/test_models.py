"""The table of points against the model definitions that pysunspec2 carries."""

import json
from pathlib import Path
from typing import Any

import pytest
import sunspec2

from kapelle.adapters.sunspec import models
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
