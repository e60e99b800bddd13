"""How the registry's devices and resources reach the columns."""

from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import CLUSTERS, Fleet
from kapelle.fleet.traits import particulars
from kapelle.model.blocks import Enrolled, Ragged
from kapelle.model.plant import Members

_NAMED = ("vendor", "zone", "feeder", "provider", "site")
_PLAIN = (
    "kind",
    "nameplate_up_w",
    "nameplate_down_w",
    "energy_wh",
    "reserve_soc",
    "ramp_w_per_s",
    "revert_s",
    "report_every_s",
    "tier",
    "steps",
)
_METER = ("meter_rollover_wh", "meter_resolution_wh")
"""0 stands for what is not known: zeros take no memory."""


def apply_enrolled(fleet: Fleet, block: Enrolled) -> None:
    """Replace what is known about each device by its later row; what it reported stays."""
    if not len(block):
        return
    rows = (block.device_no // fleet.partitions).astype(np.intp)
    fleet.reserve(int(rows.max()) + 1)
    given: dict[str, NDArray[Any]] = {"active": block.active != 0}
    given |= {name: getattr(block, name) for name in _PLAIN}
    given |= {name: np.nan_to_num(getattr(block, name)) for name in _METER}
    given |= particulars(block)
    given |= {
        name: np.array(_codes(fleet.names[name], getattr(block, name)), np.int32) for name in _NAMED
    }
    changes = fleet.enrolments[rows] == 0
    for name, values in given.items():
        column = getattr(fleet, name)
        was, now = column[rows], values.astype(column.dtype)
        changes |= (was != now) & ((was == was) | (now == now))
        column[rows] = now
    # What the outbox tells twice is no new version.
    fleet.enrolments[rows[changes]] += 1
    fleet.cluster[rows] = [crc32(name) % CLUSTERS for name in block.feeder]


def _codes(table: list[str], names: Ragged) -> list[int]:
    """Return the place of each name in the table, which grows by those it has not seen."""
    # Built anew each time: kept, it would cost 100 bytes a site for something that rarely happens.
    places = {name: place for place, name in enumerate(table)}
    codes = []
    for raw in names:
        name = raw.decode("utf-8", "replace")
        place = places.get(name)
        if place is None:
            place = places[name] = len(table)
            table.append(name)
        codes.append(place)
    return codes


def apply_members(fleet: Fleet, members: Members) -> None:
    """Replace the devices of a resource; one without devices here is forgotten."""
    device_nos = np.unique(np.array(members.device_nos, np.int32))
    rows = (device_nos // fleet.partitions).astype(np.int32)
    if len(rows):
        fleet.reserve(int(rows[-1]) + 1)
        fleet.members[members.resource] = rows
    else:
        fleet.members.pop(members.resource, None)
