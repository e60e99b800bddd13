"""The long record over HTTP: what a device or a resource did, as JSON, CSV, Arrow or Parquet."""

from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from kapelle.adapters.http.problems import Refused
from kapelle.api import tables
from kapelle.api.history_desk import HistoryDesk
from kapelle.api.period import Period, period
from kapelle.api.plant import Plant
from kapelle.api.routes import authenticate
from kapelle.api.tables import Form
from kapelle.errors import Invalid
from kapelle.history.reader import Reader, Series, Step
from kapelle.model.ids import NS_PER_S

JSON_ROWS_MAX = 100_000
"""Beyond this many rows an answer in JSON helps nobody; the other forms have no such bound."""
STEPS_MAX = 1_000_000
"""Steps of a resource in one answer: two years of minutes, 28 of quarter-hours."""
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The rows in the form asked for. In JSON: one object a row.",
        "content": {media: {} for media in tables.MEDIA_TYPES.values()},
    }
}

router = APIRouter(prefix="/v1/history", dependencies=[Depends(authenticate)], tags=["history"])


def period_of(
    since: Annotated[str | None, Query(alias="from", description="RFC 3339 with zone.")] = None,
    until: Annotated[str | None, Query(alias="to", description="Exclusive.")] = None,
    day: Annotated[str | None, Query(description="A local day instead: `2026-11-22`.")] = None,
    month: Annotated[str | None, Query(description="A local month: `2026-11`.")] = None,
    tz: Annotated[str, Query(description="IANA zone of `day` and `month`.")] = "UTC",
) -> Period:
    """Return the period a request means. Raises Refused where it means none, or several."""
    try:
        # A plus sign that was not escaped has become a space.
        since, until = (text and text.replace(" ", "+") for text in (since, until))
        return period(day=day, month=month, since=since, until=until, tz=tz)
    except Invalid as error:
        raise Refused(422, "period-invalid", str(error)) from error


def desk_of(request: Request) -> HistoryDesk:
    """Return what the routes ask."""
    plant: Plant = request.app.state.plant
    if plant.history is None:
        raise Refused(503, "history-off", "this process keeps no history ([history] enabled)")
    return plant.history


When = Annotated[Period, Depends(period_of)]
Desk = Annotated[HistoryDesk, Depends(desk_of)]
As = Annotated[Form, Query(alias="format")]
Revision = Annotated[
    str,
    Query(
        pattern=r"^(latest|all|\d{1,9})$",
        description="`latest` as known now, `0` as first published, `all` with their reasons.",
    ),
]
DeviceName = Annotated[str, Path(max_length=128)]


@router.get("/devices/{device_id}", responses=ANSWERS, response_class=Response)
async def read_device(
    device_id: DeviceName, when: When, desk: Desk, step: Step = "1m", form: As = "json"
) -> Response:
    """Read what one device reported, as it came or as means of 1 or 15 minutes."""

    def question(reader: Reader) -> Response:
        number = reader.device_no(device_id)
        return answer(reader.device(number, when.starts_at_ns, when.ends_at_ns, step), form)

    return await desk.ask(question)


@router.get("/resources/{name:path}", responses=ANSWERS, response_class=Response)
async def read_resource(
    name: str,
    when: When,
    desk: Desk,
    step: Step = "15m",
    series: Annotated[
        Series,
        Query(description="What the plant said at the time, or what the readings say by now."),
    ] = "corrected",
    form: As = "json",
) -> Response:
    """Read what a resource did, as published at the time or as known now."""

    length_s = (when.ends_at_ns - when.starts_at_ns) // NS_PER_S
    if length_s > STEPS_MAX * (900 if step == "15m" else 60):
        most = f"{STEPS_MAX:,} steps are told at once"
        raise Refused(413, "period-too-long", f"{most}; ask for a shorter period or `step=15m`")

    def question(reader: Reader) -> Response:
        found = reader.resource(name, when.starts_at_ns, when.ends_at_ns, step, series)
        return answer(found, form)

    return await desk.ask(question)


def answer(table: pa.Table, form: Form) -> Response:
    """Return a table as the body of an answer. Raises Refused where it is too long for JSON.

    A million rows take seconds: in the thread that asked, where no order waits for them.
    """
    if form == "json" and table.num_rows > JSON_ROWS_MAX:
        raise Refused(
            413,
            "rows-too-many",
            f"{table.num_rows} rows, and JSON carries at most {JSON_ROWS_MAX}; ask for "
            "`format=parquet`, `arrow` or `csv`, a longer `step` or a shorter period",
        )
    return Response(tables.encode(table, form), media_type=tables.MEDIA_TYPES[form])
