"""What would become of an order if it were given now."""

from dataclasses import dataclass

from kapelle.dispatch.beside import same_resource
from kapelle.dispatch.firm.orders import UNKNOWN, assurance
from kapelle.dispatch.planning.outline import from_rooms
from kapelle.dispatch.planning.promising import binds as binds_of
from kapelle.dispatch.planning.promising import of_largest_w, promise
from kapelle.dispatch.promise import binding, parts_of, room_of
from kapelle.dispatch.reserve import reserve_of, share_of
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.plant import PlantView, total
from kapelle.model.orders import Order, Promised

_DEFAULTS = DispatchSettings()
HELD_S = 900.0
"""The headroom that is published holds for so long. [s]"""


@dataclass(frozen=True, slots=True)
class Preview:
    """The answer to a dry run."""

    feasible: bool
    """Whether all of the target would be promised."""
    committed_w: float
    """The nearest feasible target. [W]"""
    firm_w: float | None
    """What is 95 % sure for its time; None where nobody can say yet. [W]"""
    declined_w: float
    binding: str
    """What binds; empty where it is feasible."""
    headroom_up_w: float
    headroom_down_w: float
    baseline_w: float
    """Power of the resource now. [W]"""
    baseline_std_w: float
    devices: int
    excluded: dict[str, int]
    """Why devices are not counted on, and how many."""
    held_s: float
    """How long the promise holds as far as the published headroom tells. [s]"""
    order: Order
    """What was asked."""
    profile: tuple[Promised, ...] = ()
    """What would be promised of each interval, where the target changes."""


def preview(view: PlantView, order: Order, settings: DispatchSettings = _DEFAULTS) -> Preview:
    """Say what dispatch would promise, from the newest summaries."""
    parts = parts_of(view, order.resource)
    known = total(view, order.resource)
    room = room_of(parts)
    reserve = reserve_of(settings, order.resource, room)
    sure = assurance(view, settings, order, known.tick_ns) or UNKNOWN
    committed_w = sure.bounded_w(reserve.bounded_w(order.target_w))
    binds = sure.reason(order.target_w, committed_w)
    binds = binds or reserve.reason(order.target_w, committed_w)
    binds = binds or binding(known, order.target_w, committed_w, parts)
    steps: tuple[Promised, ...] = ()
    if order.profile:
        told = from_rooms(view, order.resource)
        kept = share_of(settings, order.resource)
        steps = promise(
            order, parts, order.starts_at_ns, bounded=sure.bounded_w, kept=kept, stores=told
        )
        committed_w, binds = of_largest_w(steps, order.target_w), binds_of(steps)
    if not known.devices:
        binds = f"resource {order.resource!r} has no devices that any partition has spoken of"
    in_the_way = same_resource(view, order)
    if in_the_way is not None and in_the_way.order.ends_at_ns > order.starts_at_ns:
        other = in_the_way.order
        committed_w = 0.0
        binds = f"order {other.order_no} on {other.resource!r} is running: amend it"
    return Preview(
        feasible=not binds,
        committed_w=committed_w,
        firm_w=sure.firm_w,
        declined_w=order.target_w - committed_w,
        binding=binds,
        headroom_up_w=room.up_w - reserve.up_w,
        headroom_down_w=room.down_w - reserve.down_w,
        baseline_w=known.net_w,
        baseline_std_w=known.std_w,
        devices=known.devices,
        excluded=known.excluded,
        held_s=HELD_S,
        order=order,
        profile=steps,
    )
