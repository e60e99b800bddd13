"""The quarantine over HTTP: browse, count, mend and replay, drop, export, unmute."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from kapelle.adapters.http.problems import Refused
from kapelle.api.plant import Plant
from kapelle.api.quarantine_desk import QuarantineDesk
from kapelle.api.quarantine_shapes import (
    ActionTold,
    DropAsked,
    FilterAsked,
    MutedList,
    QuarantineCounted,
    QuarantinedTold,
    QuarantineTold,
    ReplayAsked,
    UnmuteAsked,
    UnmutedTold,
)
from kapelle.api.routes import Person, authenticate

router = APIRouter(
    prefix="/v1/quarantine", dependencies=[Depends(authenticate)], tags=["quarantine"]
)


def desk_of(request: Request) -> QuarantineDesk:
    """Return what the routes work on."""
    plant: Plant = request.app.state.plant
    if plant.quarantine is None:
        raise Refused(503, "quarantine-elsewhere", "this process keeps no quarantine")
    return plant.quarantine


Desk = Annotated[QuarantineDesk, Depends(desk_of)]
State = Literal["open", "replayed", "dropped", "any"]


def filter_of(
    code: str = "",
    source: Annotated[str, Query(description="Whole, or up to a slash: `mqtt`.")] = "",
    device: str = "",
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
) -> FilterAsked:
    """Return the filter of a request."""
    return FilterAsked(code=code, source=source, device=device, since=since, until=until)


Filter = Annotated[FilterAsked, Depends(filter_of)]


@router.get("")
async def list_rows(
    desk: Desk,
    asked: Filter,
    state: State = "open",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    cursor: Annotated[str, Query(description="Of the page before.")] = "",
) -> QuarantineTold:
    """List rows, newest first."""
    await desk.follower.turn()
    found = desk.quarantine.find(desk.query(asked, state), limit + 1, _seq_of(cursor))
    return QuarantineTold(
        rows=[desk.tell(kept) for kept in found[:limit]],
        cursor=str(found[limit - 1].seq) if len(found) > limit else None,
    )


@router.get("/counts")
async def count_rows(desk: Desk) -> QuarantineCounted:
    """Count rows by reason and by source; the muted are named."""
    return await desk.count()


@router.get("/export", response_class=StreamingResponse)
async def export_rows(
    desk: Desk, asked: Filter, state: State = "any", form: Literal["ndjson", "csv"] = "ndjson"
) -> StreamingResponse:
    """Export rows, newest first, as NDJSON or CSV."""
    await desk.follower.turn()
    query = desk.query(asked, state)

    async def lines() -> AsyncIterator[bytes]:
        if form == "csv":
            yield _csv_line(list(QuarantinedTold.model_fields))
        async for page in desk.every(query):
            told = [desk.tell(kept) for kept in page]
            if form == "csv":
                yield b"".join(_csv_line(_cells(row)) for row in told)
            else:
                yield b"".join(row.model_dump_json().encode() + b"\n" for row in told)

    media = "text/csv; charset=utf-8" if form == "csv" else "application/x-ndjson"
    disposition = f'attachment; filename="quarantine.{form}"'
    return StreamingResponse(
        lines(), media_type=media, headers={"Content-Disposition": disposition}
    )


@router.get("/muted")
async def list_muted(desk: Desk) -> MutedList:
    """List devices that are not listened to where they cannot be read."""
    return MutedList(muted=desk.muted())


@router.post("/unmute")
async def unmute(asked: UnmuteAsked, desk: Desk) -> UnmutedTold:
    """Listen to devices again at once."""
    return UnmutedTold(unmuted=await desk.unmute(asked.devices))


@router.post("/replay")
async def replay_rows(asked: ReplayAsked, desk: Desk, person: Person) -> ActionTold:
    """Decode rows again, mended first where a fix is given, and take what is usable now.

    What is refused again stays open with its new reason. Replaying twice is replaying once. With
    `dry_run` nothing is changed.
    """
    return await desk.decide(asked, person)


@router.post("/drop")
async def drop_rows(asked: DropAsked, desk: Desk, person: Person) -> ActionTold:
    """Say of rows that they are of no use. They stay listed as dropped. `dry_run`: only look."""
    return await desk.decide(asked, person)


@router.get("/{row_id}")
async def read_row(row_id: str, desk: Desk) -> QuarantinedTold:
    """Read one row."""
    await desk.follower.turn()
    found = desk.quarantine.read([row_id])
    if not found:
        raise Refused(404, "row-unknown", f"no row in quarantine is {row_id!r}")
    return desk.tell(found[0])


def _seq_of(cursor: str) -> int | None:
    if not cursor:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise Refused(422, "cursor-unusable", "give the `cursor` of the page before, unchanged")
    return int(cursor)


def _csv_line(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _cells(row: QuarantinedTold) -> list[str]:
    return [_safe(_cell(value)) for value in row.model_dump().values()]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _safe(text: str) -> str:
    """Keep a spreadsheet from taking what a stranger sent for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
