"""The routes: each reads its request, asks the desk or the view, and tells the answer."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer

from kapelle import __version__
from kapelle.adapters.http.problems import Refused
from kapelle.api import metrics
from kapelle.api.desk import OrderDesk
from kapelle.api.plant import Plant
from kapelle.api.rules import etag
from kapelle.api.selections import Selected
from kapelle.api.shapes import (
    AmendAsked,
    HoldAsked,
    HoldTold,
    OrderAsked,
    OrdersTold,
    OrderTold,
    PreviewTold,
    ReadyTold,
    ResourcesTold,
    ResourceTold,
    SelectionTold,
    StatusTold,
)
from kapelle.api.times import to_datetime
from kapelle.api.token import bearer, is_token
from kapelle.api.told import tell_notice, tell_order, tell_preview, tell_reasons, tell_resource
from kapelle.dispatch.preview import Preview
from kapelle.fleet.plant import OrderState, total
from kapelle.model.ids import ALL

ISSUED_BY = "api"
_NOTICES_TOLD = 20
_DAMAGE_TOLD = 20
_CODES_TOLD = 5

_scheme = HTTPBearer(auto_error=False, description="A person's own token, or the plant's.")


def authenticate(request: Request, _: Annotated[object, Depends(_scheme)]) -> str:
    """Let pass whoever has a token; return whose it is."""
    offered = bearer(request.headers.get("authorization", ""))
    plant: Plant = request.app.state.plant
    known = {ISSUED_BY: plant.token, **plant.persons}
    # Every token is compared, so that the time tells nobody how many there are before his.
    named = [name for name, token in known.items() if offered and is_token(offered, token)]
    person = plant.people.whose(offered or "")
    named += [person] if person is not None else []
    if not named:
        raise Refused(
            401,
            "token-wrong",
            "this plant does not know the token"
            if offered
            else "send `Authorization: Bearer TOKEN`",
            headers={"WWW-Authenticate": 'Bearer realm="kapelle"'},
        )
    return named[0]


def plant_of(request: Request) -> Plant:
    """Return what the routes work on."""
    plant: Plant = request.app.state.plant
    return plant


def desk_of(request: Request) -> OrderDesk:
    """Return the order desk."""
    return plant_of(request).desk


PlantNow = Annotated[Plant, Depends(plant_of)]
Desk = Annotated[OrderDesk, Depends(desk_of)]
Person = Annotated[str, Depends(authenticate)]
Key = Annotated[str, Header(alias="Idempotency-Key", description="The same key, the same order.")]
IfMatch = Annotated[str | None, Header(alias="If-Match", description="ETag of the order as read.")]

guarded = APIRouter(prefix="/v1", dependencies=[Depends(authenticate)])
open_to_all = APIRouter()


@guarded.post("/orders", status_code=201, response_model=OrderTold | PreviewTold, tags=["orders"])
async def create_order(
    asked: OrderAsked, desk: Desk, person: Person, response: Response, key: Key = ""
) -> OrderTold | PreviewTold:
    """Order a change of power; the answer says what the plant promises of it.

    Waits up to two seconds for dispatch. With `dry_run` nothing is ordered.
    """
    if asked.dry_run:
        response.status_code = 200
        return tell_preview(asked, desk.preview(asked))
    state, is_new = await desk.create(asked, key, person)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/orders/{state.order.order_no}"
    response.headers["ETag"] = etag(state)
    return tell_order(state)


@guarded.post("/selections", status_code=201, tags=["orders"])
async def select_order(asked: OrderAsked, plant: PlantNow, person: Person) -> SelectionTold:
    """Select an order for a second person to operate within 30 s; see what it would do."""
    desk = plant.desk
    if not plant.persons and not len(plant.people):
        raise Refused(
            403,
            "second-person-missing",
            "this plant knows one token only, so nobody could operate it: give a second person one"
            " (kapelle person add NAME), or raise operate_above_w in [safety]",
        )
    return _tell_selection(*desk.select(asked, person))


@guarded.get("/selections/{selection_no}", tags=["orders"])
async def read_selection(selection_no: int, desk: Desk) -> SelectionTold:
    """Read what somebody has selected, and what it would do now, before operating it."""
    return _tell_selection(*desk.selected(selection_no))


@guarded.post("/selections/{selection_no}/operate", status_code=201, tags=["orders"])
async def operate_order(
    selection_no: int, desk: Desk, person: Person, response: Response
) -> OrderTold:
    """Give the order somebody else selected. By the same person it is refused (403)."""
    state = await desk.operate(selection_no, person)
    response.headers["Location"] = f"/v1/orders/{state.order.order_no}"
    response.headers["ETag"] = etag(state)
    return tell_order(state)


@guarded.get("/orders", tags=["orders"])
async def list_orders(
    plant: PlantNow,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before: Annotated[int | None, Query(ge=1, description="Only lower numbers.")] = None,
) -> OrdersTold:
    """List orders, newest first."""
    numbers = sorted((n for n in plant.view.orders if before is None or n < before), reverse=True)
    return OrdersTold(
        orders=[tell_order(plant.view.orders[n]) for n in numbers[:limit]],
        next_before=numbers[limit - 1] if len(numbers) > limit else None,
    )


@guarded.get("/orders/{order_no}", tags=["orders"])
async def read_order(order_no: int, desk: Desk, plant: PlantNow, response: Response) -> OrderTold:
    """Read one order."""
    state = desk.find(order_no)
    response.headers["ETag"] = etag(state)
    return tell_order(state, plant.view)


@guarded.patch("/orders/{order_no}", tags=["orders"])
async def amend_order(
    order_no: int,
    asked: AmendAsked,
    desk: Desk,
    person: Person,
    response: Response,
    if_match: IfMatch = None,
) -> OrderTold:
    """Change an order's target or end."""
    state = await desk.amend(order_no, asked, person, if_match)
    response.headers["ETag"] = etag(state)
    return tell_order(state)


@guarded.delete("/orders/{order_no}", tags=["orders"])
async def cancel_order(
    order_no: int, desk: Desk, person: Person, response: Response, if_match: IfMatch = None
) -> OrderTold:
    """Cancel an order; its devices return to their own schedules. Twice is once."""
    state = await desk.cancel(order_no, person, if_match)
    response.headers["ETag"] = etag(state)
    return tell_order(state)


@guarded.post("/hold", tags=["safety"])
async def hold(desk: Desk, person: Person, asked: HoldAsked | None = None) -> HoldTold:
    """Stop every command of the plant now."""
    return await _hold(desk, True, asked, person)


@guarded.post("/release-hold", tags=["safety"])
async def release_hold(desk: Desk, person: Person, asked: HoldAsked | None = None) -> HoldTold:
    """Allow commands again. Where that takes two persons, the first is answered 403."""
    return await _hold(desk, False, asked, person)


@guarded.get("/resources", tags=["plant"])
async def list_resources(plant: PlantNow) -> ResourcesTold:
    """Read every resource now."""
    now_ns = plant.clock.now_ns()
    names = plant.view.resources()
    return ResourcesTold(resources=[tell_resource(total(plant.view, n, now_ns)) for n in names])


@guarded.get("/resources/{name:path}", tags=["plant"])
async def read_resource(name: str, plant: PlantNow) -> ResourceTold:
    """Read one resource: estimate with interval, share measured, ages, phases, exclusions."""
    if name != ALL and name not in plant.view.resources():
        raise Refused(404, "resource-unknown", f"there is no resource {name!r}")
    return tell_resource(total(plant.view, name, plant.clock.now_ns()))


@guarded.get("/status", tags=["plant"])
async def read_status(plant: PlantNow) -> StatusTold:
    """Read the plant in one answer."""
    view, now_ns = plant.view, plant.clock.now_ns()
    counters = plant.counters.values()
    damage = plant.damage()
    health = plant.health()
    return StatusTold(
        version=__version__,
        now=to_datetime(now_ns),
        held=view.held,
        hold_reason=view.hold_reason,
        position=view.position,
        partitions=view.partitions,
        partitions_heard=len(view.summaries),
        plant=tell_resource(total(view, ALL, now_ns)),
        orders=[tell_order(s) for _, s in sorted(view.orders.items()) if _is_open(s)],
        ingest={
            "accepted": sum(c.accepted for c in counters),
            "quarantined": sum(sum(c.quarantined.values()) for c in counters),
            "muted": sum(c.muted for c in counters),
            "declined": sum(c.declined for c in counters),
        },
        notices=[tell_notice(n) for n in reversed(view.notices)][:_NOTICES_TOLD],
        journal_damage=len(damage),
        damage=list(damage[:_DAMAGE_TOLD]),
        state=health.state,
        reasons=tell_reasons(health),
        quarantine=_quarantine(plant),
    )


@open_to_all.get("/healthz", tags=["plant"])
async def read_health() -> dict[str, str]:
    """Answer while the process runs."""
    return {"status": "ok"}


@open_to_all.get("/readyz", tags=["plant"], responses={503: {"model": ReadyTold}})
async def read_ready(plant: PlantNow, response: Response) -> ReadyTold:
    """Answer 200 once requests are answered from the whole picture, else 503; with reasons.

    Without the token only the codes are told, not what they are about.
    """
    health = plant.health()
    response.status_code = 200 if health.is_ready else 503
    reasons = [
        reason.model_copy(update={"text": "", "remedy": ""}) for reason in tell_reasons(health)
    ]
    return ReadyTold(ready=health.is_ready, state=health.state, reasons=reasons)


@open_to_all.get("/metrics", tags=["plant"], response_class=PlainTextResponse)
async def read_metrics(
    plant: PlantNow,
    _: Annotated[None, Depends(authenticate)],
    accept: Annotated[str, Header()] = "",
) -> PlainTextResponse:
    """Read every metric as Prometheus text, or as OpenMetrics where that is asked for."""
    is_open = "application/openmetrics-text" in accept
    await plant.sources.capacity.renew(plant.view, plant.clock.now_ns())
    text = metrics.render(
        plant.view,
        plant.clock.now_ns(),
        plant.counters,
        plant.sessions,
        len(plant.damage()),
        plant.sources,
        plant.health(),
        is_open=is_open,
    )
    media = metrics.OPENMETRICS if is_open else metrics.MEDIA_TYPE
    return PlainTextResponse(text, media_type=media)


def _quarantine(plant: Plant) -> dict[str, int]:
    """Return the most frequent codes of what is open, and all together as `open`."""
    if plant.sources.quarantine is None:
        return {}
    counts = plant.sources.quarantine.quarantine.counts(sources=0)
    codes = {code: states["open"] for code, states in counts.by_code.items() if "open" in states}
    most = sorted(codes.items(), key=lambda told: (-told[1], told[0]))[:_CODES_TOLD]
    return {"open": counts.open, **dict(most)}


def _tell_selection(selected: Selected, preview: Preview) -> SelectionTold:
    return SelectionTold(
        selection_no=selected.selection_no,
        selected_by=selected.selected_by,
        valid_until=to_datetime(selected.until_ns),
        impact=tell_preview(selected.asked, preview),
    )


def _is_open(state: OrderState) -> bool:
    return not (state.is_over or state.cancelled_at_ns)


async def _hold(desk: OrderDesk, held: bool, asked: HoldAsked | None, person: str) -> HoldTold:
    written = await desk.hold(held, asked.reason if asked else "", person)
    return HoldTold(held=written.held, reason=written.reason, at=to_datetime(written.at_ns))
