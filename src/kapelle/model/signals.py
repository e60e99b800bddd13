"""What dispatch tells every partition: how far up the merit order each resource is driven."""

from typing import Literal

import msgspec


class Rationing(msgspec.Struct, frozen=True):
    """The largest part of its power each device with a store may move, by how long it could hold
    all of it (`fleet.curve.rations`). Beyond the end of a list: all of it."""

    until_ns: int
    """Setpoints must be possible until then: the end of the present interval of a profile."""
    ends_at_ns: int
    """The end of the order: what own schedules need until then is no one else's."""
    up: tuple[float, ...] = ()
    down: tuple[float, ...] = ()


class Signal(msgspec.Struct, frozen=True, tag=True):
    """One number per resource that tells every device its setpoint (see `fleet.curve`)."""

    resource: str
    order_no: int
    """0: no order; devices are released."""
    level: float
    """λ: how far up the merit order the resource is driven; negative towards consumption."""
    block_level: float
    """λ for devices that are on or off; moved only when a whole block is due."""
    epoch: int
    ends_at_ns: int
    stores: Literal["", "up", "down", "both"] = ""
    """Which energy partitions tell by group (`fleet.stores`), for who plans a profile with it."""
    rations: Rationing | None = None
    """In force for setpoints. None: each must be possible to the order's end."""
    announced: Rationing | None = None
    """What comes next: curves are told for it before it is in force."""
    rank: int = 0
    """When its order began to claim devices: of orders that share some, the earlier has them."""
    beside: list[int] = []
    """Orders of earlier rank whose devices its levels were solved without."""
    ended_no: int = 0
    """Of a release: the order that is over; `ends_at_ns` is since when."""
    prices: dict[str, float] = {}
    """By group (`feeder/f-12`): how far below λ its devices are driven, so that it keeps its cap.
    Those above 0 only; a device pays for each of its groups."""
    stage: float = 1.0
    """The share of the devices it is for, by a fixed hash of device and order; others wait."""
    randomise_s: float = 0.0
    """Each device begins within this after `rank` and ends within this before `ends_at_ns`. [s]"""
