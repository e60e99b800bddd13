"""What an agent keeps: nothing twice, nothing forgotten, and never more than it may."""

import itertools
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kapelle.edge.buffer import Buffer, Row
from kapelle.edge.ledger import Told
from kapelle.edge.settings import BufferSettings
from kapelle.errors import DataDirectoryHeld, Invalid
from kapelle.model.enums import AckStatus, Metric
from kapelle.model.ids import NS_PER_S

START_NS = 1_782_043_200 * NS_PER_S
DAY_S = 86_400


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[list[Buffer]]:
    """Collect what was opened, and close it."""
    opened: list[Buffer] = []
    yield opened
    for buffer in opened:
        buffer.close(START_NS)


def opened(path: Path, **given: int | float) -> Buffer:
    return Buffer(BufferSettings(path / "edge.db", **given), START_NS)  # type: ignore[arg-type]


def add(
    buffer: Buffer, count: int, device: str = "a", at_s: float = 0.0, step_s: float = 5
) -> None:
    for place in range(count):
        at_ns = START_NS + int((at_s + place * step_s) * NS_PER_S)
        buffer.add(device, {Metric.POWER_W: float(place)}, at_ns)


def drained(buffer: Buffer, device: str = "a") -> list[Row]:
    """Take everything as the agent does."""
    rows: list[Row] = []
    while batch := buffer.fresh(device) + buffer.stored(device, 150):
        buffer.confirm(device, batch)
        rows += batch
    return rows


# Steps of an agent's life: readings, a flush, a restart, a power cut, some acknowledged.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("ab"), st.integers(1, 5)),
        st.tuples(st.just("flush")),
        st.tuples(st.just("restart")),
        st.tuples(st.just("power cut")),
        st.tuples(st.just("send"), st.sampled_from("ab"), st.integers(0, 4)),
    ),
    max_size=25,
)


@given(steps)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_every_reading_leaves_and_none_under_the_number_of_another(
    tmp_path_factory: pytest.TempPathFactory, life: list[tuple[object, ...]]
) -> None:
    path = tmp_path_factory.mktemp("edge")
    buffer = opened(path)
    made: dict[tuple[str, int, int], float] = {}
    left: dict[tuple[str, int, int], float] = {}
    seq: dict[str, int] = {}
    value = 0.0
    for step, *rest in life:
        if step == "add":
            device, count = str(rest[0]), int(str(rest[1]))
            for _ in range(count):
                value += 1.0
                seq[device] = seq.get(device, 0) + 1
                made[device, buffer.boot, seq[device]] = value
                buffer.add(device, {Metric.POWER_W: value}, START_NS)
        elif step == "flush":
            buffer.flush(START_NS)
        elif step == "restart":
            buffer.close(START_NS)
            buffer, seq = opened(path), {}
        elif step == "power cut":
            # Only what was not yet written is lost.
            for row in buffer.fresh("a") + buffer.fresh("b"):
                del made[row[:3]]
            buffer._file.close()
            buffer, seq = opened(path), {}
        elif step == "send":
            device, count = str(rest[0]), int(str(rest[1]))
            rows = (buffer.fresh(device) + buffer.stored(device, 150))[:count]
            buffer.confirm(device, rows)
            left |= {row[:3]: json.loads(row.body)["power_w"] for row in rows}
    for device in "ab":
        left |= {row[:3]: json.loads(row.body)["power_w"] for row in drained(buffer, device)}
        assert buffer.waiting(device) == 0
    buffer.close(START_NS)
    assert left == made


def test_what_is_acknowledged_at_once_never_touches_the_disk(
    tmp_path: Path, kept: list[Buffer]
) -> None:
    buffer = opened(tmp_path)
    kept.append(buffer)
    add(buffer, 3)
    buffer.confirm("a", buffer.fresh("a"))
    buffer.flush(START_NS)
    assert not buffer.has_stored("a")
    assert buffer.waiting("a") == 0


def test_days_without_a_plant_are_kept_oldest_first(tmp_path: Path, kept: list[Buffer]) -> None:
    buffer = opened(tmp_path)
    count = 3 * DAY_S // 60
    for part in range(0, count, 1_000):
        add(buffer, min(1_000, count - part), at_s=part * 60.0, step_s=60.0)
        buffer.flush(START_NS + 3 * DAY_S * NS_PER_S)
    buffer.close(START_NS)
    again = opened(tmp_path)
    kept.append(again)
    rows = drained(again)
    assert [row.at_ns for row in rows] == sorted(row.at_ns for row in rows)
    assert len(rows) == count
    assert json.loads(rows[-1].body)["at_ns"] == START_NS + (count - 1) * 60 * NS_PER_S


def test_a_full_buffer_thins_what_is_oldest(tmp_path: Path, kept: list[Buffer]) -> None:
    buffer = opened(tmp_path, rows_max=1_000)
    kept.append(buffer)
    for part in range(20):
        add(buffer, 250, at_s=part * 250 * 5.0)
        buffer.flush(START_NS)
        assert buffer.waiting("a") <= 1_000 + 250
    times = [row.at_ns for row in drained(buffer)]
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    # The whole time is covered, the newest as it was measured, the oldest coarsely.
    assert times[0] == START_NS
    assert set(gaps[-100:]) == {5 * NS_PER_S}
    assert max(gaps[:100]) > 20 * NS_PER_S
    assert buffer.thinned == 20 * 250 - len(times)


def test_what_the_plant_would_refuse_for_its_age_is_given_up(
    tmp_path: Path, kept: list[Buffer]
) -> None:
    buffer = opened(tmp_path, keep_days=2.0)
    kept.append(buffer)
    add(buffer, 10, step_s=float(DAY_S) / 2)
    buffer.flush(START_NS + 5 * DAY_S * NS_PER_S)
    assert len(drained(buffer)) == 4


def test_a_boot_is_later_than_any_before_even_where_the_file_was_lost(
    tmp_path: Path, kept: list[Buffer]
) -> None:
    buffer = opened(tmp_path)
    first = buffer.boot
    buffer.close(START_NS)
    # The clock fell back to 1970: the file knows better.
    buffer = Buffer(BufferSettings(tmp_path / "edge.db"), 0)
    assert buffer.boot == first + 1
    buffer.close(START_NS)
    lost = Buffer(BufferSettings(tmp_path / "new.db"), START_NS + 3_600 * NS_PER_S)
    kept.append(lost)
    assert lost.boot > first + 1
    assert lost.boot < 2**31


def test_what_a_device_was_told_outlasts_the_agent(tmp_path: Path, kept: list[Buffer]) -> None:
    buffer = opened(tmp_path)
    told = Told(3, 17, -1_500.0, START_NS, AckStatus.APPLIED, "")
    released = Told(3, 18, float("nan"), 0, AckStatus.REJECTED, "no")
    buffer.ledger.remember("a", told)
    buffer.ledger.remember("b", told)
    buffer.ledger.remember("b", released)
    buffer.close(START_NS)
    again = opened(tmp_path)
    kept.append(again)
    assert again.ledger.newest("a") == told
    assert again.ledger.newest("b").rank == (3, 18)
    assert again.ledger.newest("b").reason == "no"
    assert again.ledger.newest("c").rank == (-1, -1)


def test_two_agents_do_not_share_a_buffer(tmp_path: Path, kept: list[Buffer]) -> None:
    kept.append(opened(tmp_path))
    with pytest.raises(DataDirectoryHeld, match="another agent"):
        opened(tmp_path)


def test_what_is_no_buffer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "edge.db").write_bytes(b"photographs of a cat, certainly no database" * 100)
    with pytest.raises(Invalid, match="not a database"):
        opened(tmp_path)
    file = sqlite3.connect(tmp_path / "newer.db")
    file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(Invalid, match="format 99"):
        Buffer(BufferSettings(tmp_path / "newer.db"), START_NS)


def test_a_disk_that_takes_nothing_keeps_the_newest_in_memory(
    tmp_path: Path, kept: list[Buffer]
) -> None:
    buffer = opened(tmp_path)
    kept.append(buffer)
    buffer._file.execute("PRAGMA max_page_count = 1")
    add(buffer, 25_000)
    buffer.flush(START_NS)
    assert buffer.waiting("a") == 20_000
    assert buffer.thinned == 5_000
    with pytest.raises(OSError, match="full"):
        buffer.ledger.remember(
            "a", Told(1, 1, 0.0, reason="so long that it needs pages of its own" * 10_000)
        )
    buffer._file.execute("PRAGMA max_page_count = 1000000")
    buffer.flush(START_NS)
    assert buffer.has_stored("a")
    assert len(drained(buffer)) == 20_000
