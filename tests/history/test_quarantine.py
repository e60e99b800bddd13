"""The quarantine holds every row the journal had, once, whatever crashes and in whatever order."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.errors import Invalid
from kapelle.history.kept import Kept, QuarantineSettings, Query, place_of
from kapelle.history.quarantine import Quarantine
from kapelle.history.quarantine_service import READER, QuarantineFollower
from kapelle.journal.memory import MemoryJournal
from kapelle.model.blocks import Quarantined
from kapelle.model.entries import KIND_OF, Body, Entry
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.plant import Verdict
from kapelle.runtime.clock import SystemClock

Row = tuple[int, str, str, bytes]
"""Device, source, reason, raw."""
BAD: Row = (3, "mqtt", "power-unit: 5e6 W; send W", b'{"at_ns":5,"power_w":5e6}')


def block(rows: Sequence[Row], received_ns: int = 7) -> Quarantined:
    return Quarantined(
        device_no=np.array([row[0] for row in rows], np.int32),
        received_at_ns=np.full(len(rows), received_ns, np.int64),
        source=tuple(row[1].encode() for row in rows),
        reason=tuple(row[2].encode() for row in rows),
        raw=tuple(row[3] for row in rows),
    )


def entry(topic: str, position: int, body: Body, at_ns: int | None = None) -> Entry:
    at_ns = position * NS_PER_S if at_ns is None else at_ns
    return Entry(topic, position, KIND_OF[type(body)], "ingest", 0, at_ns, body)


def everything(quarantine: Quarantine) -> list[Kept]:
    return sorted(quarantine.find(Query(state="any"), 1_000), key=lambda kept: kept.id)


rows = st.tuples(
    st.integers(-1, 2),
    st.sampled_from(["mqtt", "mqtt/a", "http/api"]),
    st.sampled_from(["power-unit: x; y", "json: /: z", "odd"]),
    st.sampled_from([b"", b"{", b'{"power_w":1}', b'{"at_ns":9,"power_w":1}']),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(rows, min_size=1, max_size=4), min_size=1, max_size=6), st.data())
def test_crashes_and_repeats_change_nothing(said: list[list[Row]], data: st.DataObject) -> None:
    """The obvious way: every entry once, in order, in one process."""
    entries = [entry("p/0", place + 1, block(found)) for place, found in enumerate(said)]
    with TemporaryDirectory() as name:
        once = Quarantine(Path(name) / "once.db")
        once.apply("p/0", entries, len(entries))
        wanted = everything(once)
        occurrences = once.counts().open
        once.close()

        path = Path(name) / "again.db"
        done = 0
        while done < len(entries):
            quarantine = Quarantine(path)
            assert quarantine.positions().get("p/0", 0) == done
            end = data.draw(st.integers(done + 1, len(entries)))
            begin = data.draw(st.integers(0, done))
            if data.draw(st.booleans()):
                broken = entry("p/0", end + 1, block([BAD]))
                object.__setattr__(broken.body, "raw", (object(),))
                with pytest.raises(Exception):  # noqa: B017  # whatever ends it midway
                    quarantine.apply("p/0", [*entries[begin:end], broken], end + 1)
                quarantine.close()
                continue
            # Entries that were read before may be read again.
            quarantine.apply("p/0", entries[begin:end], end)
            done = end
            quarantine.close()
        quarantine = Quarantine(path)
        assert everything(quarantine) == wanted
        assert quarantine.counts().open == occurrences == sum(map(len, said))
        quarantine.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["replayed", "dropped"])), max_size=3),
    st.lists(st.integers(2, 9), max_size=4, unique=True),
)
def test_verdicts_and_repeats_commute(decided: list[tuple[int, str]], repeats: list[int]) -> None:
    """Whether a row is open depends on what came last, not on which topic was read first."""
    first = entry("p/0", 1, block([BAD]), at_ns=0)
    later = [entry("p/0", 1 + n, block([BAD]), at_ns=at * 10) for n, at in enumerate(repeats, 1)]
    verdicts = [
        entry(PLANT, 1 + n, Verdict(0, 1, [0], verdict, at * 10 + 5, "ann", "why"))  # type: ignore[arg-type]  # one of its words
        for n, (at, verdict) in enumerate(decided)
    ]
    outcomes = []
    for order in ((later, verdicts), (verdicts, later)):
        with TemporaryDirectory() as name:
            quarantine = Quarantine(Path(name) / "q.db")
            quarantine.apply("p/0", [first], 1)
            for found in filter(None, order):
                quarantine.apply(found[0].topic, found, 99)
            outcomes.append(
                [(k.state, k.count, k.verdict, k.last_ns) for k in everything(quarantine)]
            )
            quarantine.close()
    assert outcomes[0] == outcomes[1]
    ((state, count, _, last_ns),) = outcomes[0]
    assert count == 1 + len(repeats)
    newest = max((at * 10 + 5 for at, _ in decided), default=-1)
    assert (state == "open") == (last_ns > newest)


def test_reports_without_a_time_of_their_own_are_no_repeats(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.db")
    untimed = (3, "mqtt", "power-unit: x", b'{"power_w":5e6}')
    quarantine.apply("p/0", [entry("p/0", n, block([untimed, BAD], n)) for n in (1, 2, 3)], 3)
    assert sorted(kept.count for kept in everything(quarantine)) == [1, 1, 1, 3]
    quarantine.close()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_what_is_pushed_out_is_counted(devices: list[int], rows_max: int) -> None:
    with TemporaryDirectory() as name:
        quarantine = Quarantine(Path(name) / "q.db", QuarantineSettings(rows_max=rows_max))
        for place, device in enumerate(devices):
            row = (device, "mqtt", f"code-{device % 3}: x", b"{")
            quarantine.apply("p/0", [entry("p/0", place + 1, block([row]))], place + 1)
            assert len(everything(quarantine)) <= rows_max
        counts = quarantine.counts()
        for code in range(3):
            states = counts.by_code.get(f"code-{code}", {})
            assert sum(states.values()) == sum(d % 3 == code for d in devices)
        assert counts.rows == len(everything(quarantine))
        assert counts.size == sum(len(k.raw + k.reason.encode() + k.source.encode())
                                  for k in everything(quarantine))  # fmt: skip
        quarantine.close()


def test_bytes_are_bounded(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.db", QuarantineSettings(bytes_max=10_000))
    big = [(n, "mqtt", "json: /: x", b"x" * 1_000) for n in range(30)]
    quarantine.apply("p/0", [entry("p/0", 1, block(big))], 1)
    assert quarantine.counts().size <= 10_000
    assert [kept.device_no for kept in quarantine.find(Query(), 3)] == [29, 28, 27]
    quarantine.close()


def test_what_is_refused_again_stays_open_with_its_new_reason(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.db")
    quarantine.apply("p/0", [entry("p/0", 4, block([BAD]))], 4)
    again = (3, "replay/0:4:0", "soc-range: 50 is not between 0 and 1", b"other")
    lost = (3, "replay/0:77:0", "soc-range: x", b"other")
    quarantine.apply("p/1", [entry("p/1", 9, block([again, lost]))], 9)
    (kept,) = everything(quarantine)
    assert (kept.state, kept.code, kept.raw) == ("open", "soc-range", BAD[3])
    assert quarantine.counts().by_code["soc-range"] == {"open": 1, "pushed-out": 1}
    quarantine.close()


def test_filters_and_pages(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.db")
    said = [
        (1, "mqtt/a", "json: 1", b"1"), (2, "mqtt/b", "json: 2", b"2"),
        (-1, "http/api", "field: 3", b"3"), (1, "mqtt", "power-unit: 4", b"4"),
    ]  # fmt: skip
    quarantine.apply("p/0", [entry("p/0", 1, block(said))], 1)

    def raws(query: Query, limit: int = 10, before: int | None = None) -> list[bytes]:
        return [kept.raw for kept in quarantine.find(query, limit, before)]

    assert raws(Query()) == [b"4", b"3", b"2", b"1"]
    assert raws(Query(source="mqtt")) == [b"4", b"2", b"1"]
    assert raws(Query(source="mqtt/a")) == [b"1"]
    assert raws(Query(code="json", device_no=2)) == [b"2"]
    assert raws(Query(device_no=-1)) == [b"3"]
    assert raws(Query(since_ns=2 * NS_PER_S)) == raws(Query(until_ns=NS_PER_S)) == []
    assert raws(Query(state="dropped")) == []
    page = quarantine.find(Query(), 2)
    assert raws(Query(), 2, page[-1].seq) == [b"2", b"1"]
    assert quarantine.matching(Query(source="mqtt")) == 3
    (kept,) = quarantine.read(["0:1:2", "nonsense", "0:1:99", "²:1:1"])
    assert kept.raw == b"3"
    assert place_of("0:1:" + "9" * 30) is None
    quarantine.close()


def test_the_follower_reads_on_marks_and_survives_a_restored_journal(tmp_path: Path) -> None:
    async def main() -> None:
        clock = SystemClock()
        journal = MemoryJournal(clock)
        quarantine = Quarantine(tmp_path / "q.db")

        def follower(of: MemoryJournal) -> QuarantineFollower:
            return QuarantineFollower(journal=of, quarantine=quarantine, partitions=2, clock=clock)

        await journal.append("p/0", [block([BAD])], writer="ingest")
        await journal.append("p/1", [block([(1, "mqtt", "json: x", b"x")] * 3)], writer="ingest")
        following = follower(journal)
        await following.turn()
        assert quarantine.counts().open == 4
        assert (await journal.marks("p/0"))[READER] == 0, "not durable, so not marked"
        await following.settle()
        assert (await journal.marks("p/0"))[READER] == 1
        # A second follower, after a crash, neither loses nor repeats.
        await journal.append("p/0", [block([BAD])], writer="ingest")
        await journal.append(
            PLANT, [Verdict(0, 1, [0], "dropped", clock.now_ns(), "ann", "noise")], writer="api"
        )
        await follower(journal).turn()
        await follower(journal).turn()
        counts = quarantine.counts()
        assert counts.by_code == {"json": {"open": 3}, "power-unit": {"dropped": 2}}
        # The journal was restored from a backup: it ends earlier, and what comes is new.
        restored = MemoryJournal(clock)
        await follower(restored).turn()
        await restored.append("p/0", [block([(1, "mqtt", "late: x", b"y")])], writer="ingest")
        await follower(restored).turn()
        assert quarantine.counts().by_code["late"] == {"open": 1}

    asyncio.run(main())


def test_a_lost_file_is_made_again_from_the_journal(tmp_path: Path) -> None:
    async def main() -> None:
        clock = SystemClock()
        journal = MemoryJournal(clock)

        async def follow(name: str) -> list[Kept]:
            quarantine = Quarantine(tmp_path / name)
            follower = QuarantineFollower(
                journal=journal, quarantine=quarantine, partitions=2, clock=clock
            )
            await follower.turn()
            found = everything(quarantine)
            quarantine.close()
            return [replace(kept, seq=0) for kept in found]

        for n in range(6):
            row = (n % 3, "mqtt", f"json: {n % 2}", b"{%d" % (n % 4))
            await journal.append(f"p/{n % 2}", [block([row, BAD])], writer="ingest")
            if n in (2, 3):
                verdict = Verdict(n % 2, 1, [0, 1], "dropped", clock.now_ns(), "ann", "why")
                await journal.append(PLANT, [verdict], writer="api")
            # One follows all along; the other begins when everything has happened.
            along = await follow("along.db")
        assert await follow("again.db") == along
        assert {kept.state for kept in along} == {"open", "dropped"}

    asyncio.run(main())


def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "q.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(Invalid, match="another version"):
        Quarantine(path)
    path.write_bytes(b"nothing of ours" * 100)
    with pytest.raises(Invalid, match="move it away"):
        Quarantine(path)
