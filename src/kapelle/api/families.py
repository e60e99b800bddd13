"""Families of metrics from plain values, with labels that no peer can lengthen."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

LABELS_MAX = 64
"""Values a label takes whose words come from reasons; the rest is `other`."""

Samples = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and the sample's own."""
Buckets = tuple[Sequence[str], Sequence[float], Sequence[int], float]
"""Values of the labels, bounds, counts of each bucket (one more than bounds), sum of the values."""


class Counted(Protocol):
    """A histogram (`runtime.histogram.Histogram`)."""

    bounds: Sequence[float]
    counts: list[int]
    sum: float


def gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    """Return values that go up and down."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def counter(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    """Return values that only rise; the name ends in `_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def histogram(name: str, text: str, labels: Sequence[str], rows: Iterable[Buckets]) -> Metric:
    """Return counts by size of what happened since the start."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, bounds, counts, total in rows:
        family.add_metric(values, _summed(bounds, counts), total)
    return family


def gauge_histogram(name: str, text: str, labels: Sequence[str], rows: Iterable[Buckets]) -> Metric:
    """Return counts by size of what there is now."""
    family = GaugeHistogramMetricFamily(name, text, labels=labels)
    for values, bounds, counts, total in rows:
        family.add_metric(values, _summed(bounds, counts), total)
    return family


def bounded(counts: Mapping[str, float], most: int = LABELS_MAX) -> dict[str, float]:
    """Return at most so many, the first that came; what came later is summed up as `other`."""
    if len(counts) <= most:
        return dict(sorted(counts.items()))
    named = list(counts.items())
    kept = dict(named[: most - 1])
    kept["other"] = kept.get("other", 0.0) + sum(value for _, value in named[most - 1 :])
    return dict(sorted(kept.items()))


def _summed(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    names = [*(f"{bound:g}" for bound in bounds), "+Inf"]
    return list(zip(names, accumulate(counts), strict=True))
