"""Why an order is as it is, over HTTP."""

import math

from fastapi import APIRouter, Depends

from kapelle.api.routes import PlantNow, authenticate
from kapelle.api.told import tell_notice, tell_order
from kapelle.api.why_shapes import ExtentTold, OrderWhyTold
from kapelle.dispatch.why import why

router = APIRouter(prefix="/v1/orders", dependencies=[Depends(authenticate)], tags=["orders"])


@router.get("/{order_no}/why")
async def read_why(order_no: int, plant: PlantNow) -> OrderWhyTold:
    """Read what bound an order: its promise, devices, other orders, caps, reserve, shortfalls."""
    state = plant.desk.find(order_no)
    found = why(plant.view, state, plant.desk.dispatch, plant.fleets().values())
    return OrderWhyTold(
        order=tell_order(state),
        bound=list(found.bound),
        delivered_w=None if math.isnan(found.delivered_w) else found.delivered_w,
        reserve_w=found.reserve_w,
        extent=None
        if found.extent is None
        else ExtentTold(
            level=found.extent.level,
            tier=found.extent.tier,
            at_limit=found.extent.at_limit,
            between=found.extent.between,
            untouched=found.extent.untouched,
        ),
        excluded=found.excluded,
        claimed=found.claimed,
        caps=list(found.caps),
        shortfall=tell_notice(found.shortfall) if found.shortfall else None,
        life=[tell_notice(notice) for notice in found.life],
    )
