"""Metrics in Prometheus' text format. Labels are bounded: never a device's name."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kapelle import __version__
from kapelle.fleet.plant import PlantView, total
from kapelle.model.enums import Freshness, Phase
from kapelle.model.ids import ALL, NS_PER_S

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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


Samples = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and the sample's own."""


def render(
    view: PlantView,
    now_ns: int,
    counters: Mapping[str, IngestCounters],
    sessions: Mapping[str, SessionCounters],
    damage: int = 0,
) -> str:
    """Return every metric of the plant.

    Args:
        view: The plant.
        now_ns: The time.
        counters: What ingest counts, by protocol.
        sessions: What adapters that keep sessions count, by protocol.
        damage: Places found damaged in the journal.
    """
    registry = CollectorRegistry()
    registry.register(_Plant(view, now_ns, counters, sessions, damage))
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
    ) -> None:
        self._view = view
        self._now_ns = now_ns
        self._counters = counters
        self._sessions = sessions
        self._damage = damage

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        held = float(self._view.held)
        yield _gauge("kapelle_build_info", "Version.", ["version"], [([__version__], 1)])
        yield _gauge(
            "kapelle_kill_switch_state", "1 while every command is held.", [], [([], held)]
        )
        yield _gauge(
            "kapelle_journal_damage",
            "Places found damaged in the journal since the start.",
            [],
            [([], self._damage)],
        )
        yield from _ingest(self._counters)
        yield from _connections(self._sessions)
        yield from _fleet(self._view)
        yield from _timely(self._view, self._now_ns)


def _ingest(counters: Mapping[str, IngestCounters]) -> Iterator[Metric]:
    told = sorted(counters.items())
    yield _counter(
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
    yield _counter(
        "kapelle_quarantine_total",
        "Rows in quarantine by reason.",
        ["reason"],
        (([code], count) for code, count in sorted(reasons.items())),
    )
    yield _counter(
        "kapelle_shed_total",
        "What was not stored, by reason.",
        ["class", "reason"],
        [
            (["batch", "journal-full"], sum(c.declined for _, c in told)),
            (["quarantine", "muted"], sum(c.muted for _, c in told)),
        ],
    )
    commits = HistogramMetricFamily(
        "kapelle_ingest_commit_seconds", "From append to durable.", labels=["protocol"]
    )
    for protocol, c in told:
        bounds = [*(f"{bound:g}" for bound in c.commit_bounds_s), "+Inf"]
        buckets = list(zip(bounds, accumulate(c.commit_buckets), strict=True))
        commits.add_metric([protocol], buckets, c.commit_s)
    yield commits


def _connections(sessions: Mapping[str, SessionCounters]) -> Iterator[Metric]:
    told = sorted(sessions.items())
    yield _gauge(
        "kapelle_sessions",
        "Devices connected.",
        ["protocol"],
        (([protocol], c.sessions) for protocol, c in told),
    )
    yield _counter(
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
    yield _counter(
        "kapelle_connection_drops_total",
        "Connections ended by the plant, by reason.",
        ["protocol", "reason"],
        (
            ([protocol, why], count)
            for protocol, c in told
            for why, count in sorted(c.drops.items())
        ),
    )
    yield _counter(
        "kapelle_session_takeovers_total",
        "Sessions a newer connection of the same device ended.",
        ["protocol"],
        (([protocol], c.takeovers) for protocol, c in told),
    )
    yield _counter(
        "kapelle_session_flaps_total",
        "Alarms: two seem to use one device's credentials.",
        ["protocol"],
        (([protocol], c.flaps) for protocol, c in told),
    )
    yield _counter(
        "kapelle_session_commands_total",
        "Commands written to devices, answered by them as received, and not written.",
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


def _fleet(view: PlantView) -> Iterator[Metric]:
    totals = [total(view, resource) for resource in view.resources()]
    group = ["group"]
    yield _gauge(
        "kapelle_aggregate_power_watts",
        "Estimated power towards the grid.",
        group,
        (([t.resource], t.power_w) for t in totals),
    )
    yield _gauge(
        "kapelle_aggregate_power_std_watts",
        "Standard deviation of the estimate.",
        group,
        (([t.resource], t.std_w) for t in totals),
    )
    yield _gauge(
        "kapelle_aggregate_measured_ratio",
        "Share that rests on live readings.",
        group,
        (([t.resource], t.measured_share) for t in totals),
    )
    yield _gauge(
        "kapelle_headroom_watts",
        "What could be held for 15 minutes.",
        ["group", "direction"],
        (
            ([t.resource, way], value)
            for t in totals
            for way, value in (("up", t.headroom_up_w), ("down", t.headroom_down_w))
        ),
    )
    for every in (t for t in totals if t.resource == ALL):
        yield _gauge(
            "kapelle_devices",
            "Devices by freshness.",
            ["state"],
            (([f.name.lower()], every.freshness[f]) for f in Freshness),
        )
        yield _gauge(
            "kapelle_dispatch_commands",
            "Current commands by phase.",
            ["stage"],
            (([p.name.lower()], every.phases[p]) for p in Phase if p != Phase.NONE),
        )


def _timely(view: PlantView, now_ns: int) -> Iterator[Metric]:
    yield _gauge(
        "kapelle_target_power_watts",
        "Committed change against the baseline, per resource.",
        ["group"],
        (
            ([s.order.resource], s.committed_w)
            for s in view.orders.values()
            if s.plan is not None
            and not s.is_over
            and s.order.starts_at_ns <= now_ns < s.order.ends_at_ns
        ),
    )
    yield _gauge(
        "kapelle_partition_lag_seconds",
        "Age of each partition's newest summary.",
        ["partition"],
        (([str(k)], (now_ns - s.tick_ns) / NS_PER_S) for k, s in sorted(view.summaries.items())),
    )


def _gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
