"""Metrics in Prometheus' text format. Labels are bounded: never a device's name."""

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import Protocol

from kapelle import __version__
from kapelle.fleet.plant import PlantView, total
from kapelle.model.enums import Freshness, Phase
from kapelle.model.ids import NS_PER_S

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class IngestCounters(Protocol):
    """What ingest counts (`ingest.service.Counters`)."""

    accepted: int
    quarantined: dict[str, int]
    muted: int
    declined: int
    commits: int
    commit_s: float
    commit_buckets: list[int]

    @property
    def commit_bounds_s(self) -> Sequence[float]:
        """Upper bounds of `commit_buckets`, but for the last, which has none. [s]"""


Labels = Mapping[str, str]
Sample = tuple[Labels, float]


def render(view: PlantView, now_ns: int, counters: Mapping[str, IngestCounters]) -> str:
    """Return every metric of the plant. `counters`: by protocol."""
    lines: list[str] = []
    _metric(lines, "kapelle_build_info", "gauge", "Version.", [({"version": __version__}, 1)])
    _metric(
        lines,
        "kapelle_kill_switch_state",
        "gauge",
        "1 while every command is held.",
        [({}, float(view.held))],
    )
    _ingest(lines, counters)
    _plant(lines, view, now_ns)
    return "\n".join(lines) + "\n"


def _ingest(lines: list[str], counters: Mapping[str, IngestCounters]) -> None:
    told = sorted(counters.items())
    _metric(
        lines,
        "kapelle_ingest_readings_total",
        "counter",
        "Readings by what became of them.",
        [
            ({"protocol": protocol, "result": result}, count)
            for protocol, c in told
            for result, count in (
                ("accepted", c.accepted),
                ("quarantined", sum(c.quarantined.values())),
                ("muted", c.muted),
            )
        ],
    )
    reasons: dict[str, int] = {}
    for _, c in told:
        for code, count in c.quarantined.items():
            reasons[code] = reasons.get(code, 0) + count
    _metric(
        lines,
        "kapelle_quarantine_total",
        "counter",
        "Rows in quarantine by reason.",
        [({"reason": code}, count) for code, count in sorted(reasons.items())],
    )
    _metric(
        lines,
        "kapelle_shed_total",
        "counter",
        "What was not stored, by reason.",
        [
            ({"class": kind, "reason": reason}, count)
            for kind, reason, count in (
                ("batch", "journal-full", sum(c.declined for _, c in told)),
                ("quarantine", "muted", sum(c.muted for _, c in told)),
            )
        ],
    )
    name = "kapelle_ingest_commit_seconds"
    _head(lines, name, "histogram", "From append to durable.")
    for protocol, c in told:
        below = 0
        for bound, count in zip((*c.commit_bounds_s, float("inf")), c.commit_buckets, strict=True):
            below += count
            text = "+Inf" if bound == float("inf") else f"{bound:g}"
            _sample(lines, f"{name}_bucket", {"protocol": protocol, "le": text}, below)
        _sample(lines, f"{name}_sum", {"protocol": protocol}, c.commit_s)
        _sample(lines, f"{name}_count", {"protocol": protocol}, c.commits)


def _plant(lines: list[str], view: PlantView, now_ns: int) -> None:
    totals = [total(view, resource) for resource in view.resources()]
    for name, text, values in (
        (
            "kapelle_aggregate_power_watts",
            "Estimated power towards the grid.",
            [t.power_w for t in totals],
        ),
        (
            "kapelle_aggregate_power_std_watts",
            "Standard deviation of the estimate.",
            [t.std_w for t in totals],
        ),
        (
            "kapelle_aggregate_measured_ratio",
            "Share that rests on live readings.",
            [t.measured_share for t in totals],
        ),
    ):
        samples = [({"group": t.resource}, v) for t, v in zip(totals, values, strict=True)]
        _metric(lines, name, "gauge", text, samples)
    _metric(
        lines,
        "kapelle_headroom_watts",
        "gauge",
        "What could be held for 15 minutes.",
        [
            ({"group": t.resource, "direction": way}, value)
            for t in totals
            for way, value in (("up", t.headroom_up_w), ("down", t.headroom_down_w))
        ],
    )
    _metric(
        lines,
        "kapelle_target_power_watts",
        "gauge",
        "Committed change against the baseline, per resource.",
        [
            ({"group": s.order.resource}, s.committed_w)
            for s in view.orders.values()
            if s.plan is not None
            and not s.is_over
            and s.order.starts_at_ns <= now_ns < s.order.ends_at_ns
        ],
    )
    for every in (t for t in totals if t.resource == "all"):
        _metric(
            lines,
            "kapelle_devices",
            "gauge",
            "Devices by freshness.",
            [({"state": f.name.lower()}, every.freshness[f]) for f in Freshness],
        )
        _metric(
            lines,
            "kapelle_dispatch_commands",
            "gauge",
            "Current commands by phase.",
            [({"stage": p.name.lower()}, every.phases[p]) for p in Phase if p != Phase.NONE],
        )
    _metric(
        lines,
        "kapelle_partition_lag_seconds",
        "gauge",
        "Age of each partition's newest summary.",
        [
            ({"partition": str(k)}, (now_ns - s.tick_ns) / NS_PER_S)
            for k, s in sorted(view.summaries.items())
        ],
    )


def _metric(lines: list[str], name: str, kind: str, text: str, samples: Iterable[Sample]) -> None:
    _head(lines, name, kind, text)
    for labels, value in samples:
        _sample(lines, name, labels, value)


def _head(lines: list[str], name: str, kind: str, text: str) -> None:
    lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _sample(lines: list[str], name: str, labels: Labels, value: float) -> None:
    told = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
    text = "NaN" if isnan(value) else repr(value)
    lines.append(f"{name}{{{told}}} {text}" if told else f"{name} {text}")


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
