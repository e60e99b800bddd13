"""Energy over HTTP: what the ledger says, and corrections of it."""

from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from kapelle.adapters.http.problems import Refused
from kapelle.api.energy_desk import EnergyDesk
from kapelle.api.energy_shapes import (
    CorrectionAsked,
    CorrectionsTold,
    RepairTold,
    UndoAsked,
    revision_of,
)
from kapelle.api.history import ANSWERS, As, Desk, DeviceName, Revision, When, answer
from kapelle.api.period import Period
from kapelle.api.plant import Plant
from kapelle.api.routes import Key, Person, authenticate
from kapelle.api.tables import Form
from kapelle.history import days
from kapelle.history.energy_series import Span, series
from kapelle.history.reader import Reader

router = APIRouter(prefix="/v1", dependencies=[Depends(authenticate)], tags=["energy"])

Step = Annotated[
    Span, Query(description="Quarter-hours, or local days or months of `tz` (23 to 25 h).")
]
Zone = Annotated[str, Query(description="IANA zone of days, months and the column `local`.")]


def energy_desk_of(request: Request) -> EnergyDesk:
    """Return who corrects. Raises Refused where nobody does."""
    plant: Plant = request.app.state.plant
    if plant.energy is None:
        raise Refused(503, "history-off", "this process keeps no history ([history] enabled)")
    return plant.energy


Corrections = Annotated[EnergyDesk, Depends(energy_desk_of)]


class Asked(NamedTuple):
    """Which energy is meant, whosever it is, and in which form it is told."""

    when: Period
    step: Span
    revision: str
    tz: str
    form: Form


def asked_of(
    when: When,
    step: Step = "15m",
    revision: Revision = "latest",
    tz: Zone = "UTC",
    form: As = "json",
) -> Asked:
    """Return what a request asks about energy."""
    return Asked(when, step, revision, tz, form)


Question = Annotated[Asked, Depends(asked_of)]


@router.get("/history/energy/devices/{device_id}", responses=ANSWERS, response_class=Response)
async def read_device_energy(device_id: DeviceName, asked: Question, desk: Desk) -> Response:
    """Read the energy of one device, as known now or as told before."""
    return await desk.ask(lambda reader: _told(reader, reader.device_no(device_id), asked))


@router.get("/history/energy/resources/{name:path}", responses=ANSWERS, response_class=Response)
async def read_resource_energy(name: str, asked: Question, desk: Desk) -> Response:
    """Read the energy of a resource: of whoever was a member at the time."""
    return await desk.ask(lambda reader: _told(reader, name, asked))


@router.post("/energy/corrections", status_code=201)
async def create_correction(
    asked: CorrectionAsked,
    desk: Corrections,
    person: Person,
    response: Response,
    key: Key = "",
) -> RepairTold:
    """Correct the energy of one register over some quarter-hours, as a new revision.

    The answer says what changes; with `dry_run` nothing does. It waits some seconds until the
    ledger has it and says whether it has. What was measured stays, beneath and in revision 0.
    """
    told = await desk.correct(asked, key, person)
    return _status(told, response)


@router.post("/energy/corrections/{correction_no}/undo", status_code=201)
async def undo_correction(
    correction_no: int,
    asked: UndoAsked,
    desk: Corrections,
    person: Person,
    response: Response,
    key: Key = "",
) -> RepairTold:
    """Take a correction back: what counted before counts again, as a further revision."""
    told = await desk.undo(correction_no, asked, key, person)
    return _status(told, response)


@router.get("/energy/corrections")
async def list_corrections(
    desk: Corrections,
    device: Annotated[str, Query(max_length=128)] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before: Annotated[int | None, Query(ge=1, description="Only lower numbers.")] = None,
) -> CorrectionsTold:
    """List corrections, newest first."""
    return await desk.corrections(device, limit, before)


def _status(told: RepairTold, response: Response) -> RepairTold:
    if told.correction is None:
        response.status_code = 200
    elif not told.correction.applied:
        # It is in the journal for good; the ledger follows.
        response.status_code = 202
    return told


def _told(reader: Reader, whose: int | str, asked: Asked) -> Response:
    found = series(
        reader,
        whose,
        asked.when.starts_at_ns,
        asked.when.ends_at_ns,
        step=asked.step,
        zone=days.zone(asked.tz),
        revision=revision_of(asked.revision),
    )
    return answer(found, asked.form)
