"""Orders side by side: who goes first where they share devices, and who has to know of whom."""

from collections.abc import Collection, Iterable

from kapelle.dispatch.memory import ControlState, Cycle
from kapelle.fleet.plant import OrderState, PlantView
from kapelle.model.enums import OrderStatus
from kapelle.model.orders import Order
from kapelle.model.signals import Signal


def same_resource(
    view: PlantView, asked: Order, started: Collection[int] = ()
) -> OrderState | None:
    """Return the order that runs on the very same resource, if any.

    Two targets for the same devices are one target: the running order is amended instead.

    Args:
        view: The plant.
        asked: The order that would run.
        started: Orders the view does not know to have started yet.
    """
    for number, other in sorted(view.orders.items()):
        runs = other.status == OrderStatus.ACTIVE or number in started
        if number != asked.order_no and runs and other.order.resource == asked.resource:
            return other
    return None


def is_ending(other: OrderState, now_ns: int) -> bool:
    """Tell whether an order is over as soon as dispatch has said so."""
    return bool(other.cancelled_at_ns) or now_ns >= other.order.ends_at_ns


def all_know(state: ControlState, cycle: Cycle, asked: Order) -> bool:
    """Tell whether what every partition says leaves out the devices of all other orders.

    Until it does, devices that an order has just claimed would be promised a second time.
    """
    announced = {n for n, r in state.running.items() if r.signal is not None and r.signal.order_no}
    others = sorted(
        number
        for number, other in cycle.view.orders.items()
        if number != asked.order_no
        and (other.status == OrderStatus.ACTIVE or number in announced)
        and not is_ending(other, cycle.now_ns)
    )
    return all(
        number in summary.following
        for summary in cycle.view.summaries.values()
        if summary.following is not None
        for number in others
    )


def earlier(view: PlantView, order_no: int, rank: int) -> list[int]:
    """Return the orders of earlier rank that the newest sums still leave devices to."""
    return [n for n in _followed(view) if n != order_no and (_rank(view, n), n) < (rank, order_no)]


def is_followed(view: PlantView, order_no: int) -> bool:
    """Tell whether any partition still has an order's signal in force."""
    return order_no in _followed(view)


def release(cycle: Cycle, asked: Order) -> Signal:
    """Return what ends an order's claims: its devices are the next one's, or released."""
    over_ns = min(asked.ends_at_ns, cycle.now_ns)
    return Signal(asked.resource, 0, 0.0, 0.0, cycle.epoch, over_ns, ended_no=asked.order_no)


def _followed(view: PlantView) -> Iterable[int]:
    return sorted({n for summary in view.summaries.values() for n in summary.following or ()})


def _rank(view: PlantView, order_no: int) -> int:
    """Return the rank of an order; of one without a plan, later than all: it promised nothing."""
    order = view.orders.get(order_no)
    return order.plan.rank if order is not None and order.plan is not None else 1 << 62
