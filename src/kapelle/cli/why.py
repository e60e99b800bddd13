"""`kapelle order why`: what bound an order, now and over its life."""

from typing import TYPE_CHECKING

from kapelle.cli.configuration import File
from kapelle.cli.orders import Number, Url, plant
from kapelle.cli.output import Json, out, print_told, say
from kapelle.words import power

if TYPE_CHECKING:
    # The API's shapes are costly to import: only the commands that need them do.
    from kapelle.api.why_shapes import OrderWhyTold


def why(order: Number, config: File = None, url: Url = None, json: Json = False) -> None:
    """Say what bound an order: its promise, its devices, other orders, caps, reserve."""
    with plant(config, url) as client:
        told = client.why_order(order)
    if json:
        print_told(told)
    else:
        show(told)


def show(told: "OrderWhyTold") -> None:
    """Print the answer for people: a sentence each."""
    order = told.order
    head = f"order {order.order_no} · {order.status} · {power(order.target_w)} of {order.resource}"
    out().print(head, markup=False, style="bold")
    if order.why:
        out().print(f"for: {order.why}", markup=False)
    if told.delivered_w is not None:
        out().print(f"delivers {power(told.delivered_w)} now", markup=False)
    for sentence in told.bound:
        out().print(f"· {sentence}", markup=False)
    if told.life:
        out().print("so far", style="bold")
    for notice in told.life:
        out().print(f"  {notice.at:%H:%M:%S}Z  {notice.text}", markup=False)
    if order.status in ("completed", "cancelled"):
        say(f"what came of it: kapelle order report {order.order_no}")
