"""Envelopes: what sites, feeders and zones may export and import together, for a time."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request

from kapelle.api.envelope_desk import EnvelopeDesk
from kapelle.api.envelope_shapes import EnvelopeAsked, EnvelopesTold
from kapelle.api.routes import Person, authenticate

router = APIRouter(prefix="/v1/envelopes", dependencies=[Depends(authenticate)], tags=["safety"])


def desk_of(request: Request) -> EnvelopeDesk:
    """Return the desk of envelopes."""
    desk: EnvelopeDesk = request.app.state.plant.envelopes
    return desk


Desk = Annotated[EnvelopeDesk, Depends(desk_of)]


@router.post("")
async def set_envelopes(asked: EnvelopeAsked, desk: Desk, person: Person) -> EnvelopesTold:
    """Limit what sites, feeders or zones export and import; without any limit, take theirs away.

    At each moment the latest envelope that covers it counts, and beside it what is configured.
    """
    return await desk.write(asked, person)


@router.get("")
async def list_envelopes(
    desk: Desk,
    level: Annotated[
        Literal["site", "feeder", "zone"] | None, Query(description="Only of these.")
    ] = None,
) -> EnvelopesTold:
    """List envelopes that are not over, and the configured caps."""
    return desk.told(level)
