"""A record in a directory, readings that reach it in any way, and its ledger."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from tests.history.conftest import HastyFiles

from kapelle.history.energy import latest
from kapelle.history.ledger import Ledger
from kapelle.history.settings import HistorySettings
from kapelle.history.store import Rows, Store
from kapelle.history.tables import METRICS, QUARTER_NS, TABLES
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Correction

T0 = 1_772_000_100 // 900 * 900 * NS_PER_S
MINUTE_NS = 60 * NS_PER_S


def q(quarters: float) -> int:
    """Return the time so many quarter-hours after the beginning."""
    return T0 + round(quarters * QUARTER_NS)


def readings(rows: list[tuple[int, int, float]], received_ns: int | None = None) -> pa.Table:
    """Return the table of (device_no, measured_at_ns, export_wh) as reported in time."""
    device, at_ns, wh = zip(*rows, strict=True) if rows else ((), (), ())
    columns = {
        "device_no": np.array(device, np.int32),
        "order": np.array(at_ns, np.int64),
        "measured_at_ns": np.array(at_ns, np.int64),
        "received_at_ns": np.array(at_ns if received_ns is None else [received_ns] * len(rows)),
        "quality": np.zeros(len(rows), np.uint8),
    }
    columns |= dict.fromkeys(METRICS, pa.nulls(len(rows), pa.float64()))
    columns["export_wh"] = pa.array(wh, pa.float64())
    return pa.table(columns, schema=TABLES["readings"].schema)


def powers(rows: list[tuple[int, int, float]]) -> pa.Table:
    table = readings(rows)
    place = table.schema.get_field_index("power_w")
    swapped = table.set_column(place, "power_w", table.column("export_wh"))
    place = table.schema.get_field_index("export_wh")
    return swapped.set_column(place, "export_wh", pa.nulls(len(rows), pa.float64()))


def devices(count: int, **numbers: float) -> pa.Table:
    schema = TABLES["devices"].schema
    plain = {"nameplate_up_w": 5000.0, "nameplate_down_w": 5000.0, "meter_resolution_wh": 1.0}
    columns: dict[str, object] = {}
    for field in schema:
        if pa.types.is_string(field.type):
            columns[field.name] = [""] * count
        elif pa.types.is_floating(field.type):
            columns[field.name] = [(plain | numbers).get(field.name)] * count
        else:
            columns[field.name] = [1] * count
    columns["device_no"] = list(range(count))
    columns["at_ns"] = [T0] * count
    return pa.table(columns, schema=schema)


class Record:
    """The record and its ledger, which may be thrown away at any time."""

    def __init__(self, directory: Path, count: int = 1, partitions: int = 1, **meter) -> None:
        self.store = Store(directory, HistorySettings(), HastyFiles())
        self.store.catalog._db.execute("PRAGMA synchronous = OFF")
        self.partitions = partitions
        self.ledger = Ledger(self.store, partitions)
        table = devices(count, **meter)
        numbers = np.arange(count)
        for partition in range(partitions):
            mine = table.filter(pa.array(numbers % partitions == partition))
            self.store.commit([Rows("devices", partition, mine)], now_ns=T0)

    def flush(self, table: pa.Table, now_ns: int) -> None:
        """Take readings into the record, as the recorder does."""
        number = table.column("device_no").to_numpy()
        rows = [
            Rows("readings", p, table.filter(pa.array(number % self.partitions == p)))
            for p in range(self.partitions)
        ]
        rows = [part for part in rows if len(part.data)]
        self.store.commit(rows, now_ns=now_ns, states=self.ledger.note(rows))

    def take(self, rows: list[tuple[int, int, float]], now_ns: int) -> int:
        self.flush(readings(rows), now_ns)
        return self.ledger.work(now_ns)

    def crash(self) -> None:
        self.ledger = Ledger(self.store, self.partitions)

    def rows(self) -> pa.Table:
        parts = [self.store.read("energy", p) for p in range(self.partitions)]
        keys = ("device_no", "starts_at_ns", "register", "revision")
        return pa.concat_tables(parts).sort_by([(key, "ascending") for key in keys])

    def said(self, device_no: int = 0, register: int = 0) -> dict[int, list[int | None]]:
        """Return every revision of each quarter, by its number from the beginning."""
        found: dict[int, list[int | None]] = {}
        for row in self.rows().to_pylist():
            if (row["device_no"], row["register"]) == (device_no, register):
                quarter = (row["starts_at_ns"] - T0) // QUARTER_NS
                found.setdefault(quarter, []).append(row["mwh"])
        return found

    def last(self) -> dict[tuple[int, int, int], tuple[int | None, int]]:
        return {
            (row["device_no"], row["starts_at_ns"], row["register"]): (row["mwh"], row["quality"])
            for row in latest(self.rows()).to_pylist()
        }


def correction(number: int, method, start: float, end: float, value: float = 0.0, **more):
    return Correction(
        correction_no=number,
        device_no=more.pop("device_no", 0),
        register=more.pop("register", "export"),
        starts_at_ns=q(start),
        ends_at_ns=q(end),
        method=method,
        value=value,
        at_ns=more.pop("at_ns", q(100) + number),
        issued_by="anna",
        reason="meter replaced",
        **more,
    )
