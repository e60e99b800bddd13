"""What a fleet is like, in numbers: for whoever simulates one of the same shape."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from kapelle.model.enums import DeviceKind
from kapelle.registry.tables import devices


class Shape(NamedTuple):
    """Devices by what they have in common; a name that is empty is left out."""

    devices: int
    kinds: Mapping[str, int]
    vendors: Mapping[str, int]
    providers: Mapping[str, int]
    feeders: int
    """How many there are; 0 where none is known."""
    revert_s: float | None
    """Mean revert timer; None where no device has one. [s]"""
    without_revert: int
    report_every_s: float | None
    """Mean of what is registered. [s]"""


def shape_of(connection: Connection) -> Shape:
    """Return the shape of all enrolled devices; five queries, whatever their number."""
    active = devices.c.active == 1
    means = select(
        func.count(),
        func.avg(devices.c.revert_s),
        func.count(devices.c.revert_s),
        func.avg(devices.c.report_every_s),
        func.count(func.distinct(func.nullif(devices.c.feeder, ""))),
    ).where(active)
    count, revert_s, reverting, report_every_s, feeders = connection.execute(means).one()

    def tally(name: str) -> dict[str, int]:
        column = devices.c[name]
        query = select(column, func.count()).where(active).group_by(column).order_by(column)
        return {str(value): int(number) for value, number in connection.execute(query)}

    kinds = {DeviceKind(int(kind)).name.lower(): number for kind, number in tally("kind").items()}
    return Shape(
        devices=int(count),
        kinds=kinds,
        vendors=_named(tally("vendor")),
        providers=_named(tally("provider")),
        feeders=int(feeders),
        revert_s=None if revert_s is None else float(revert_s),
        without_revert=int(count) - int(reverting),
        report_every_s=None if report_every_s is None else float(report_every_s),
    )


def _named(found: Mapping[str, int]) -> dict[str, int]:
    return {name: number for name, number in found.items() if name}
