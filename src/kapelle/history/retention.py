"""How long each tier is kept, and when the files of those who may still read them go."""

from collections.abc import Collection, Mapping

from kapelle.history.settings import HistorySettings
from kapelle.history.store import Store
from kapelle.history.tables import DAY_NS, TABLES, Keep
from kapelle.model.ids import NS_PER_S


def days_kept(settings: HistorySettings) -> Mapping[Keep, int | None]:
    """Return how many days each class of tables is kept; None for good."""
    return {
        "raw": settings.raw_days,
        "minute": settings.minute_days,
        "quarter": settings.quarter_days,
        "evidence": settings.evidence_days,
        "always": None,
    }


def expire(store: Store, now_ns: int, unmerged: Collection[int] = ()) -> int:
    """Take files whose time is over out of the catalog; return how many.

    Only merged ones go: what was never merged has not become part of the next tier. `unmerged`:
    files that were tried in vain to be merged, for a day and more; they go as well.
    """
    kept = days_kept(store.settings)
    numbers = [
        number
        for table in TABLES.values()
        if (days := kept[table.keep]) is not None
        for number in store.catalog.expired(table.name, now_ns - days * DAY_NS, unmerged)
    ]
    if numbers:
        store.catalog.commit(replaced=numbers, at_ns=now_ns)
    return len(numbers)


def sweep(store: Store, now_ns: int) -> int:
    """Remove files that have not counted for the time of grace; return how many."""
    gone = store.catalog.gone(now_ns - round(store.settings.grace_s * NS_PER_S))
    for file in gone:
        store.files.remove(store.directory / file.path)
    if gone:
        store.catalog.forget(file.file_no for file in gone)
    return len(gone)


def oldest_ns(settings: HistorySettings, now_ns: int) -> int:
    """Return the time before which readings are too late for the record.

    A day less than they are kept: a row must never come to a day that has expired, or its tier
    would be made anew from that row alone.
    """
    return now_ns - (settings.raw_days - 1) * DAY_NS
