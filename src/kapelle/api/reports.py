"""The report of an order over HTTP, from the long record."""

from fastapi import APIRouter, Depends

from kapelle.api.history import Desk
from kapelle.api.report import make_report
from kapelle.api.report_shapes import ReportTold
from kapelle.api.routes import authenticate
from kapelle.history.evidence import evidence
from kapelle.history.reader import Reader

router = APIRouter(prefix="/v1/orders", dependencies=[Depends(authenticate)], tags=["orders"])


@router.get("/{order_no}/report")
async def read_report(order_no: int, desk: Desk) -> ReportTold:
    """Read what the long record holds of an order, and whether it delivered.

    The record is written every half minute: `is_complete` says whether all of it is there.
    """

    def question(reader: Reader) -> ReportTold:
        return make_report(evidence(reader, order_no))

    return await desk.ask(question)
