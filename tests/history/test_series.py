"""What was published stays as it was said; what is known now is the sum over the members."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.history.conftest import START_NS, HastyFiles

from kapelle.errors import NotFound
from kapelle.history import corrected
from kapelle.history.published import Publisher
from kapelle.history.reader import Reader
from kapelle.history.store import Rows, Store
from kapelle.history.tables import TABLES
from kapelle.model.entries import Entry, Kind
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.summaries import Curve, ResourceSummary, Summary

MINUTE_NS = 60 * NS_PER_S
FIRST_NS = START_NS // (15 * MINUTE_NS) * 15 * MINUTE_NS


def rows_of(table: str, rows: list[dict[str, object]]) -> Rows:
    return Rows(table, 0, pa.Table.from_pylist(rows, schema=TABLES[table].schema))


def reading(device: int, minute: float, power_w: float) -> dict[str, object]:
    at_ns = FIRST_NS + round(minute * MINUTE_NS)
    times = dict.fromkeys(("order", "measured_at_ns", "received_at_ns"), at_ns)
    return {"device_no": device, "quality": 0, "power_w": power_w, **times}


def enrolment(device: int, minute: float, position: int, active: int = 1) -> dict[str, object]:
    at_ns = FIRST_NS + round(minute * MINUTE_NS)
    return {"device_no": device, "active": active, "at_ns": at_ns, "position": position}


def record(directory: Path, *rows: Rows) -> Reader:
    store = Store(directory, files=HastyFiles())
    store.commit(rows, now_ns=FIRST_NS)
    store.close()
    return Reader(directory)


def test_the_sum_over_members_with_gaps_filled(tmp_path: Path) -> None:
    reader = record(
        tmp_path,
        rows_of("devices", [enrolment(0, -60, 1), enrolment(4, -60, 1), enrolment(4, 4, 2, 0)]),
        rows_of(
            "readings",
            # 0 is silent from minute 2 to 4; 4 leaves in minute 4 and goes on reporting.
            [reading(0, m, p) for m, p in ((0, 100), (0.5, 200), (1, 150), (5, 550))]
            + [reading(4, m, 10.0) for m in range(6)],
        ),
    )
    found = reader.resource("all", FIRST_NS, FIRST_NS + 7 * MINUTE_NS, "1m")
    rows = [
        (r["power_w"], r["devices"], r["measured"], r["interpolated"]) for r in found.to_pylist()
    ]
    assert rows == [
        (160.0, 2, 2, 0),
        (160.0, 2, 2, 0),
        (260.0, 2, 1, 1),
        (360.0, 2, 1, 1),
        (450.0, 1, 0, 1),
        (550.0, 1, 1, 0),
        (None, 1, 0, 0),
    ]
    assert found.column("coverage").to_pylist() == [1, 1, 1, 1, 1, 1, 0]


def test_a_gap_too_long_is_missing(tmp_path: Path) -> None:
    reader = record(
        tmp_path,
        rows_of("devices", [enrolment(0, -60, 1)]),
        rows_of("readings", [reading(0, 0, 1.0), reading(0, 31, 1.0), reading(0, 61, 1.0)]),
    )
    found = reader.resource("all", FIRST_NS, FIRST_NS + 62 * MINUTE_NS, "1m").to_pylist()
    assert [row["coverage"] for row in found] == [1] + [0] * 30 + [1] * 31


@settings(max_examples=10)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(-40, 170), st.integers(-9, 9)),
        min_size=1,
        max_size=40,
        unique_by=lambda row: row[:2],
    )
)
def test_corrected_as_the_slow_way(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[int, int, int]]
) -> None:
    reader = record(
        tmp_path_factory.mktemp("record"),
        rows_of("devices", [enrolment(device, -60, 1) for device in range(4)]),
        rows_of("readings", [reading(d, m, float(p)) for d, m, p in said]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corrected, "ROWS", 1)  # an hour at once
        found = reader.resource("all", FIRST_NS, FIRST_NS + 135 * MINUTE_NS, "1m").to_pylist()
    reader.close()
    assert len(found) == 135
    for minute, row in enumerate(found):
        power_w, counted = 0.0, 0
        for device in range(4):
            known = sorted((m, p) for d, m, p in said if d == device)
            before = [(m, p) for m, p in known if m <= minute][-1:]
            after = [(m, p) for m, p in known if m >= minute][:1]
            if not before or not after or after[0][0] - before[0][0] > 30:
                continue
            (m0, p0), (m1, p1) = before[0], after[0]
            power_w += p0 if m0 == m1 else p0 + (p1 - p0) * (minute - m0) / (m1 - m0)
            counted += 1
        assert row["measured"] + row["interpolated"] == counted
        assert (row["power_w"] or 0.0) == pytest.approx(power_w, abs=1e-9)


def test_an_unknown_resource_is_named(tmp_path: Path) -> None:
    reader = record(tmp_path, rows_of("devices", [enrolment(0, 0, 1)]))
    with pytest.raises(NotFound, match="nowhere"):
        reader.resource("nowhere", FIRST_NS, FIRST_NS + MINUTE_NS)


def test_energy_by_revision(tmp_path: Path) -> None:
    def row(quarter: int, revision: int, mwh: int, reason: str = "") -> dict[str, object]:
        at_ns = FIRST_NS + quarter * 15 * MINUTE_NS
        made = {"computed_at_ns": at_ns, "author": "", "reason": reason, "quality": 1}
        return {
            "device_no": 4,
            "starts_at_ns": at_ns,
            "register": 0,
            "mwh": mwh,
            "revision": revision,
        } | made

    reader = record(
        tmp_path,
        rows_of("devices", [enrolment(4, -60, 1)]),
        rows_of("energy", [row(0, 0, 5), row(0, 1, 6, "late"), row(0, 2, 7), row(1, 0, 9)]),
    )
    ends_ns = FIRST_NS + 60 * MINUTE_NS

    def mwh(revision: object) -> list[int]:
        return reader.energy(4, FIRST_NS, ends_ns, revision)["mwh"].to_pylist()  # type: ignore[arg-type]  # a parameter of the test

    assert mwh("latest") == [7, 9]
    assert mwh(0) == [5, 9]
    assert mwh(1) == [6, 9]
    assert mwh("all") == [5, 6, 7, 9]
    assert reader.energy("all", FIRST_NS, ends_ns)["mwh"].to_pylist() == [7, 9]


def summary(partition: int, tick_s: int, power_w: float) -> Summary:
    nothing = Curve([0.0], [0.0])
    part = ResourceSummary(
        resource="all",
        devices=1,
        power_w=power_w,
        variance_w2=4.0,
        shared_std_w={},
        measured_w=power_w,
        freshness=[0, 1, 0, 0, 0],
        oldest_age_s=1.0,
        nameplate_w=100.0,
        uncontrolled_w=0.0,
        headroom_up_w=0.0,
        headroom_down_w=0.0,
        commanded_w=0.0,
        continuous=nothing,
        blocks=nothing,
        phases=[0] * 18,
        excluded={},
        by_kind_w={},
        vendors={},
    )
    return Summary(partition, START_NS + tick_s * NS_PER_S, 1, [part])


def test_each_tick_is_published_once_and_survives_a_restart() -> None:
    ticks = [(0, 1, 10.0), (1, 1, 20.0), (0, 2, 11.0), (0, 3, 12.0), (1, 3, 22.0), (1, 2, 99.0)]
    entries = [
        Entry(PLANT, place, Kind.SUMMARY, "owner", 0, START_NS + place, summary(*tick))
        for place, tick in enumerate(ticks, start=1)
    ]

    def told(cut: int) -> list[tuple[object, ...]]:
        first = Publisher(2)
        rows = first.apply(entries[:cut])
        # Entries that were told already come again: they change nothing.
        rows += Publisher(2, first.state()).apply(entries[max(0, cut - 2) :])
        return [
            ((r["at_ns"] - START_NS) // NS_PER_S, r["power_w"], r["complete"], r["computed_at_ns"])
            for part in rows
            for r in part.data.to_pylist()
        ]

    whole = told(len(entries))
    assert whole == [
        (1, 30.0, True, START_NS + 2),
        # Partition 1 never spoke of the second tick before the third began.
        (2, 31.0, False, START_NS + 4),
        (3, 34.0, True, START_NS + 5),
    ]
    for cut in range(len(entries)):
        assert told(cut) == whole
