"""Firm capacity: what a resource can promise over a window."""

import asyncio
import math
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request

from kapelle.adapters.http.problems import Refused
from kapelle.api.capacity_shapes import CapacityTold, DirectionTold, LevelTold
from kapelle.api.plant import Plant
from kapelle.api.routes import authenticate
from kapelle.api.times import to_datetime
from kapelle.dispatch.firm.assembly import portfolio_of
from kapelle.dispatch.firm.capacity import FirmCapacity, answer
from kapelle.dispatch.firm.within import caps_within
from kapelle.dispatch.reserve import share_of
from kapelle.fleet.capacity.recalibration import LEVELS
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.plant import Direction

router = APIRouter(prefix="/v1/capacity", dependencies=[Depends(authenticate)], tags=["plant"])

Window = Annotated[
    float, Query(ge=60, le=86_400, description="How long the power must be held. [s]")
]
Notice = Annotated[
    float,
    Query(ge=0, le=3600, description="How soon it must stand; 0: it does not matter. [s]"),
]


@router.get("/{name:path}")
async def read_capacity(
    name: str,
    request: Request,
    window_s: Window = 3600.0,
    notice_s: Notice = 0.0,
    direction: Literal["up", "down", "both"] = "both",
) -> CapacityTold:
    """Read what a resource can promise from now on: P50, P90, P95 and P99 of the least power over
    the window, with the worst single vendor's loss and the answer for independent devices."""
    plant: Plant = request.app.state.plant
    view = plant.view
    if name != ALL and name not in view.resources():
        raise Refused(404, "resource-unknown", f"there is no resource {name!r}")
    told = [partition for partition, rooms in view.rooms.items() if rooms.get(name)]
    if not told:
        raise Refused(
            503,
            "capacity-unknown",
            "no partition has told yet what it can hold; it takes a minute from the start",
            headers={"Retry-After": "20"},
        )
    tick_ns = min(view.summaries[partition].tick_ns for partition in told)
    ways: tuple[Direction, ...] = ("up", "down") if direction == "both" else (direction,)
    portfolios = [
        portfolio_of(view.rooms, view.firmness, name, way, window_s, notice_s) for way in ways
    ]
    caps = [caps_within(view, name, way, window_s) for way in ways]
    # Some 20 ms each, in which others are served.
    learned = view.firmness.kept.recalibration
    answers = [
        await asyncio.to_thread(answer, portfolio, learned, within)
        for portfolio, within in zip(portfolios, caps, strict=True)
    ]
    share = share_of(plant.desk.dispatch, name)
    found = {way: _tell(each, share) for way, each in zip(ways, answers, strict=True)}
    return CapacityTold(
        resource=name,
        at=to_datetime(tick_ns),
        age_s=(plant.clock.now_ns() - tick_ns) / NS_PER_S,
        complete=len(view.rooms) >= view.partitions,
        window_s=window_s,
        notice_s=notice_s,
        up=found.get("up"),
        down=found.get("down"),
    )


def _tell(capacity: FirmCapacity, reserve_share: float) -> DirectionTold:
    worst = capacity.worst
    reserve_w = reserve_share * capacity.headroom_w
    most_w = capacity.headroom_w - reserve_w if reserve_w > 0.0 else math.inf
    return DirectionTold(
        headroom_w=capacity.headroom_w,
        reserve_w=reserve_w,
        expected_w=capacity.expected_w,
        levels=[
            LevelTold(
                level=level,
                promise_w=min(capacity.promise_w[at], most_w),
                alone_w=capacity.alone_w[at],
                without_worst_w=min(worst.left_w[at], most_w) if worst else None,
            )
            for at, level in enumerate(LEVELS)
        ],
        worst_vendor=worst.vendor if worst else None,
        worst_vendor_odds=worst.odds if worst else None,
    )
