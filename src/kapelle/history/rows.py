"""Entries of the journal as rows of the record's tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import msgspec
import numpy as np
import pyarrow as pa

from kapelle.history.store import Rows
from kapelle.history.tables import METRICS, TABLES, WHOLE_PLANT, Table
from kapelle.model.blocks import Block, Enrolled, Readings
from kapelle.model.entries import Entry, Kind
from kapelle.model.orders import Amend, Cancel, Hold, Order, Plan
from kapelle.model.plant import Correction, Envelopes, Members, Notice, Verdict

TABLE_OF: Mapping[Kind, str] = {
    Kind.READINGS: "readings",
    Kind.COMMANDS: "commands",
    Kind.ACKS: "acks",
    Kind.PHASES: "phases",
    Kind.SESSIONS: "sessions",
    Kind.ENROLLED: "devices",
}
"""Blocks, one row of the table per row of the block."""

KINDS = (
    *TABLE_OF,
    Kind.MEMBERS,
    Kind.TICK,
    Kind.SUMMARY,
    Kind.ORDER,
    Kind.AMEND,
    Kind.CANCEL,
    Kind.HOLD,
    Kind.PLAN,
    Kind.NOTICE,
    Kind.CORRECTION,
    Kind.VERDICT,
    Kind.ENVELOPES,
)
"""What the record follows. Ticks are not kept: with them it follows a topic that else stands."""

NOBODY = -1
"""`device_no` of a row that says that a resource has no devices in a partition."""

_encoder = msgspec.json.Encoder()


def count(entry: Entry) -> int:
    """Return how many rows an entry will be, about."""
    body = entry.body
    if isinstance(body, Members):
        return len(body.device_nos)
    return len(body) if isinstance(body, Block) else 1


def device_rows(partition: int, entries: Sequence[Entry]) -> list[Rows]:
    """Return what entries of a partition's topic say, per table, in their order."""
    found = [
        Rows(table, partition, _blocks(TABLES[table], kept))
        for kind, table in TABLE_OF.items()
        if (kept := [entry for entry in entries if entry.kind == kind])
    ]
    members = [entry for entry in entries if entry.kind == Kind.MEMBERS]
    if members:
        found.append(Rows("members", partition, _members(members)))
    return found


def events(entries: Iterable[Entry]) -> list[Rows]:
    """Return what people and dispatch said about the plant, each with its whole body as JSON."""
    rows = [row for entry in entries if (row := _event(entry)) is not None]
    if not rows:
        return []
    table = pa.Table.from_pylist(rows, schema=TABLES["events"].schema)
    return [Rows("events", WHOLE_PLANT, table)]


def note(at_ns: int, position: int, code: str, text: str) -> Rows:
    """Return something the record itself has to say: a gap, its beginning."""
    row = {
        "at_ns": at_ns,
        "written_at_ns": at_ns,
        "position": position,
        "kind": "history",
        "code": code,
        "body": _encoder.encode({"text": text}).decode(),
    }
    return Rows("events", WHOLE_PLANT, pa.Table.from_pylist([row], schema=TABLES["events"].schema))


def _blocks(table: Table, entries: Sequence[Entry]) -> pa.Table:
    blocks = [cast("Block", entry.body) for entry in entries]
    sizes = [len(block) for block in blocks]
    columns: dict[str, pa.Array] = {}
    for name, dtype in type(blocks[0]).COLUMNS.items():
        parts = [getattr(block, name) for block in blocks]
        if isinstance(dtype, np.dtype):
            columns[name] = _array(np.concatenate(parts))
        else:
            texts = [text.decode("utf-8", "replace") for part in parts for text in part]
            columns[name] = pa.array(texts, pa.string())
    if isinstance(blocks[0], Readings):
        columns |= _metrics(cast("list[Readings]", blocks), sizes)
    if isinstance(blocks[0], Enrolled):
        written = np.array([entry.written_at_ns for entry in entries], np.int64)
        places = np.array([entry.position for entry in entries], np.int64)
        columns["at_ns"] = pa.array(np.repeat(written, sizes))
        columns["position"] = pa.array(np.repeat(places, sizes))
    return pa.table(columns, schema=table.schema)


def _metrics(blocks: Sequence[Readings], sizes: Sequence[int]) -> dict[str, pa.Array]:
    ends = np.cumsum(sizes)
    columns: dict[str, pa.Array] = {}
    for name, metric in METRICS.items():
        if not any(metric in block.values for block in blocks):
            columns[name] = pa.nulls(int(ends[-1]), pa.float64())
            continue
        values = np.full(int(ends[-1]), np.nan)
        for block, end, size in zip(blocks, ends.tolist(), sizes, strict=True):
            if metric in block.values:
                values[end - size : end] = block.values[metric]
        columns[name] = _array(values)
    return columns


def _array(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> pa.Array:
    # What is not known is null: a database's means and sums leave it out, as they must.
    return pa.array(values, from_pandas=True)


def _members(entries: Sequence[Entry]) -> pa.Table:
    rows: dict[str, list[object]] = {name: [] for name in TABLES["members"].schema.names}
    for entry in entries:
        body = entry.body
        assert isinstance(body, Members)
        device_nos = body.device_nos or [NOBODY]
        rows["resource"] += [body.resource] * len(device_nos)
        rows["device_no"] += device_nos
        rows["at_ns"] += [entry.written_at_ns] * len(device_nos)
        rows["position"] += [entry.position] * len(device_nos)
    return pa.table(rows, schema=TABLES["members"].schema)


def _event(entry: Entry) -> dict[str, object] | None:
    body = entry.body
    about: dict[str, object] = {}
    match body:
        case Order():
            at_ns = body.issued_at_ns
            about = {"resource": body.resource, "order_no": body.order_no, "code": body.product}
        case Amend() | Cancel() | Plan():
            at_ns, about = body.at_ns, {"order_no": body.order_no}
        case Notice():
            at_ns = body.at_ns
            about = {"code": body.code, "order_no": body.order_no}
        case Hold():
            at_ns, about = body.at_ns, {"code": "held" if body.held else "released"}
        case Correction():
            at_ns, about = body.at_ns, {"device_no": body.device_no, "code": body.method}
        case Verdict():
            at_ns, about = body.at_ns, {"code": body.verdict}
        case Envelopes():
            at_ns, about = body.at_ns, {"code": body.level}
        case _:
            return None
    return about | {
        "at_ns": at_ns,
        "written_at_ns": entry.written_at_ns,
        "position": entry.position,
        "kind": entry.kind.name.lower(),
        "body": _encoder.encode(body).decode(),
    }
