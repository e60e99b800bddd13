"""When the plant's time may be set: while no order runs and no command is out."""

from kapelle.fleet.plant import OrderState, PlantView
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S

_IDLE_NS = 300 * NS_PER_S
"""So long before an order and after it something depends on the time: whatever was asked of
devices has run out by then."""


def depends_on_time(view: PlantView, now_ns: int) -> bool:
    """Tell whether an order runs, is about to, or ended so lately that commands may be out."""
    return any(_depends(state, now_ns) for state in view.orders.values())


def _depends(state: OrderState, now_ns: int) -> bool:
    order = state.order
    if state.status is OrderStatus.DECLINED or now_ns <= order.starts_at_ns - _IDLE_NS:
        return False
    ended_ns = min(order.ends_at_ns, state.cancelled_at_ns or order.ends_at_ns)
    return not state.is_over or now_ns < ended_ns + _IDLE_NS
