"""What the record holds of one order: read here, made into a report elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from kapelle.errors import NotFound
from kapelle.history.reader import Reader, Session
from kapelle.history.tables import HOUR_NS, QUARTER_NS
from kapelle.history.views import at
from kapelle.model.enums import AckStatus, OrderStatus, Phase

Event = Mapping[str, Any]
"""The body of one event, as JSON is decoded."""

LISTED_MAX = 200
"""Devices that are named; all of them are counted."""
GONE = (
    Phase.REJECTED,
    Phase.OPTED_OUT,
    Phase.EXPIRED,
    Phase.UNKNOWN,
    Phase.DIVERGED,
    Phase.LOST,
)
"""Phases in which a device is not counted on, so that others have to do its part."""
_SAID: Mapping[AckStatus, Phase] = {
    AckStatus.RECEIVED: Phase.RECEIVED,
    AckStatus.ACCEPTED: Phase.ACCEPTED,
    AckStatus.APPLIED: Phase.APPLIED,
    AckStatus.COMPLETED: Phase.COMPLETED,
    AckStatus.REJECTED: Phase.REJECTED,
    AckStatus.OPTED_OUT: Phase.OPTED_OUT,
    AckStatus.EXPIRED: Phase.EXPIRED,
}
_OVER = (OrderStatus.COMPLETED, OrderStatus.CANCELLED, OrderStatus.DECLINED)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The record of one order. Tables are in order of time."""

    order: Event
    amends: Sequence[Event]
    cancels: Sequence[Event]
    plans: Sequence[Event]
    around: Sequence[tuple[str, Event]]
    """Holds, and notices about it or about many devices, while it ran: their kind and body."""
    held_before: bool
    """Whether the plant was held when it began."""
    starts_at_ns: int
    ends_at_ns: int
    """When it was over, or is to be."""
    stages: pa.Table
    """Commands and devices with evidence of each phase, and how soon after sending it came."""
    gone: pa.Table
    """Devices that dropped out while it ran, and when each was heard to follow again."""
    successors: pa.Table
    """One row: who was asked first, or for more, once somebody had dropped out."""
    published: pa.Table
    """What the plant said of the resource at each tick of the window."""
    corrected: pa.Table | None
    """What its members' readings say of each minute; None where it had no members."""
    energy: pa.Table | None
    """The ledger's sums over the whole quarter-hours of the window; None as above."""


def evidence(reader: Reader, order_no: int) -> Evidence:
    """Return what the record holds of an order: what has been flushed, and only that.

    Raises:
        NotFound: The record knows no such order.
    """
    with reader.session() as session:
        own = _own(session, order_no)
        order, amends, cancels, plans = own["order"], own["amend"], own["cancel"], own["plan"]
        if not order:
            raise NotFound(
                f"the record knows no order {order_no}; kapelle order ls lists those there are, "
                "and what is younger than half a minute may not be written yet"
            )
        starts_ns, ends_ns = window(order[0], amends, cancels, plans)
        around, held_before = _around(session, order_no, starts_ns, ends_ns)
        with_commands = _commands(order_no, starts_ns - HOUR_NS, ends_ns + HOUR_NS)
        stages = session.sql(f"{with_commands} {_STAGES}")
        gone = session.sql(f"{with_commands} {_gone(ends_ns)}")
        since_ns = min(gone.column("at_ns").to_pylist(), default=ends_ns)
        successors = session.sql(f"{with_commands} {_successors(since_ns, ends_ns)}")
    resource = order[0]["resource"]
    return Evidence(
        order=order[0],
        amends=amends,
        cancels=cancels,
        plans=plans,
        around=around,
        held_before=held_before,
        starts_at_ns=starts_ns,
        ends_at_ns=ends_ns,
        stages=stages,
        gone=gone,
        successors=successors,
        published=reader.resource(resource, starts_ns, ends_ns, "raw", "published"),
        corrected=_corrected(reader, resource, starts_ns, ends_ns),
        energy=_energy(reader, resource, starts_ns, ends_ns),
    )


def window(
    order: Event, amends: Sequence[Event], cancels: Sequence[Event], plans: Sequence[Event]
) -> tuple[int, int]:
    """Return from when to when an order ran, or is to run: [start, end). [ns]"""
    starts_ns = int(order["starts_at_ns"])
    planned_ns = int((amends[-1] if amends else order)["ends_at_ns"])
    ended = [int(plan["at_ns"]) for plan in plans if plan["status"] in _OVER]
    ended += [int(cancel["at_ns"]) for cancel in cancels]
    return starts_ns, max(starts_ns, min([planned_ns, *ended]))


def _own(session: Session, order_no: int) -> dict[str, list[Event]]:
    rows = session.sql(
        f"SELECT kind, body FROM events WHERE order_no = {int(order_no)} ORDER BY position"
    ).to_pylist()
    own: dict[str, list[Event]] = {"order": [], "amend": [], "cancel": [], "plan": []}
    for row in rows:
        if row["kind"] in own:
            own[row["kind"]].append(msgspec.json.decode(row["body"]))
    return own


def _around(
    session: Session, order_no: int, starts_ns: int, ends_ns: int
) -> tuple[list[tuple[str, Event]], bool]:
    rows = session.sql(
        "SELECT kind, body FROM events WHERE "
        f"(kind = 'notice' AND order_no = {int(order_no)}) OR (time >= {at(starts_ns)} "
        f"AND time < {at(ends_ns)} AND (kind = 'hold' OR (kind = 'notice' AND order_no = 0))) "
        "ORDER BY time, position"
    ).to_pylist()
    found = [(row["kind"], msgspec.json.decode(row["body"])) for row in rows]
    # What is said of one device stands in the list of those that dropped out.
    around = [(kind, body) for kind, body in found if body.get("device_no", -1) < 0]
    before = session.sql(
        f"SELECT code FROM events WHERE kind = 'hold' AND time < {at(starts_ns)} "
        "ORDER BY time DESC, position DESC LIMIT 1"
    ).to_pylist()
    return around, bool(before) and before[0]["code"] == "held"


def _commands(order_no: int, since_ns: int, until_ns: int) -> str:
    """Return the beginning of a query: an order's commands, and every phase one entered."""
    when = f"time >= {at(since_ns)} AND time < {at(until_ns)}"
    said = " ".join(f"WHEN {status.value} THEN {phase.value}" for status, phase in _SAID.items())
    return f"""
WITH command AS MATERIALIZED (
    SELECT device_no, revision, min(issued_at_ns) AS issued_ns,
        arg_min(setpoint_w, issued_at_ns) AS setpoint_w
    FROM commands WHERE order_no = {int(order_no)} AND {when} GROUP BY 1, 2
),
told AS (
    SELECT device_no, revision, phase, at_ns FROM phases WHERE {when}
    UNION ALL
    SELECT device_no, revision, CASE status {said} END, at_ns FROM acks WHERE {when}
),
entered AS MATERIALIZED (
    SELECT device_no, revision, {Phase.PLANNED.value} AS phase, issued_ns AS at_ns FROM command
    UNION ALL
    SELECT device_no, revision, phase, min(at_ns) FROM told SEMI JOIN command
    USING (device_no, revision) GROUP BY 1, 2, 3
)
"""


_STAGES = f"""
, sent AS (
    SELECT device_no, revision, at_ns AS sent_ns FROM entered WHERE phase = {Phase.SENT.value}
)
SELECT phase::INTEGER AS phase, count(*) AS commands, count(DISTINCT device_no) AS devices,
    min(at_ns) AS first_ns, max(at_ns) AS last_ns,
    quantile_cont((at_ns - sent_ns)::DOUBLE, 0.5) AS p50_ns,
    quantile_cont((at_ns - sent_ns)::DOUBLE, 0.95) AS p95_ns
FROM entered LEFT JOIN sent USING (device_no, revision) GROUP BY 1 ORDER BY 1
"""


def _gone(ends_ns: int) -> str:
    phases = ", ".join(str(phase.value) for phase in GONE)
    back = f"({Phase.APPLIED.value}, {Phase.VERIFIED.value})"
    return f"""
, gone AS (
    SELECT device_no, arg_min(phase, at_ns)::INTEGER AS phase, min(at_ns) AS at_ns
    FROM entered WHERE phase IN ({phases}) AND at_ns < {int(ends_ns)} GROUP BY 1
),
asked AS (
    SELECT device_no, arg_max(setpoint_w, issued_ns) AS setpoint_w
    FROM command JOIN gone USING (device_no) WHERE issued_ns <= at_ns GROUP BY 1
),
back AS (
    SELECT device_no, min(entered.at_ns) AS back_ns FROM entered JOIN gone USING (device_no)
    WHERE entered.phase IN {back} AND entered.at_ns > gone.at_ns
    AND entered.at_ns < {int(ends_ns)} GROUP BY 1
)
SELECT device_no, device_id, vendor, gone.phase, gone.at_ns, setpoint_w, back_ns
FROM gone LEFT JOIN asked USING (device_no) LEFT JOIN back USING (device_no)
LEFT JOIN devices USING (device_no) ORDER BY gone.at_ns, device_no
"""


def _successors(since_ns: int, ends_ns: int) -> str:
    """Return the rest of a query: a device whose setpoint changed has its change as `change_w`."""
    return f"""
, asked AS (
    SELECT device_no, min(issued_ns) AS first_ns,
        arg_max(setpoint_w, issued_ns) FILTER (issued_ns <= {int(since_ns)}) AS before_w,
        arg_max(setpoint_w, issued_ns) FILTER (issued_ns < {int(ends_ns)}) AS after_w
    FROM command GROUP BY 1
)
SELECT count(*) FILTER (first_ns > {int(since_ns)}) AS joined,
    sum(after_w) FILTER (first_ns > {int(since_ns)}) AS joined_w,
    min(first_ns) FILTER (first_ns > {int(since_ns)}) AS joined_ns,
    count(*) FILTER (after_w > before_w) AS raised,
    sum(after_w - before_w) FILTER (after_w > before_w) AS raised_w,
    count(*) FILTER (after_w < before_w) AS lowered,
    sum(after_w - before_w) FILTER (after_w < before_w) AS lowered_w
FROM asked
"""


def _corrected(reader: Reader, resource: str, starts_ns: int, ends_ns: int) -> pa.Table | None:
    try:
        return reader.resource(resource, starts_ns, ends_ns, "1m", "corrected")
    except NotFound:
        return None


def _energy(reader: Reader, resource: str, starts_ns: int, ends_ns: int) -> pa.Table | None:
    """Return the ledger of the quarter-hours that lie in the window as a whole."""
    first_ns = -(-starts_ns // QUARTER_NS) * QUARTER_NS
    try:
        return reader.energy_sums(resource, first_ns, ends_ns // QUARTER_NS * QUARTER_NS)
    except NotFound:
        return None
