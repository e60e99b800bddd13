"""Metrics of this process: disk, record, quarantine, safety, requests, and how it is."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from kapelle.api.families import bounded, counter, gauge, histogram
from kapelle.api.health import STATES, Health
from kapelle.api.sources import Sources
from kapelle.history.counters import Counters as HistoryCounters
from kapelle.journal.metrics import BOUNDS_S, JournalMetrics
from kapelle.model.ids import NS_PER_S


def process(sources: Sources, health: Health, now_ns: int) -> Iterator[Metric]:
    """Yield what this process knows; what it does not have is left out."""
    yield gauge(
        "kapelle_health",
        "1 for the state the process is in.",
        ["state"],
        (([state], float(state == health.state)) for state in STATES),
    )
    yield gauge(
        "kapelle_health_reasons",
        "1 for each reason why it is not ok.",
        ["code", "state"],
        {(r.code, r.state): ([r.code, r.state], 1.0) for r in health.reasons}.values(),
    )
    yield from _disk(sources)
    yield from _quarantine(sources, now_ns)
    if sources.history is not None:
        yield from _history(sources.history, now_ns)
    if sources.blocked is not None:
        yield counter(
            "kapelle_safety_blocks_total",
            "Commands the safety envelope stopped, by rule.",
            ["rule"],
            (([rule], count) for rule, count in bounded(sources.blocked).items()),
        )
    yield gauge(
        "kapelle_adapter_up",
        "1 while the adapter's link is open.",
        ["protocol"],
        (([name], float(link.is_open)) for name, link in sorted(sources.links.items())),
    )
    yield histogram(
        "kapelle_http_request_seconds",
        "Requests by route and answer.",
        ["route", "code"],
        (
            ([route, code], took.bounds, took.counts, took.sum)
            for (route, code), took in sorted(sources.requests.took.items())
        ),
    )


def _disk(sources: Sources) -> Iterator[Metric]:
    if sources.journal is not None:
        yield from _journal(sources.journal())
    if sources.disk is not None:
        disk = sources.disk()
        yield gauge(
            "kapelle_disk_free_bytes", "Free under the data directory.", [], [([], disk.free)]
        )
    if sources.backup_at_ns is not None:
        yield from _backup(sources.backup_at_ns())
    if sources.clock_ahead_s is not None:
        yield gauge(
            "kapelle_clock_ahead_seconds",
            "How far the plant's time is ahead of the host's clock.",
            [],
            [([], sources.clock_ahead_s())],
        )


def _backup(at_ns: int | None) -> Iterator[Metric]:
    if at_ns is not None:
        at_s = at_ns / NS_PER_S
        text = "When the newest backup was made; absent before the first."
        yield gauge("kapelle_backup_timestamp_seconds", text, [], [([], at_s)])


def _journal(told: JournalMetrics) -> Iterator[Metric]:
    for name, text, times in (
        ("kapelle_log_fsync_seconds", "Flushes of the journal.", told.timings.fsync_s),
        ("kapelle_log_commit_seconds", "Groups of entries, flush included.", told.timings.commit_s),
        ("kapelle_log_checkpoint_seconds", "Moving the log into the database.",
         told.timings.checkpoint_s),
        ("kapelle_snapshot_seconds", "Snapshots, until durable.", told.timings.snapshot_s),
    ):  # fmt: skip
        yield histogram(name, text, [], [([], BOUNDS_S, times.counts, times.sum_s)])
    for name, text, value in (
        ("kapelle_log_bytes", "Size of the journal, its log included.", told.file_bytes),
        ("kapelle_snapshot_bytes", "Size of all snapshots.", told.snapshot_bytes),
        ("kapelle_log_reserve_bytes", "Kept back for shutting down; 0: the disk is full.",
         told.reserve_bytes),
        ("kapelle_log_waiting", "Requests that wait for the disk.", told.waiting),
        ("kapelle_log_waiting_bytes", "What they hold.", told.waiting_bytes),
        ("kapelle_log_entries", "Entries that are kept.", told.held),
    ):  # fmt: skip
        yield gauge(name, text, [], [([], value)])
    yield gauge(
        "kapelle_log_reader_lag_entries",
        "Entries a reader has not taken over; they are not trimmed.",
        ["reader"],
        (([reader], lag) for reader, lag in bounded(told.lags).items()),
    )


def _quarantine(sources: Sources, now_ns: int) -> Iterator[Metric]:
    yield gauge(
        "kapelle_muted_devices",
        "Devices whose unusable reports are counted only.",
        ["protocol"],
        (([name], len(b.muted(now_ns))) for name, b in sorted(sources.breakers.items())),
    )
    if sources.quarantine is None:
        return
    counts = sources.quarantine.quarantine.counts(sources=0)
    yield gauge(
        "kapelle_quarantine_open",
        "Occurrences in quarantine that nobody has decided on, by reason.",
        ["reason"],
        (
            ([code], count)
            for code, count in bounded(
                {code: states.get("open", 0) for code, states in counts.by_code.items()}
            ).items()
        ),
    )
    yield counter(
        "kapelle_quarantine_pushed_out_total",
        "Occurrences too old to be kept, by reason.",
        ["reason"],
        (
            ([code], count)
            for code, count in bounded(
                {code: states.get("pushed-out", 0) for code, states in counts.by_code.items()}
            ).items()
        ),
    )
    yield gauge("kapelle_quarantine_bytes", "Held in quarantine.", [], [([], counts.size)])


def _history(counted: HistoryCounters, now_ns: int) -> Iterator[Metric]:
    yield counter(
        "kapelle_history_rows_total",
        "Rows written to the record, by table.",
        ["table"],
        (([table], rows) for table, rows in sorted(counted.rows.items())),
    )
    yield counter(
        "kapelle_history_bytes_total", "Written to the record.", [], [([], counted.bytes)]
    )
    yield gauge(
        "kapelle_history_lag_seconds",
        "Age of the oldest row that is not in the record.",
        [],
        [([], counted.lag_s(now_ns))],
    )
    yield gauge(
        "kapelle_history_waiting_rows",
        "Rows not yet in the record; the journal has them.",
        [],
        [([], counted.waiting_rows)],
    )
    yield gauge(
        "kapelle_history_unmerged",
        "Merges of the record's files that could not be done and are tried again.",
        [],
        [([], counted.unmerged)],
    )
    yield counter(
        "kapelle_history_failures_total",
        "Times the record could not be written.",
        [],
        [([], counted.failures)],
    )
    yield gauge(
        "kapelle_energy_conservation_error_wh",
        "By how much the ledger differs from registers that were read throughout and only rose.",
        [],
        [([], counted.energy_error_wh)],
    )
    last_s = counted.last_flush_ns / NS_PER_S
    yield gauge(
        "kapelle_history_flush_timestamp_seconds", "When it was last written.", [], [([], last_s)]
    )
