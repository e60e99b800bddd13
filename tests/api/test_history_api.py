"""The past over the API: a real record asked in every form."""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
import pytest
from tests.api.record_worlds import SPRING, WH_A_QUARTER, exported, make_record, serving

from kapelle.api import history as history_routes

ZONE = "Europe/Vienna"
EVER = {"from": "1970-01-01T00:00:00Z", "to": "2200-01-01T00:00:00Z"}
AUTUMN = "2025-10-26"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("spring")
    make_record(directory)
    return directory


def ask(directory: Path | None, path: str, **query: object) -> httpx.Response:
    async def once() -> httpx.Response:
        async with serving(directory) as http:
            answer: httpx.Response = await http.get(f"/v1/history/{path}", params=query)
            return answer

    return asyncio.run(once())


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
