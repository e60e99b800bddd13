"""The long record looked at, and copied, from outside, also while a recorder writes it."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq

from kapelle.errors import JournalFailed
from kapelle.history.catalog import FILE, Catalog, File
from kapelle.runtime.archive import clone_or_copy, copy_database, read_only
from kapelle.runtime.doctor import Finding, Verdict

QUARANTINE = "quarantine.db"
"""The quarantine's projection, beside the record."""
_TRIES = 20
_SHOWN = 20
_BATCH_ROWS = 1 << 16
Ends = Callable[[], Mapping[str, int]]
_RESTORE = "restore the data directory from a backup; until then queries of its time fail"


def examine_history(directory: Path, ends: Ends) -> Iterator[Finding]:
    """Yield what is found in the record: every file that counts, decoded, and its positions.

    Args:
        directory: Of the record; where there is none, nothing is said.
        ends: Returns the last position of each topic of the journal: asked after the record was,
            which a plant that runs may have moved on.
    """
    if (directory / FILE).exists():
        yield from _examine_record(directory, ends)
    if (directory / QUARANTINE).exists():
        flaws = _database_flaws(directory / QUARANTINE)
        flaws += _positions_flaws(_quarantine_positions(directory / QUARANTINE), ends())
        for what in flaws:
            yield Finding("quarantine", Verdict.BAD, what, f"remove {QUARANTINE}: it is made anew")
        if not flaws:
            yield Finding("quarantine", Verdict.OK, "sound")


def copy_history(source: Path, target: Path) -> dict[str, dict[str, int]]:
    """Copy record and quarantine as they are at one moment; return how far each has read.

    Files of the record never change. One that is merged away meanwhile is in the next catalog as
    part of another, so that is read again; files already copied stay.
    """
    positions: dict[str, dict[str, int]] = {}
    if (source / FILE).exists():
        for _ in range(_TRIES):
            copy_database(source / FILE, target / FILE)
            with closing(Catalog(target, read_only=True)) as catalog:
                files = catalog.files()
                positions["history"] = catalog.positions()
            if all(_copied(source, target, file) for file in files):
                break
        else:
            raise JournalFailed(f"{source}: files its catalog names are missing; kapelle verify")
        wanted = {file.path for file in files}
        for path in target.rglob("*.parquet"):
            if str(path.relative_to(target)) not in wanted:
                path.unlink()
    if (source / QUARANTINE).exists():
        copy_database(source / QUARANTINE, target / QUARANTINE)
        positions["quarantine"] = _quarantine_positions(target / QUARANTINE)
    return positions


def _copied(source: Path, target: Path, file: File) -> bool:
    into = target / file.path
    if into.exists():
        return True
    try:
        clone_or_copy(source / file.path, into)
    except FileNotFoundError:
        return False
    return True


def _examine_record(directory: Path, ends: Ends) -> Iterator[Finding]:
    flaws = _database_flaws(directory / FILE)
    if flaws:
        for what in flaws:
            yield Finding("history catalog", Verdict.BAD, what, _RESTORE)
        return
    with closing(Catalog(directory, read_only=True)) as catalog:
        files = catalog.files()
        for what in _positions_flaws(catalog.positions(), ends()):
            remedy = "journal and history are of different times: restore both of one backup"
            yield Finding("history catalog", Verdict.BAD, what, remedy)
        rows = bytes_ = bad = 0
        for file in files:
            what = _file_flaw(directory / file.path, file)
            if what and file.path not in {f.path for f in catalog.files(file.table)}:
                # Merged away while we looked.
                continue
            bad += bool(what)
            if what and bad <= _SHOWN:
                yield Finding("history", Verdict.BAD, f"{file.path}: {what}", _RESTORE)
            rows, bytes_ = rows + file.rows, bytes_ + file.bytes
    if bad > _SHOWN:
        yield Finding("history", Verdict.BAD, f"{bad - _SHOWN} more files", _RESTORE)
    if not bad:
        text = f"{len(files):,} files, {rows:,} rows, {bytes_ / (1 << 20):,.1f} MiB, all sound"
        yield Finding("history", Verdict.OK, text)


def _file_flaw(path: Path, file: File) -> str:
    """Return what is wrong with a file; every page is decoded and its checksum compared."""
    try:
        size = path.stat().st_size
        if size != file.bytes:
            return f"has {size} bytes, not {file.bytes}"
        with pq.ParquetFile(path, page_checksum_verification=True) as opened:
            if opened.metadata.num_rows != file.rows:
                return f"has {opened.metadata.num_rows} rows, not {file.rows}"
            told = [opened.metadata.row_group(n) for n in range(opened.metadata.num_row_groups)]
            if sum(group.num_rows for group in told) != file.rows:
                return "its directory is damaged: row groups do not add up"
            for group in told:
                for n in range(group.num_columns):
                    if group.column(n).num_values != group.num_rows:
                        return f"its directory is damaged: {group.column(n).path_in_schema}"
            rows = 0
            for batch in opened.iter_batches(_BATCH_ROWS):
                batch.validate(full=True)
                rows += batch.num_rows
            if rows != file.rows:
                return f"gives {rows} rows, not {file.rows}"
    except FileNotFoundError:
        return "is missing"
    except Exception as error:  # noqa: BLE001 -- flipped bits end in errors of every kind there.
        return f"unreadable ({str(error).splitlines()[0] if str(error) else repr(error)})"
    return ""


def _database_flaws(path: Path) -> list[str]:
    try:
        with closing(sqlite3.connect(read_only(path), uri=True, timeout=10.0)) as db:
            told = [str(row[0]) for row in db.execute("PRAGMA integrity_check(20)")]
    except sqlite3.Error as error:
        told = [str(error)]
    return [f"{path.name}: {line}" for line in told if line != "ok"]


def _positions_flaws(positions: Mapping[str, int], ends: Mapping[str, int]) -> list[str]:
    return [
        f"it has read {topic} up to {position}, the journal ends at {ends.get(topic, 0)}"
        for topic, position in sorted(positions.items())
        if position > ends.get(topic, 0)
    ]


def _quarantine_positions(path: Path) -> dict[str, int]:
    try:
        with closing(sqlite3.connect(read_only(path), uri=True, timeout=10.0)) as db:
            return dict(db.execute("SELECT topic, position FROM position").fetchall())
    except sqlite3.Error:
        return {}
