"""Metrics in Prometheus' text format. Labels are bounded: never a device's name."""

import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from kapelle import __version__
from kapelle.api import metrics_plant, metrics_process
from kapelle.api.families import bounded, counter, gauge, histogram
from kapelle.api.health import Health, judge
from kapelle.api.sources import Sources
from kapelle.fleet.plant import PlantView

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST


class IngestCounters(Protocol):
    """What ingest counts (`ingest.service.Counters`)."""

    accepted: int
    quarantined: dict[str, int]
    muted: int
    declined: int
    commit_s: float
    commit_buckets: list[int]

    @property
    def commit_bounds_s(self) -> Sequence[float]:
        """Upper bounds of `commit_buckets`, but for the last, which has none. [s]"""


class SessionCounters(Protocol):
    """What an adapter that keeps sessions counts (`adapters.mqtt.counters.Counters`)."""

    sessions: int
    connected: int
    takeovers: int
    flaps: int
    commands_sent: int
    commands_received: int
    commands_unsent: int

    @property
    def connects_refused(self) -> Mapping[str, int]:
        """Connections refused, by reason: one of a set that no peer can lengthen."""

    @property
    def drops(self) -> Mapping[str, int]:
        """Connections ended by us, by reason: one of a set that no peer can lengthen."""


def render(
    view: PlantView,
    now_ns: int,
    counters: Mapping[str, IngestCounters],
    sessions: Mapping[str, SessionCounters],
    damage: int = 0,
    sources: Sources | None = None,
    health: Health | None = None,
    *,
    is_open: bool = False,
) -> str:
    """Return every metric of the plant.

    Args:
        view: The plant.
        now_ns: The time.
        counters: What ingest counts, by protocol.
        sessions: What adapters that keep sessions count, by protocol.
        damage: Places found damaged in the journal.
        sources: What else this process knows.
        health: How it is; judged here when None.
        is_open: As OpenMetrics rather than in Prometheus' own format.
    """
    told = sources if sources is not None else Sources()
    if health is None:
        health = judge(view, now_ns, told, ["damaged"] * damage)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Plant(view, now_ns, counters, sessions, damage, told, health))
    if is_open:
        made: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]  # the library's
        return made.decode()
    return generate_latest(registry).decode()


class _Plant(Collector):
    """The plant at one moment."""

    def __init__(
        self,
        view: PlantView,
        now_ns: int,
        counters: Mapping[str, IngestCounters],
        sessions: Mapping[str, SessionCounters],
        damage: int,
        sources: Sources,
        health: Health,
    ) -> None:
        self._sources = sources
        self._health = health
        self._view = view
        self._now_ns = now_ns
        self._counters = counters
        self._sessions = sessions
        self._damage = damage

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        held = float(self._view.held)
        python = platform.python_version()
        yield gauge(
            "kapelle_build_info", "Version.", ["version", "python"], [([__version__, python], 1)]
        )
        yield gauge("kapelle_kill_switch_state", "1 while every command is held.", [], [([], held)])
        yield gauge(
            "kapelle_journal_damage",
            "Places found damaged in the journal since the start.",
            [],
            [([], self._damage)],
        )
        yield from _ingest(self._counters)
        yield from _connections(self._sessions)
        yield from metrics_plant.fleet(self._view)
        yield from metrics_plant.timely(self._view, self._now_ns)
        yield from metrics_plant.capacity(self._sources.capacity)
        if self._sources.timings is not None:
            yield from metrics_plant.dispatch(self._sources.timings)
        yield from metrics_process.process(self._sources, self._health, self._now_ns)

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: the registry lives as long as one answer."""
        yield from ()


def _ingest(counters: Mapping[str, IngestCounters]) -> Iterator[Metric]:
    told = sorted(counters.items())
    yield counter(
        "kapelle_ingest_readings_total",
        "Readings by what became of them.",
        ["protocol", "result"],
        (
            ([protocol, result], count)
            for protocol, c in told
            for result, count in (
                ("accepted", c.accepted),
                ("quarantined", sum(c.quarantined.values())),
                ("muted", c.muted),
            )
        ),
    )
    reasons: Counter[str] = Counter()
    for _, c in told:
        reasons.update(c.quarantined)
    yield counter(
        "kapelle_quarantine_total",
        "Rows in quarantine by reason.",
        ["reason"],
        (([code], count) for code, count in bounded(reasons).items()),
    )
    yield counter(
        "kapelle_shed_total",
        "What was not stored, by reason.",
        ["class", "reason"],
        [
            (["batch", "journal-full"], sum(c.declined for _, c in told)),
            (["quarantine", "muted"], sum(c.muted for _, c in told)),
        ],
    )
    yield histogram(
        "kapelle_ingest_commit_seconds",
        "From append to durable.",
        ["protocol"],
        (([protocol], c.commit_bounds_s, c.commit_buckets, c.commit_s) for protocol, c in told),
    )


def _connections(sessions: Mapping[str, SessionCounters]) -> Iterator[Metric]:
    told = sorted(sessions.items())
    yield gauge(
        "kapelle_sessions",
        "Devices connected.",
        ["protocol"],
        (([protocol], c.sessions) for protocol, c in told),
    )
    yield counter(
        "kapelle_session_connects_total",
        "Attempts to connect: accepted, or why refused.",
        ["protocol", "result"],
        (
            ([protocol, result], count)
            for protocol, c in told
            for result, count in (
                ("accepted", c.connected),
                *((f"refused: {why}", n) for why, n in sorted(c.connects_refused.items())),
            )
        ),
    )
    yield counter(
        "kapelle_connection_drops_total",
        "Connections ended by the plant, by reason.",
        ["protocol", "reason"],
        (
            ([protocol, why], count)
            for protocol, c in told
            for why, count in sorted(c.drops.items())
        ),
    )
    yield counter(
        "kapelle_session_takeovers_total",
        "Sessions a newer connection of the same device ended.",
        ["protocol"],
        (([protocol], c.takeovers) for protocol, c in told),
    )
    yield counter(
        "kapelle_session_flaps_total",
        "Alarms: two seem to use one device's credentials.",
        ["protocol"],
        (([protocol], c.flaps) for protocol, c in told),
    )
    yield counter(
        "kapelle_session_commands_total",
        "Commands written to devices, answered by them as received, and offered in vain: the device"
        " has no session in this protocol.",
        ["protocol", "result"],
        (
            ([protocol, result], count)
            for protocol, c in told
            for result, count in (
                ("sent", c.commands_sent),
                ("received", c.commands_received),
                ("unsent", c.commands_unsent),
            )
        ),
    )
