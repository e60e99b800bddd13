"""The past over the API: a real record asked in every form, and energy mended in a real ledger."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
import pytest
from tests.history.conftest import HastyFiles

from kapelle.api import history as history_routes
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
from kapelle.model.entries import Kind
from kapelle.model.ids import PLANT
from kapelle.model.plant import Correction
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock

TOKEN = "test-token-of-32-characters-here"
MINUTE_NS = 60 * 10**9
WH_A_QUARTER = 150
ZONE = "Europe/Vienna"
EVER = {"from": "1970-01-01T00:00:00Z", "to": "2200-01-01T00:00:00Z"}
SPRING, AUTUMN = "2025-03-30", "2025-10-26"


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


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("spring")
    make_record(directory)
    return directory


@asynccontextmanager
async def serving(directory: Path | None, *, recorder: bool = False) -> AsyncIterator[Any]:
    """Yield a client of the API over a record, and where asked keep the record going."""
    clock = SystemClock()
    journal = MemoryJournal(clock)
    application: Any = build(
        journal=journal,
        watch=Watch(journal=journal, clock=clock, partitions=1),
        clock=clock,
        settings=ApiSettings(port=0),
        token=TOKEN,
        history=HistoryDesk(Reader(directory)) if directory else None,
        directory=Directory.build(1, [Bearer(n, f"dev-{n}", True, 5e3, 5e3) for n in range(2)]),
    )
    transport = httpx.ASGITransport(app=application)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://plant", headers=headers, timeout=30
    ) as http:
        http.journal = journal  # type: ignore[attr-defined]
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
        )
        task = asyncio.create_task(keeping.run())
        try:
            yield http
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def ask(directory: Path | None, path: str, **query: object) -> httpx.Response:
    async def once() -> httpx.Response:
        async with serving(directory) as http:
            answer: httpx.Response = await http.get(f"/v1/history/{path}", params=query)
            return answer

    return asyncio.run(once())


def exported(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the rows of export; the import of these devices is told from their power, as none."""
    assert answer.status_code == 200, answer.text
    assert all(row["mwh"] in (0, None) for row in answer.json() if row["register"] == "import")
    return [row for row in answer.json() if row["register"] == "export"]


READ: dict[str, Callable[[bytes], pa.Table]] = {
    "csv": lambda body: pyarrow.csv.read_csv(io.BytesIO(body)),
    "arrow": lambda body: pa.ipc.open_stream(body).read_all(),
    "parquet": lambda body: pyarrow.parquet.read_table(io.BytesIO(body)),
}


@pytest.mark.parametrize(
    "path", ["devices/dev-0", "resources/all", "energy/devices/dev-0", "energy/resources/all"]
)
def test_every_form_tells_the_same(record: Path, path: str) -> None:
    query = {"from": "2025-03-30T10:00:00Z", "to": "2025-03-30T12:00:00Z", "step": "15m"}
    told = ask(record, path, **query).json()
    # Energy has a row for each register.
    assert len(told) == (16 if "energy" in path else 8)
    assert told[0]["time"] == "2025-03-30T10:00:00Z"
    for form, read in READ.items():
        answer = ask(record, path, **query, format=form)
        table = read(answer.content)
        assert table.column_names == list(told[0])
        number = "mwh" if "energy" in path else "power_w"
        assert table.column(number).to_pylist() == [row[number] for row in told]
        assert answer.headers["content-type"].startswith(("text/csv", "application/vnd.apache"))


@pytest.mark.parametrize(("day", "hours"), [(SPRING, 23), ("2025-03-29", 24), (AUTUMN, 25)])
def test_a_local_day_has_its_own_hours(tmp_path: Path, day: str, hours: int) -> None:
    make_record(tmp_path, day)
    when = {"day": day, "tz": ZONE}
    assert len(ask(tmp_path, "devices/dev-0", **when, step="raw").json()) == hours * 12
    assert len(ask(tmp_path, "resources/all", **when, step="15m").json()) == hours * 4
    quarters = exported(ask(tmp_path, "energy/devices/dev-0", **when))
    assert len(quarters) == hours * 4
    (whole,) = exported(ask(tmp_path, "energy/devices/dev-0", **when, step="day"))
    assert (whole["local"], whole["quarters"], whole["known"]) == (day, hours * 4, hours * 4)
    assert whole["mwh"] == sum(row["mwh"] for row in quarters)
    assert whole["mwh"] == hours * 4 * WH_A_QUARTER * 1_000
    assert whole["energy_wh"] == whole["mwh"] / 1_000
    assert (whole["coverage"], whole["quality"], whole["register"]) == (1.0, "measured", "export")
    # In autumn an hour comes twice: its labels tell the two apart.
    assert len({row["local"] for row in quarters}) == hours * 4


def test_energy_of_a_resource_is_the_sum_of_its_members(record: Path) -> None:
    parts = [
        exported(ask(record, f"energy/devices/dev-{n}", day=SPRING))[7]["mwh"] for n in range(2)
    ]
    row = exported(ask(record, "energy/resources/all", day=SPRING))[7]
    assert (row["mwh"], row["devices"], row["coverage"]) == (sum(parts), 2, 1.0)
    days = exported(ask(record, "energy/resources/all", month="2025-03", step="day"))
    known = [(row["local"], row["known"]) for row in days if row["known"]]
    # The first quarter-hour of all has no reading before it to begin from; the last are open.
    assert known == [("2025-03-29", 192), ("2025-03-30", 192), ("2025-03-31", 184)]
    assert [row["mwh"] for row in days[:28]] == [None] * 28
    (month,) = exported(ask(record, "energy/resources/all", month="2025-03", step="month"))
    assert month["mwh"] == sum(row["mwh"] or 0 for row in days)
    assert month["coverage"] == pytest.approx(568 / (2 * 31 * 96))


def test_as_published_and_as_corrected(record: Path) -> None:
    when = {"from": "2025-03-30T10:00:00Z", "to": "2025-03-30T11:00:00Z"}
    said = ask(record, "resources/all", **when, series="published", step="raw").json()
    assert [(row["power_w"], row["computed_at_ns"] - row["at_ns"]) for row in said] == [
        (1_000.0, 10**9)
    ] * 2
    assert (said[0]["devices"], said[0]["live"], said[0]["coverage"]) == (2, 1, 0.5)
    (mean, _) = ask(record, "resources/all", **when | {"step": "15m", "series": "published"}).json()
    assert (mean["power_w"], mean["coverage"], mean["ticks"]) == (1_000.0, 0.5, 1)
    assert mean["computed_at_ns"] == said[0]["computed_at_ns"]
    known = ask(record, "resources/all", **when).json()
    assert [(row["power_w"], row["coverage"]) for row in known] == [(1_800.0, 1.0)] * 4


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("devices/nobody", {"day": SPRING}, 404, "history-unknown"),
        ("resources/nowhere", {"day": SPRING}, 404, "history-unknown"),
        ("energy/devices/nobody", {"day": SPRING}, 404, "history-unknown"),
        ("energy/resources/nowhere", {"day": SPRING}, 404, "history-unknown"),
        ("devices/dev-0", {}, 422, "period-invalid"),
        ("devices/dev-0", {"day": SPRING, "month": "2025-03"}, 422, "period-invalid"),
        ("devices/dev-0", {"day": SPRING, "tz": "Mars/Olympus"}, 422, "period-invalid"),
        ("devices/dev-0", {"day": SPRING, "step": "2m"}, 422, "request-invalid"),
        ("resources/all", {**EVER, "step": "1m"}, 413, "period-too-long"),
        ("energy/resources/all", EVER, 422, "history-question"),
        ("devices/dev-0", {"day": "0001-01-01"}, 422, "period-invalid"),
        ("devices/dev-0", {"day": SPRING, "format": "xls"}, 422, "request-invalid"),
        ("energy/devices/dev-0", {"day": SPRING, "revision": "last"}, 422, "request-invalid"),
        ("energy/devices/dev-0", {"day": SPRING, "revision": "-1"}, 422, "request-invalid"),
        (
            "energy/devices/dev-0",
            {"day": SPRING, "revision": "all", "step": "day"},
            422,
            "history-question",
        ),
    ],
)
def test_what_cannot_be_answered_says_why(
    record: Path, path: str, query: dict[str, str], status: int, code: str
) -> None:
    answer = ask(record, path, **query)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_long_answer_is_not_for_json(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_routes, "JSON_ROWS_MAX", 200)
    answer = ask(record, "devices/dev-0", day=SPRING)
    assert answer.status_code == 413
    assert "parquet" in answer.json()["detail"]
    assert ask(record, "devices/dev-0", day=SPRING, format="csv").status_code == 200
    assert ask(record, "energy/devices/dev-0", day=SPRING).status_code == 200


def test_no_record_and_no_history(tmp_path: Path) -> None:
    for path in ("devices/dev-0", "resources/all", "energy/devices/dev-0"):
        assert ask(None, path, day=SPRING).status_code == 503
        assert ask(tmp_path / "nothing", path, day=SPRING).status_code == 404


# Corrections: written to the journal, applied by a real recorder.

LATELY = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
"""A ledger that has to catch up with months takes its time."""
ASKED: dict[str, object] = {
    "device_id": "dev-0", "register": "export", "from": f"{LATELY}T10:00:00Z",
    "to": f"{LATELY}T11:00:00Z", "method": "set", "value": 800.0, "reason": "it was swapped",
}  # fmt: skip
NOTHING = {"from": "2025-06-01T10:00:00Z", "to": "2025-06-01T11:00:00Z"}
WHEN = {"from": f"{LATELY}T09:45:00Z", "to": f"{LATELY}T11:15:00Z"}
PLAIN = [WH_A_QUARTER * 1_000] * 6


@pytest.fixture(scope="module")
def lately(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lately")
    make_record(directory, LATELY)
    return directory


async def mwh(http: httpx.AsyncClient, revision: str = "latest") -> list[int]:
    path = "/v1/history/energy/devices/dev-0"
    answer = await http.get(path, params=WHEN | {"revision": revision})
    return [row["mwh"] for row in exported(answer)]


def mend(directory: Path, play: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with serving(directory, recorder=True) as http, asyncio.timeout(60):
            await play(http)

    make_record(directory, LATELY)
    asyncio.run(main())


def test_a_correction_is_previewed_made_and_taken_back(tmp_path: Path) -> None:
    async def play(http: Any) -> None:
        path = "/v1/energy/corrections"
        looked = await http.post(path, json=ASKED | {"dry_run": True, "author": "ada"})
        assert looked.status_code == 200, looked.text
        assert looked.json()["correction"] is None
        assert await mwh(http) == PLAIN
        made = await http.post(path, json=ASKED | {"author": "ada"})
        assert made.status_code == 201, made.text
        told = made.json()
        assert told["changes"] == looked.json()["changes"]
        assert (told["intervals"], told["before_mwh"], told["after_mwh"]) == (4, 600_000, 800_000)
        assert told["correction"] | {"at": ""} == {
            "correction_no": 1, "device_id": "dev-0", "device_no": 0, "register": "export",
            "from": f"{LATELY}T10:00:00Z", "to": f"{LATELY}T11:00:00Z", "method": "set",
            "value": 800.0, "author": "ada", "reason": "it was swapped", "at": "",
            "applied": True, "undoes": None, "undone_by": None,
        }  # fmt: skip
        assert await mwh(http) == [150_000, *[200_000] * 4, 150_000]
        assert await mwh(http, "0") == PLAIN
        back = await http.post(f"{path}/1/undo", json={"reason": "it was not"})
        assert back.status_code == 201, back.text
        assert await mwh(http) == PLAIN
        every = await http.get(
            "/v1/history/energy/devices/dev-0", params=WHEN | {"revision": "all"}
        )
        story = [
            (row["revision"], row["mwh"], row["author"], row["reason"])
            for row in every.json()
            if (row["time"], row["register"]) == (f"{LATELY}T10:00:00Z", "export")
        ]
        assert story == [
            (0, 150_000, "", ""),
            (1, 200_000, "ada", "it was swapped"),
            (2, 150_000, "api", "it was not"),
        ]
        listed = (await http.get(path, params={"device": "dev-0"})).json()["corrections"]
        brief = [(c["correction_no"], c["method"], c["undoes"], c["undone_by"]) for c in listed]
        assert brief == [(2, "undo", 1, None), (1, "set", None, 2)]
        assert (await http.get(path, params={"device": "dev-1"})).json()["corrections"] == []
        page = (await http.get(path, params={"limit": 1})).json()
        assert page["next_before"] == 2
        rest = (await http.get(path, params={"before": 2})).json()
        assert [c["correction_no"] for c in rest["corrections"]] == [1]

    mend(tmp_path, play)


def test_the_same_key_corrects_once_and_many_at_once_get_numbers_of_their_own(
    tmp_path: Path,
) -> None:
    async def play(http: Any) -> None:
        path, key = "/v1/energy/corrections", {"Idempotency-Key": "k-1"}
        first = await http.post(path, json=ASKED, headers=key)
        again = await http.post(path, json=ASKED, headers=key)
        other = await http.post(path, json=ASKED | {"value": 1.0}, headers=key)
        assert [a.status_code for a in (first, again, other)] == [201, 201, 409]
        assert again.json()["correction"] == first.json()["correction"]
        assert again.json()["changes"] == []
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(
                    http.post(
                        path, json=ASKED | {"method": "scale", "value": 2.0 + n, "reason": f"{n}"}
                    )
                )
                for n in range(5)
            ]
        answers = [task.result() for task in asked]
        assert [answer.status_code for answer in answers] == [201] * 5
        numbers = sorted(answer.json()["correction"]["correction_no"] for answer in answers)
        assert numbers == [2, 3, 4, 5, 6]
        entries = await http.journal.read(PLANT, 0, 100, {Kind.CORRECTION})
        written = [e.body for e in entries if isinstance(e.body, Correction)]
        assert [body.correction_no for body in written] == [1, 2, 3, 4, 5, 6]

    mend(tmp_path, play)


def test_two_processes_at_once_never_share_a_number(tmp_path: Path) -> None:
    """Another writer of the line comes between: the journal refuses, and the next is taken."""

    async def play(http: Any) -> None:
        journal: MemoryJournal = http.journal
        append, came = journal.append, []

        async def raced(topic: str, bodies: Any, **more: Any) -> int:
            if more.get("writer") == "energy" and not came:
                came.append(1)
                (body,) = bodies
                await append(topic, bodies, writer="energy")
                assert body.correction_no == 1
            return await append(topic, bodies, **more)

        journal.append = raced  # type: ignore[method-assign]
        made = await http.post("/v1/energy/corrections", json=ASKED | {"value": 900.0})
        # What the other wrote is the same here, so that nothing is left to change.
        assert made.status_code == 422
        assert made.json()["type"].endswith(":correction-empty")
        entries = await journal.read(PLANT, 0, 100, {Kind.CORRECTION})
        assert len(entries) == 1

    mend(tmp_path, play)


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"device_id": "nobody"}, 404, "history-unknown"),
        ({"register": "both"}, 422, "request-invalid"),
        ({"from": f"{LATELY}T10:00:00"}, 422, "request-invalid"),
        ({"from": f"{LATELY}T10:01:00Z"}, 422, "history-question"),
        ({"from": f"{LATELY}T12:00:00Z"}, 422, "history-question"),
        ({"from": "2020-03-30T12:00:00Z"}, 422, "history-question"),
        ({"method": "guess"}, 422, "request-invalid"),
        ({"value": None}, 422, "correction-value"),
        ({"method": "interpolate"}, 422, "correction-value"),
        ({"value": -1.0}, 422, "request-invalid"),
        ({"value": float("1e300")}, 422, "history-question"),
        ({"value": float("1e300"), "method": "scale"}, 422, "history-question"),
        ({"from": "0001-01-01T00:00:00Z"}, 422, "history-question"),
        ({"to": "9999-12-31T23:59:59Z"}, 422, "correction-early"),
        ({"reason": ""}, 422, "request-invalid"),
        ({"reason": "  "}, 422, "history-question"),
        ({"method": "scale", "value": 1.0, **NOTHING}, 422, "correction-empty"),
        ({"valeu": 1.0}, 422, "request-invalid"),
        ({"to": (datetime.now(UTC) + timedelta(days=1)).isoformat()}, 422, "correction-early"),
    ],
)
def test_a_correction_that_cannot_be_meant(
    lately: Path, changed: dict[str, object], status: int, code: str
) -> None:
    async def once() -> None:
        async with serving(lately) as http:
            answer = await http.post("/v1/energy/corrections", json=ASKED | changed)
            found = (answer.status_code, answer.json()["type"].rpartition(":")[2])
            assert found == (status, code), answer.text
            assert await http.journal.last(PLANT) == 0
            undo = await http.post("/v1/energy/corrections/9/undo", json={"reason": "no"})
            assert undo.status_code == 404

    asyncio.run(once())


def test_what_is_not_applied_yet_says_so(lately: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No recorder runs: the correction is durable, and nobody else can be judged before it."""
    monkeypatch.setattr("kapelle.api.energy_desk._WAIT_S", 0.1)

    async def once() -> None:
        async with serving(lately) as http:
            made = await http.post("/v1/energy/corrections", json=ASKED)
            assert made.status_code == 202
            assert made.json()["correction"]["applied"] is False
            second = await http.post("/v1/energy/corrections", json=ASKED)
            assert second.status_code == 503
            assert second.headers["Retry-After"] == "5"
            (told,) = (await http.get("/v1/energy/corrections")).json()["corrections"]
            assert (told["correction_no"], told["applied"]) == (1, False)

    asyncio.run(once())
