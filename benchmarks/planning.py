"""How long it takes to plan a profile, and to sum up the stores it is planned with."""

import time
from collections.abc import Callable

import numpy as np

from benchmarks.allocation import make_fleet
from kapelle.dispatch.planning.groups import groups, window
from kapelle.dispatch.planning.lookahead import Ahead, look_ahead
from kapelle.dispatch.planning.physics import violation
from kapelle.fleet.profiles import Part
from kapelle.fleet.stores import stores
from kapelle.model.ids import NS_PER_S
from kapelle.model.signals import Signal

Row = dict[str, object]
_PLAN_MS = 50.0


def run(quick: bool) -> list[Row]:
    """Return the numbers; `quick` leaves out the million."""
    rows = [_plan(intervals) for intervals in (4, 24, 96)]
    return rows + [_stores(size) for size in ((100_000,) if quick else (100_000, 1_000_000))]


def _plan(intervals: int) -> Row:
    fleet = make_fleet(10_000)
    hours = 24 if intervals == 96 else intervals / 4
    length_ns = int(hours / intervals * 3600) * NS_PER_S
    ends_ns = fleet.now_ns + intervals * length_ns
    signal = Signal("all", 1, 0.0, 0.0, 1, ends_ns, stores="up")
    told = stores(fleet, np.arange(fleet.size, dtype=np.int32), signal)
    draw = np.random.default_rng(2)
    able_w = sum(sums[0] for sums in told.values())
    parts = [
        Part(i * length_ns, (i + 1) * length_ns, able_w * draw.uniform(0.1, 0.5))
        for i in range(intervals)
    ]
    left = window(parts, 0)
    there = groups([told], left.lasts_s, "up", intervals)
    took_s = _best_s(lambda: look_ahead(there, left), 5)
    found = look_ahead(there, left)
    assert isinstance(found, Ahead)
    assert not violation(found, there, left)
    return {
        "name": f"plan of {intervals} intervals",
        "value": took_s * 1e3,
        "unit": "ms",
        "ratio": _PLAN_MS / (took_s * 1e3),
        "peer": f"aim {_PLAN_MS:g} ms",
        "note": f"{len(there)} durations, HiGHS",
    }


def _stores(size: int) -> Row:
    fleet = make_fleet(size)
    signal = Signal("all", 1, 0.0, 0.0, 1, fleet.now_ns + 3600 * NS_PER_S, stores="up")
    rows = np.arange(size, dtype=np.int32)
    took_s = _best_s(lambda: stores(fleet, rows, signal), 3)
    return {
        "name": f"stores of {size}",
        "value": took_s * 1e3,
        "unit": "ms",
        "ratio": None,
        "peer": "",
        "note": "only while a profile runs",
    }


def _best_s(work: Callable[[], object], times: int) -> float:
    best_s = float("inf")
    for _ in range(times):
        began = time.thread_time()
        work()
        best_s = min(best_s, time.thread_time() - began)
    return best_s
