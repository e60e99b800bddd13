"""The ledger says each quarter-hour once, revises it in the open, and forgets nothing."""

import asyncio
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_worlds import MINUTE_NS, T0, Record, correction, powers, q, readings
from tests.history.conftest import START_NS, HandClock

from kapelle.errors import Invalid
from kapelle.history.corrections import Energy, corrected, divided, in_force
from kapelle.history.energy import latest, published
from kapelle.history.ledger import Ledger
from kapelle.history.reader import Reader
from kapelle.history.service import Recorder
from kapelle.history.settings import HistorySettings
from kapelle.history.tables import QUARTER_NS
from kapelle.journal.memory import MemoryJournal
from kapelle.model.blocks import Readings
from kapelle.model.enums import EnergyQuality, Metric

MEASURED, ESTIMATED = EnergyQuality.MEASURED, EnergyQuality.ESTIMATED


def slow_then_fast(rows: list) -> list:
    """Let a register lag behind and catch up."""
    count = len(rows)
    lag = [8.0 * min(place + 1, count - place) for place in range(count)]
    return [(no, at, wh - less) for (no, at, wh), less in zip(rows, lag, strict=True)]


def minutely(device_no: int, start: float, end: float, w: float = 1000.0) -> list:
    """Return a register that counts w watt-hours an hour, read every minute."""
    times = range(q(start), q(end) + 1, MINUTE_NS)
    return [(device_no, at, 5e5 + (at - T0) / MINUTE_NS * w / 60) for at in times]


def test_a_quarter_hour_is_published_once_it_is_over(tmp_path: Path) -> None:
    record = Record(tmp_path)
    assert record.take(minutely(0, 0, 1), q(1) + MINUTE_NS) == 0
    assert record.take(minutely(0, 1, 2), q(2) + MINUTE_NS) == 1
    assert record.said() == {0: [250_000]}
    assert record.take([], q(2) + 2 * MINUTE_NS) == 1
    assert record.take([], q(2) + 3 * MINUTE_NS) == 0
    assert record.said() == {0: [250_000], 1: [250_000]}
    row = record.rows().to_pylist()[0]
    assert (row["revision"], row["quality"], row["author"]) == (0, MEASURED, "")
    assert row["computed_at_ns"] == q(2) + MINUTE_NS


def test_late_readings_revise_and_the_old_row_stays(tmp_path: Path) -> None:
    record = Record(tmp_path)
    every = minutely(0, 0, 8)
    lost = [row for row in every if q(2) < row[1] < q(5)]
    lost = slow_then_fast(lost)
    record.take([row for row in every if not q(2) < row[1] < q(5)], q(8) + 2 * MINUTE_NS)
    assert record.said()[2] == [250_000]
    before = record.rows().to_pylist()
    assert record.take(lost, q(9)) > 0
    said = record.said()
    assert said[1] == [250_000]
    assert said[2][:1] == said[3][:1] == [250_000]
    assert len(said[2]) == 2
    assert sum(revisions[-1] for revisions in said.values()) == 8 * 250_000
    after = record.rows().to_pylist()
    assert [row for row in after if row["revision"] == 0 and row in before] == before
    late = [row for row in after if row["revision"] == 1]
    assert {row["reason"] for row in late} == {"late readings"}
    # The same once more changes nothing.
    assert record.take(lost, q(9) + MINUTE_NS) == len(record.rows()) - len(after)
    assert record.said() | {8: None} == said | {8: None}


def test_a_month_of_silence_is_published_as_estimated_when_it_ends(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.take(minutely(0, 0, 4), q(4) + 2 * MINUTE_NS)
    for day in range(1, 30):
        record.take([], q(4 + 96 * day))
    assert set(record.said()) == {0, 1, 2, 3}
    back = 4 + 96 * 30
    record.take(minutely(0, back, back + 4), q(back + 4) + 2 * MINUTE_NS)
    rows = record.rows().to_pylist()
    assert len(rows) == back + 4
    assert sum(row["mwh"] for row in rows) == (back + 4) * 250_000
    assert {row["quality"] for row in rows[4:back]} == {ESTIMATED}
    assert {row["quality"] for row in rows[back:]} == {MEASURED}
    assert {row["revision"] for row in rows} == {0}


def test_a_device_without_registers_is_integrated_in_both_directions(tmp_path: Path) -> None:
    record = Record(tmp_path)
    rows = [(0, at, 2000.0) for at in range(q(0), q(2) + 1, MINUTE_NS)]
    rows += [(0, at, -400.0) for at in range(q(2) + MINUTE_NS, q(4) + 1, MINUTE_NS)]
    record.flush(powers(rows), q(4) + 2 * MINUTE_NS)
    record.ledger.work(q(4) + 2 * MINUTE_NS)
    # Each step is rounded by itself.
    assert record.said()[0] == pytest.approx([500_000], abs=15)
    assert record.said(register=1)[3] == pytest.approx([100_000], abs=15)
    assert {row["quality"] for row in record.rows().to_pylist()} == {EnergyQuality.INTEGRATED}


def test_a_reset_at_the_edge_waits_for_what_explains_it(tmp_path: Path) -> None:
    record = Record(tmp_path)
    rows = minutely(0, 0, 1 - 1 / 15)
    fell = [(0, q(1) + minute * MINUTE_NS, 3.0 + 16 * minute) for minute in range(18)]
    record.take([*rows, fell[0]], q(1) + 2 * MINUTE_NS)
    assert record.said() == {}
    record.take(fell[1:], q(2) + 3 * MINUTE_NS)
    assert record.said()[0] == [round(14 / 15 * 250_000) + 3000]
    assert record.rows().to_pylist()[0]["quality"] == ESTIMATED


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 8]))
def test_however_readings_come_the_last_word_is_the_same(seed: int, partitions: int) -> None:
    draw = random.Random(seed)
    rows = []
    for device in range(3):
        wh, at = draw.uniform(1e5, 1e6), q(0)
        every = draw.choice([1, 5, 15]) * MINUTE_NS
        while at < q(8):
            passed = every if draw.random() < 0.93 else draw.randrange(1, 6) * QUARTER_NS
            at += passed
            wh += draw.uniform(0.2, 0.9) * 5000 * passed / (60 * MINUTE_NS)
            if draw.random() < 0.02:
                wh = 0.0
            shown = wh * 50 if draw.random() < 0.02 else wh
            rows.append((device, at, float(int(shown))))
    now = q(16)
    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as rough:
        whole = Record(Path(plain), 3)
        whole.take(rows, now)

        record = Record(Path(rough), 3, partitions)
        waiting = [
            (at + int(draw.expovariate(1 / 3)) * QUARTER_NS // 2, (no, at, wh))
            for no, at, wh in rows
        ]
        waiting += draw.sample(waiting, len(waiting) // 10)
        before: list = []
        for place in range(1, 17):
            time = q(place)
            batch = [row for comes, row in waiting if q(place - 1) <= comes < time]
            draw.shuffle(batch)
            if draw.random() < 0.2:
                record.flush(readings(batch), time)
                record.crash()
            else:
                record.take(batch, time)
            if place == 8:
                before = record.rows().to_pylist()
        assert [row for row in record.rows().to_pylist() if row in before] == before
        late = [row for comes, row in waiting if comes >= q(16)]
        record.take(late, now)
        record.crash()
        record.ledger.work(now)
        assert record.last() == whole.last()
        revisions: dict = {}
        for row in record.rows().to_pylist():
            key = (row["device_no"], row["starts_at_ns"], row["register"])
            assert row["revision"] == revisions.get(key, -1) + 1
            revisions[key] = row["revision"]


def closed(tmp_path: Path) -> Record:
    record = Record(tmp_path)
    record.take(minutely(0, 0, 8), q(8) + 2 * MINUTE_NS)
    return record


def last(record: Record) -> list[int | None]:
    return [revisions[-1] for _, revisions in sorted(record.said().items())]


@pytest.mark.parametrize(
    ("method", "value", "expected"),
    [
        ("set", 600.0, [250_000, 250_000, 300_000, 300_000, 250_000]),
        ("scale", 0.5, [250_000, 250_000, 125_000, 125_000, 250_000]),
        ("interpolate", 0.0, [250_000, 250_000, 250_000, 250_000, 250_000]),
    ],
)
def test_a_correction_is_a_revision_and_undone_by_another(
    tmp_path: Path, method: str, value: float, expected: list[int]
) -> None:
    record = closed(tmp_path)
    before = last(record)
    asked = correction(1, method, 2, 4, value)
    preview = record.ledger.preview(asked).to_pylist()
    assert record.ledger.correct(asked) == len(preview) == 2
    assert last(record)[:5] == expected
    assert [row["after_mwh"] for row in preview] == expected[2:4]
    assert [row["before_mwh"] for row in preview] == before[2:4]
    row = record.rows().to_pylist()[3]
    assert (row["revision"], row["author"], row["reason"]) == (1, "anna", "meter replaced")
    assert row["quality"] == MEASURED | EnergyQuality.CORRECTED
    assert record.ledger.correct(asked) == 0

    undo = correction(2, "undo", 2, 4, undoes=1)
    assert record.ledger.correct(undo) == 2
    assert last(record) == before
    assert record.said()[2] == [250_000, expected[2], 250_000]
    assert [row["quality"] for row in latest(record.rows()).to_pylist()] == [MEASURED] * 8
    # And undone itself.
    assert record.ledger.correct(correction(3, "undo", 2, 4, undoes=2)) == 2
    assert last(record)[:5] == expected
    assert published(record.rows()).column("mwh").to_pylist() == before
    assert latest(record.rows(), q(50)).column("mwh").to_pylist() == before


def test_late_readings_under_a_correction_lose_neither(tmp_path: Path) -> None:
    record = Record(tmp_path)
    every = minutely(0, 0, 8)
    lost = slow_then_fast([row for row in every if q(2) < row[1] < q(4)])
    record.take([row for row in every if not q(2) < row[1] < q(4)], q(8) + 2 * MINUTE_NS)
    record.ledger.correct(correction(1, "scale", 2, 4, 0.5, at_ns=q(9)))
    assert last(record)[2:4] == [125_000, 125_000]
    record.take(lost, q(10))
    measured = [row["measured_mwh"] for row in latest(record.rows()).to_pylist()][:8]
    assert sum(measured) == 2_000_000
    assert measured[2:4] != [250_000, 250_000]
    assert last(record)[2:4] == [round(mwh / 2) for mwh in measured[2:4]]
    numbers = [row["correction_no"] for row in latest(record.rows()).to_pylist()]
    assert numbers[:5] == [0, 0, 1, 1, 0]
    record.ledger.correct(correction(2, "undo", 2, 4, undoes=1, at_ns=q(11)))
    assert last(record)[:8] == measured


def test_what_nobody_knows_can_be_set_and_is_unknown_again_when_undone(tmp_path: Path) -> None:
    record = closed(tmp_path)
    record.ledger.correct(correction(1, "set", 9, 11, 1.001))
    assert record.said()[9] == [501]
    assert record.said()[10] == [500]
    assert latest(record.rows()).to_pylist()[-1]["quality"] == EnergyQuality.CORRECTED
    record.ledger.correct(correction(2, "undo", 9, 11, undoes=1))
    assert record.said()[9] == [501, None]
    # And readings that come find their place beneath a standing one.
    record.ledger.correct(correction(3, "set", 9, 11, 2.0))
    record.take(minutely(0, 8, 12), q(12) + 2 * MINUTE_NS)
    assert record.said()[9][-1] == 1000
    record.ledger.correct(correction(4, "undo", 9, 11, undoes=3))
    assert last(record) == [250_000] * 12


def test_a_later_correction_counts_instead(tmp_path: Path) -> None:
    record = closed(tmp_path)
    record.ledger.correct(correction(1, "set", 2, 6, 4.0))
    record.ledger.correct(correction(2, "scale", 3, 4, 2.0))
    assert last(record)[2:6] == [1000, 500_000, 1000, 1000]
    record.ledger.correct(correction(3, "undo", 3, 4, undoes=2))
    assert last(record)[2:6] == [1000] * 4


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (correction(9, "undo", 2, 4, undoes=5), "no correction 5"),
        (correction(9, "set", 2.5, 4, 1.0), "on a quarter-hour"),
        (correction(9, "set", 4, 4, 1.0), "ends after it starts"),
        (correction(9, "set", 4, 4 + 96 * 400, 1.0), "a year at most"),
        (correction(9, "set", 2, 4, float("nan")), "is not energy"),
        (correction(9, "scale", 2, 4, -1.0), "is not energy"),
        (correction(9, "set", 2, 4, 1.1e12), "more than any meter"),
    ],
)
def test_a_correction_that_cannot_be_meant_is_refused(tmp_path: Path, asked, why: str) -> None:
    record = closed(tmp_path)
    rows = len(record.rows())
    for act in (record.ledger.preview, record.ledger.correct):
        with pytest.raises(Invalid, match=why):
            act(asked)
    assert len(record.rows()) == rows


def test_a_correction_told_by_the_journal_is_applied_once(tmp_path: Path) -> None:
    from kapelle.history.rows import events
    from kapelle.model.entries import Entry, Kind

    record = closed(tmp_path)
    asked = [correction(1, "scale", 2, 4, 0.5), correction(2, "undo", 2, 4, undoes=7)]
    entries = [
        Entry("plant", place + 1, Kind.CORRECTION, "api", 0, each.at_ns, each)
        for place, each in enumerate(asked)
    ]
    rows = events(entries)
    record.store.commit(rows, now_ns=q(8), states=record.ledger.note(rows))
    record.crash()
    # The second cannot be meant: it is left out, and nothing waits for it.
    assert record.ledger.work(q(8) + 3 * MINUTE_NS) == 2
    assert record.ledger.work(q(8) + 4 * MINUTE_NS) == 0
    assert [each.correction_no for each in record.ledger.corrections(0)] == [1]
    record.store.commit([], now_ns=q(8), states=record.ledger.note(rows[:1]))
    assert record.ledger.work(q(8) + 5 * MINUTE_NS) == 0


@given(
    st.dictionaries(st.integers(0, 9), st.integers(0, 1000)),
    st.lists(
        st.tuples(
            st.sampled_from(["set", "scale", "interpolate", "undo"]),
            st.integers(0, 8),
            st.integers(1, 4),
            st.floats(0, 10),
            st.integers(1, 6),
        ),
        max_size=6,
    ),
)
def test_undoing_everything_brings_back_what_was_measured(known: dict, asked: list) -> None:
    measured = {q(place): Energy(mwh, MEASURED) for place, mwh in known.items()}
    made = [
        correction(number, method, start, start + length, value, undoes=min(undoes, number - 1))
        for number, (method, start, length, value, undoes) in enumerate(asked, 1)
    ]
    found = corrected(measured, in_force(made))
    assert all(energy.mwh >= 0 for energy in found.values())
    for start in measured.keys() - {
        s for c in made for s in range(c.starts_at_ns, c.ends_at_ns, QUARTER_NS)
    }:
        assert found[start] == measured[start]
    whole = [c for c in in_force(made) if c.method == "set"][-1:]
    if whole and whole[0] is in_force(made)[-1]:
        starts = range(whole[0].starts_at_ns, whole[0].ends_at_ns, QUARTER_NS)
        assert sum(found[start].mwh for start in starts) == round(whole[0].value * 1000)
    number = len(made)
    while standing := in_force(made):
        number += 1
        made.append(correction(number, "undo", 0, 1, undoes=standing[-1].correction_no))
    assert corrected(measured, in_force(made)) == measured


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**9), min_size=1, max_size=9))
def test_parts_add_up(total: int, weights: list[int]) -> None:
    weights = [*weights, 1]
    parts = divided(total, weights)
    assert sum(parts) == total
    assert all(part >= 0 for part in parts)


def test_a_plant_that_records_keeps_a_ledger(tmp_path: Path) -> None:
    clock = HandClock()
    journal = MemoryJournal(clock)
    start_ns = -(-START_NS // QUARTER_NS) * QUARTER_NS
    rows = range(46)

    async def play() -> None:
        settings = HistorySettings(flush_s=0.02)
        recorder = Recorder(
            journal=journal,
            clock=clock,
            settings=settings,
            directory=tmp_path,
            partitions=2,
            ledger=lambda store: Ledger(store, 2),
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(recorder.run())
            for minute in rows:
                clock.ns = max(clock.ns, start_ns + minute * MINUTE_NS)
                at_ns = np.array([start_ns + minute * MINUTE_NS])
                wh = np.array([7000.0 + 20 * minute])
                block = Readings(
                    np.array([3], np.int32),
                    at_ns,
                    at_ns,
                    at_ns,
                    np.zeros(1, np.uint8),
                    {Metric.EXPORT_WH: wh},
                )
                await journal.append("p/1", [block], writer="ingest")
            async with asyncio.timeout(20):
                while recorder.counters.rows["energy"] < 2:  # noqa: ASYNC110  # a counter sets no event
                    await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(play())
    found = Reader(tmp_path).energy(3, start_ns, start_ns + 3 * QUARTER_NS).to_pylist()
    assert [row["mwh"] for row in found if row["register"] == 0] == [300_000, 300_000]
    assert {row["revision"] for row in found} == {0}


def test_a_ledger_that_is_hours_behind_reads_its_readings_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, scanned = Record(tmp_path), []
    scan = record.store.scan
    monkeypatch.setattr(
        record.store, "scan", lambda table, *a, **k: scanned.append(table) or scan(table, *a, **k)
    )
    record.flush(readings(minutely(0, 0, 24)), q(24))
    assert record.ledger.work(q(24) + 2 * MINUTE_NS) == 24
    # Where there is nothing older, nobody looks for it either.
    assert scanned.count("readings") == 1
