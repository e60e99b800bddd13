"""Three recorded days of two devices, and the API over them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
from tests.history.conftest import HastyFiles

from kapelle.api.history_desk import HistoryDesk
from kapelle.api.server import build
from kapelle.api.settings import ApiSettings
from kapelle.api.times import to_ns
from kapelle.api.watch import Watch
from kapelle.history.ledger import Ledger
from kapelle.history.reader import Reader
from kapelle.history.service import Recorder
from kapelle.history.settings import HistorySettings
from kapelle.history.store import Rows, Store
from kapelle.history.tables import HOUR_NS, PARTITIONS, TABLES
from kapelle.journal.memory import MemoryJournal
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock
from kapelle.runtime.progress import Progress

TOKEN = "test-token-of-32-characters-here"
MINUTE_NS = 60 * 10**9
WH_A_QUARTER = 150
SPRING = "2025-03-30"


def ns(text: str) -> int:
    return to_ns(datetime.fromisoformat(text))


def rows_of(table: str, rows: list[dict[str, object]]) -> Rows:
    return Rows(table, 0, pa.Table.from_pylist(rows, schema=TABLES[table].schema))


def make_record(directory: Path, day: str = SPRING) -> None:
    """Record three days round a day: two devices that export 10 Wh a minute, one of them twice
    as much; the plant said 1 kW all the time."""
    first_ns = ns(f"{day}T00:00:00+00:00") - 24 * HOUR_NS
    last_ns = first_ns + 72 * HOUR_NS
    readings: list[dict[str, object]] = []
    for number in range(2):
        for minute in range(0, 72 * 60, 5):
            at_ns = first_ns + minute * MINUTE_NS
            times = dict.fromkeys(("order", "measured_at_ns", "received_at_ns"), at_ns)
            wh = 10.0 * minute * (number + 1)
            watts = 600.0 * (number + 1)
            told = {"device_no": number, "quality": 0, "power_w": watts, "export_wh": wh}
            readings.append({**times, **told})
    devices = [
        {"device_no": n, "device_id": f"dev-{n}", "active": 1, "at_ns": first_ns, "position": n + 1}
        for n in range(2)
    ]
    said = [
        {"resource": "all", "at_ns": at, "computed_at_ns": at + 10**9, "complete": True,
         "devices": 2, "power_w": 1_000.0, "low_w": 900.0, "high_w": 1_100.0, "live": 1, "late": 0}
        for at in range(first_ns, last_ns, 30 * MINUTE_NS)
    ]  # fmt: skip
    store = Store(directory, files=HastyFiles())
    store.commit(
        [rows_of("devices", devices), rows_of("readings", readings), rows_of("aggregates", said)],
        now_ns=last_ns,
        states={PARTITIONS: b"1"},
    )
    Ledger(store, 1).close(0, last_ns - HOUR_NS, now_ns=last_ns)
    store.close()


@asynccontextmanager
async def serving(
    directory: Path | None, *, recorder: bool = False, is_near: bool = True
) -> AsyncIterator[Any]:
    """Yield a client of the API over a record, and where asked keep the record going.

    `is_near`: the recorder tells the API of what it does, as it can in one process.
    """
    clock, ledger = SystemClock(), Progress()
    journal = MemoryJournal(clock)
    application: Any = build(
        journal=journal,
        watch=Watch(journal=journal, clock=clock, partitions=1),
        clock=clock,
        settings=ApiSettings(port=0),
        token=TOKEN,
        history=HistoryDesk(Reader(directory), ledger) if directory else None,
        directory=Directory.build(1, [Bearer(n, f"dev-{n}", True, 5e3, 5e3) for n in range(2)]),
    )
    transport = httpx.ASGITransport(app=application)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://plant", headers=headers, timeout=30
    ) as http:
        http.journal = journal  # type: ignore[attr-defined]  # for tests to look into
        if not recorder:
            yield http
            return
        assert directory is not None
        keeping = Recorder(
            journal=journal,
            clock=clock,
            settings=HistorySettings(flush_s=60.0, compaction=False),
            directory=directory,
            partitions=1,
            files=HastyFiles(),
            ledger=lambda store: Ledger(store, 1),
            drawn=ledger if is_near else None,
        )
        task = asyncio.create_task(keeping.run())
        try:
            yield http
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def exported(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the rows of export; the import of these devices is told from their power, as none."""
    assert answer.status_code == 200, answer.text
    assert all(row["mwh"] in (0, None) for row in answer.json() if row["register"] == "import")
    return [row for row in answer.json() if row["register"] == "export"]
