"""What a simulated run came to, in words: `kapelle sim run` for people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kapelle.words import counted, number, percent, power

if TYPE_CHECKING:
    # The simulator is costly to import: only the commands that need it do.
    from kapelle.sim.result import OrderResult, Result


def facts(result: "Result") -> list[tuple[str, str]]:
    """Return what is known of a run, each with its name."""
    found: list[tuple[str, str]] = []
    for place, order in enumerate(result.orders, 1):
        found += [(f"order {place}", _promise(order)), *(("", text) for text in _delivery(order))]
    aggregate, redispatch = result.aggregate, result.redispatch
    if aggregate.published:
        off = f"{_pct(aggregate.error_p50_pct, 2)} of nameplate off in the median"
        most = f"{_pct(aggregate.error_p95_pct, 2)} in 95 of 100"
        held = (
            f"{percent(aggregate.interval_coverage, 1)} of {counted(aggregate.published, 'truth')}"
        )
        found.append(("estimate", f"{off}, {most}; its 95 % interval held {held}"))
    if redispatch.devices:
        took = f"half within {_seconds(redispatch.p50_s)}, 95 % within {_seconds(redispatch.p95_s)}"
        found.append(("replaced", f"{counted(redispatch.devices, 'lost device')}, {took}"))
    sent = f"{number(result.commands_per_device_hour, 1)} per device and hour"
    found += [
        ("commands", f"{_counts(result.commands)}; {sent}"),
        ("readings", _counts(result.readings)),
    ]
    if result.firm:
        levels = (
            f"{name.removesuffix('_w').upper()} {power(w)}" for name, w in result.firm.items()
        )
        found.append(("firm", ", ".join(levels)))
    twice = f"{counted(result.double_effects, 'command')} took effect twice"
    found.append(("broken", f"{twice}, {counted(result.stranded, 'device')} left with a setpoint"))
    return found


def _promise(order: "OrderResult") -> str:
    text = f"{power(order.committed_w)} of {power(order.target_w)} promised from"
    return f"{text} {power(order.baseline_w)} (in truth {power(order.true_baseline_w)})"


def _delivery(order: "OrderResult") -> list[str]:
    """Return how the promise was kept, a sentence each."""
    if order.delivered_mean is None:
        return []
    share, least = percent(order.delivered_mean, 1), percent(order.worst_5min, 1)
    more = f"{_pct(order.overshoot_pct, 1)} too much at most"
    if order.worst_pct is not None:
        more += f", {_pct(order.worst_pct, 1)} had all obeyed who still might"
    within = [_seconds(order.settle_5pct_s), _seconds(order.settle_2pct_s)]
    found = [
        f"delivered {share} of it, in the worst five minutes {least}; {more}",
        f"within ±5 % after {within[0]}, ±2 % after {within[1]}",
    ]
    if order.recover_2pct_s:
        out = f"out of ±5 % for {_each(order.recover_5pct_s)}"
        found.append(f"after losses {out}, of ±2 % for {_each(order.recover_2pct_s)}")
    if order.shortfall_notice_s is not None:
        found.append(f"a shortfall was said after {_seconds(order.shortfall_notice_s)}")
    found += [
        f"interval {place}: {percent(each.delivered_mean, 1)} of {power(each.committed_w)}"
        for place, each in enumerate(order.intervals, 1)
    ]
    return found


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())


def _each(seconds: Sequence[float]) -> str:
    return ", ".join(_seconds(each) for each in seconds)


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{number(seconds, 1)} s"


def _pct(value: float | None, places: int) -> str:
    return percent(None if value is None else value / 100.0, places)
