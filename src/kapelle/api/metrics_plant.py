"""Metrics of devices, aggregates and orders, from the plant view and the owners' timings."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from kapelle.api.capacity_book import CapacityBook
from kapelle.api.families import counter, gauge, gauge_histogram, histogram
from kapelle.fleet.capacity.recalibration import LEVELS
from kapelle.fleet.plant import Aggregate, OrderState, PlantView, total
from kapelle.fleet.spread import AGE_BOUNDS_S, SKEW_BOUNDS_S
from kapelle.fleet.timings import GIVEN_UP, Timings
from kapelle.model.enums import Freshness, Phase, Standing
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.summaries import Spread


def fleet(view: PlantView) -> Iterator[Metric]:
    """Yield what is known of resources and of all devices."""
    totals = [total(view, resource) for resource in view.resources()]
    group = ["group"]
    yield gauge(
        "kapelle_aggregate_power_watts",
        "Estimated power towards the grid.",
        group,
        (([t.resource], t.power_w) for t in totals),
    )
    yield gauge(
        "kapelle_aggregate_power_std_watts",
        "Standard deviation of the estimate.",
        group,
        (([t.resource], t.std_w) for t in totals),
    )
    yield gauge(
        "kapelle_aggregate_measured_ratio",
        "Share that rests on live readings.",
        group,
        (([t.resource], t.measured_share) for t in totals),
    )
    yield gauge(
        "kapelle_headroom_watts",
        "What could be held for 15 minutes.",
        ["group", "direction"],
        (
            ([t.resource, way], value)
            for t in totals
            for way, value in (("up", t.headroom_up_w), ("down", t.headroom_down_w))
        ),
    )
    energy_wh: dict[tuple[str, str], float] = {}
    for summary in view.summaries.values():
        for part in summary.resources:
            for way, mwh in (("export", part.export_mwh), ("import", part.import_mwh)):
                key = part.resource, way
                energy_wh[key] = energy_wh.get(key, 0.0) + mwh / 1000
    yield gauge(
        "kapelle_device_energy_wh",
        "What registers have counted since each device was first heard, as published.",
        ["group", "direction"],
        sorted(energy_wh.items()),
    )
    for every in (t for t in totals if t.resource == ALL):
        yield from _devices(view, every)
    if view.spreads:
        yield from _spread(list(view.spreads.values()))


def capacity(book: CapacityBook) -> Iterator[Metric]:
    """Yield what can be promised for an hour, by how surely, with and without the worst vendor."""
    if not book.told:
        return
    labels = ["group", "direction", "probability"]
    told = sorted(book.told.items())
    yield gauge(
        "kapelle_firm_capacity_watts",
        "The least power over the next hour, kept with this probability.",
        labels,
        (
            ([name, way, f"{level:g}"], watts)
            for (name, way), found in told
            for level, watts in zip(LEVELS, found.promise_w, strict=True)
        ),
    )
    yield gauge(
        "kapelle_firm_capacity_without_worst_vendor_watts",
        "The same once the vendor whose loss costs most is gone.",
        labels,
        (
            ([name, way, f"{level:g}"], watts)
            for (name, way), found in told
            if found.worst is not None
            for level, watts in zip(LEVELS, found.worst.left_w, strict=True)
        ),
    )


def _devices(view: PlantView, every: Aggregate) -> Iterator[Metric]:
    states = _states(view) or {"unknown": list(every.freshness)}
    yield gauge(
        "kapelle_devices",
        "Devices by freshness and type; every ten seconds.",
        ["state", "type"],
        (([f.name.lower(), kind], n[f]) for kind, n in sorted(states.items()) for f in Freshness),
    )
    yield gauge(
        "kapelle_commands_current",
        "Current commands by phase.",
        ["stage"],
        (([p.name.lower()], every.phases[p]) for p in Phase if p != Phase.NONE),
    )
    yield gauge(
        "kapelle_devices_excluded",
        "Devices dispatch does not count on, by reason.",
        ["reason"],
        (([reason], count) for reason, count in every.excluded.items()),
    )
    yield gauge(
        "kapelle_device_standings",
        "Devices by how they stand to what is asked of them.",
        ["standing"],
        (([s.name.lower()], n) for s, n in zip(Standing, every.standings, strict=False)),
    )
    yield gauge(
        "kapelle_device_reports",
        "Reports of the devices there are, since each was first heard.",
        ["result"],
        (
            (["received"], every.received),
            (["duplicate"], every.duplicates),
            (["late"], every.late),
            (["lost"], every.lost),
        ),
    )
    yield gauge(
        "kapelle_device_conditions",
        "Devices by what is wrong with them for longer than a moment.",
        ["condition"],
        (([name], count) for name, count in every.conditions.items()),
    )


def _states(view: PlantView) -> dict[str, list[int]]:
    """Return devices in each freshness, by kind."""
    states: dict[str, list[int]] = {}
    for spread in view.spreads.values():
        for kind, counts in spread.states.items():
            before = states.get(kind, [0] * len(Freshness))
            states[kind] = [a + b for a, b in zip(before, counts, strict=True)]
    return states


def _spread(parts: list[Spread]) -> Iterator[Metric]:
    def summed(lists: Iterator[list[int]]) -> list[int]:
        return [sum(counts) for counts in zip(*lists, strict=True)]

    yield gauge_histogram(
        "kapelle_device_report_age_seconds",
        "Devices by the age of their last report; every ten seconds.",
        [],
        [([], AGE_BOUNDS_S, summed(p.ages for p in parts), sum(p.age_s for p in parts))],
    )
    yield gauge_histogram(
        "kapelle_clock_skew_seconds",
        "Devices by how far their clock is off, at least; the way here counts as behind.",
        ["direction"],
        [
            (["ahead"], SKEW_BOUNDS_S, summed(p.ahead for p in parts),
             sum(p.ahead_s for p in parts)),
            (["behind"], SKEW_BOUNDS_S, summed(p.behind for p in parts),
             sum(p.behind_s for p in parts)),
        ],
    )  # fmt: skip


def timely(view: PlantView, now_ns: int) -> Iterator[Metric]:
    """Yield targets in force, how far they are missed, and the lag of partitions."""
    active = [s for s in view.orders.values() if _is_active(s, now_ns)]
    targets: dict[str, float] = {}
    errors: dict[str, float] = {}
    for state in active:
        resource = state.order.resource
        targets[resource] = targets.get(resource, 0.0) + state.committed_w
        goal_w = state.baseline_w + state.committed_w
        errors[resource] = total(view, resource).net_w - goal_w
    yield gauge(
        "kapelle_target_power_watts",
        "Committed change against the baseline, per resource.",
        ["group"],
        (([name], watts) for name, watts in sorted(targets.items())),
    )
    yield gauge(
        "kapelle_tracking_error_watts",
        "Estimated power, without what is done for other orders, less what is promised.",
        ["group"],
        (([name], watts) for name, watts in sorted(errors.items()) if watts == watts),
    )
    yield gauge(
        "kapelle_orders",
        "Orders in force.",
        [],
        [([], len(active))],
    )
    yield gauge(
        "kapelle_partition_lag_seconds",
        "Age of each partition's newest summary.",
        ["partition"],
        (([str(k)], (now_ns - s.tick_ns) / NS_PER_S) for k, s in sorted(view.summaries.items())),
    )


def _is_active(state: OrderState, now_ns: int) -> bool:
    order = state.order
    in_time = order.starts_at_ns <= now_ns < order.ends_at_ns
    return state.plan is not None and not state.is_over and in_time


def dispatch(timings: Timings) -> Iterator[Metric]:
    """Yield how many commands came to each stage, and how long it took."""
    yield counter(
        "kapelle_dispatch_commands_total",
        "Commands that entered each stage.",
        ["stage"],
        (([p.name.lower()], timings.entered[p]) for p in Phase if p != Phase.NONE),
    )
    yield histogram(
        "kapelle_dispatch_stage_seconds",
        "From planning a command to each stage.",
        ["stage"],
        (([p.name.lower()], h.bounds, h.counts, h.sum) for p, h in timings.took.items()),
    )
    yield counter(
        "kapelle_redispatch_total",
        "Commands whose share went to other devices, by cause.",
        ["cause"],
        (([p.name.lower()], timings.entered[p]) for p in GIVEN_UP),
    )
    took = timings.redispatch.took
    yield histogram(
        "kapelle_redispatch_seconds",
        "From the loss of a device to the sending of commands for its replacement.",
        [],
        [([], took.bounds, took.counts, took.sum)],
    )
