"""The record looked at and copied from outside: no harm goes unseen, and sound is called sound."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.history.conftest import START_NS, make_readings

from kapelle.errors import HistoryFailed
from kapelle.history import upkeep
from kapelle.history.catalog import Catalog, File
from kapelle.history.reader import Reader
from kapelle.history.retention import sweep
from kapelle.history.rows import device_rows
from kapelle.history.settings import HistorySettings
from kapelle.history.store import Store
from kapelle.history.upkeep import copy_history, examine_history
from kapelle.model.entries import Entry, Kind
from kapelle.runtime.doctor import Verdict

ENDS = {"p/0": 10}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Return a record of three flushes."""
    store = Store(tmp_path / "history", HistorySettings())
    for number in range(1, 4):
        rows = [(no, number * 10.0 + no, 100.0 * no) for no in range(5)]
        entry = Entry("p/0", number, Kind.READINGS, "ingest", 0, START_NS, make_readings(rows))
        store.commit(device_rows(0, [entry]), now_ns=START_NS, positions={"p/0": number})
    store.close()
    return tmp_path / "history"


def flaws(record: Path, ends: dict[str, int] | None = None) -> list[str]:
    found = examine_history(record, lambda: ENDS if ends is None else ends)
    return [f"{f.subject}: {f.found}" for f in found if f.verdict is not Verdict.OK]


def test_a_sound_record_and_its_copy_are_called_sound(record: Path, tmp_path: Path) -> None:
    assert flaws(record) == []
    assert copy_history(record, tmp_path / "copy") == {"history": {"p/0": 3}}
    assert flaws(tmp_path / "copy") == []
    count = "SELECT count(*) AS n, sum(power_w) AS w FROM readings"
    told = [Reader(place).sql(count).to_pylist() for place in (record, tmp_path / "copy")]
    assert told[0] == told[1] == [{"n": 15, "w": 3000.0}]
    assert list(examine_history(tmp_path / "nowhere", dict)) == []


def test_a_record_that_is_ahead_of_its_journal_is_named(record: Path) -> None:
    (flaw,) = flaws(record, {"p/0": 2})
    assert flaw == "history catalog: it has read p/0 up to 3, the journal ends at 2"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[60] ^= 4
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("harm", "said"),
    [(Path.unlink, "is missing"), (_cut, "bytes, not"), (_flip, "")],
)
def test_a_harmed_file_is_named(record: Path, harm: Callable[[Path], None], said: str) -> None:
    path = sorted(record.rglob("*.parquet"))[0]
    harm(path)
    (flaw,) = flaws(record)
    assert str(path.relative_to(record)) in flaw
    assert said in flaw


def test_flipped_bits_of_pages_are_found(record: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(10)
    path = sorted(record.rglob("*.parquet"))[0]
    raw = path.read_bytes()
    truth = Reader(record).sql("SELECT * FROM readings ORDER BY ALL")
    for _ in range(40):
        harmed = bytearray(raw)
        pages = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
        harmed[draw.integers(4, pages)] ^= 1 << int(draw.integers(8))
        path.write_bytes(harmed)
        if not flaws(record):
            # Indexes and the like: what is read is as it was.
            assert Reader(record).sql("SELECT * FROM readings ORDER BY ALL").equals(truth)


def test_files_merged_away_during_the_copy_are_found_merged(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a compaction would: new file in, old one out of the catalog, then off the disk."""
    once = iter([True])
    copied = upkeep._copied

    def merging(source: Path, target: Path, file: File) -> bool:
        if next(once, False):
            with_all = Catalog(record)
            first = with_all.files()[0]
            name = first.path.replace(".parquet", "-merged.parquet")
            shutil.move(record / first.path, record / name)
            with_all.commit(
                [replace(first, path=name, file_no=with_all.next_no())], [first.file_no], at_ns=1
            )
            with_all.close()
        return copied(source, target, file)

    monkeypatch.setattr(upkeep, "_copied", merging)
    copy_history(record, tmp_path / "copy")
    assert flaws(tmp_path / "copy") == []
    assert len(list((tmp_path / "copy").rglob("*.parquet"))) == 3


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "readings/../../secret"])
def test_a_catalog_that_names_files_elsewhere_is_not_followed(tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("ours")
    store = Store(tmp_path / "history", HistorySettings())
    forged = File("readings", 0, 0, 1, 0, 1, 1, 4, 2, "time", name, 0, 1, 0)
    store.catalog.commit([forged])
    with pytest.raises(HistoryFailed, match="outside"):
        copy_history(tmp_path / "history", tmp_path / "copy" / "history")
    store.catalog.commit(replaced=[1], at_ns=1)
    with pytest.raises(HistoryFailed, match="outside"):
        sweep(store, 1 << 61)
    store.close()
    assert secret.read_text() == "ours"
    assert not (tmp_path / "copy" / "secret").exists()
