"""What is published so that a device does what it should, and what will show that it does. Pure."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from kapelle.adapters import quantities
from kapelle.adapters.cloud.commands import meant
from kapelle.adapters.cloud.mapping import Broken
from kapelle.adapters.topics.codec import Payload, Spot
from kapelle.adapters.topics.devices import Order
from kapelle.adapters.topics.settings import VALUE


class Telling(NamedTuple):
    """One publication."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    echo: str
    """What its state shows once it is done; empty: nothing tells."""


def telling(orders: Sequence[Order], setpoint_w: float) -> Telling | str:
    """Return how to tell a device a setpoint, or why that cannot be said.

    Args:
        orders: Those of the device; the first that fits is used.
        setpoint_w: Positive towards the grid, NaN releases the device. [W]
    """
    fitting = meant(setpoint_w)
    order = next((one for one in orders if one.when in fitting), None)
    if order is None:
        return f"its mapping has no command for {fitting[0]}"
    text = ""
    if order.positive:
        value = quantities.theirs(setpoint_w, order.unit, order.positive)
        if not order.least <= value <= order.most:
            said = f"{order.least:g} to {order.most:g} {order.unit}"
            return f"{value:g} {order.unit} is not within its {said}"
        text = _written(value)
    payload = order.payload.replace(VALUE, text).encode()
    return Telling(order.topic, payload, order.qos, order.retain, order.echo.replace(VALUE, text))


def shows(payload: Payload, state: Spot, echo: str) -> bool:
    """Tell whether a state is what was asked for: the same number, or the same word."""
    found = payload.number(state)
    if isinstance(found, float):
        try:
            return math.isclose(found, float(echo), rel_tol=1e-6, abs_tol=1e-3)
        except ValueError:
            return False
    told = payload.text(state)
    return not isinstance(told, Broken) and told == echo


def _written(value: float) -> str:
    """Return a number as devices read it: no exponent, at most three places."""
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
