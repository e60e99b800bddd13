"""What one run of a line was like: measured on the devices' own physics."""

from dataclasses import dataclass
from itertools import pairwise

import msgspec
import numpy as np

from kapelle.model.ids import Floats
from kapelle.sim.acceptance.lines import Line
from kapelle.sim.invariants import broken
from kapelle.sim.result import OrderResult, Track, longest_out, settled, worst_window
from kapelle.sim.run import Performance

_SETTLES_S = 30.0
"""From then on delivery is counted, settled or not. [s]"""
_WINDOW_S = 300.0
_LAST_S = 60.0
"""What is missing is measured over the end of the order. [s]"""


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """What was announced of a shortfall, held against what was missing in the end."""

    after_s: float
    """From the first loss to the first notice."""
    error: float
    """How far the size first announced lies from what was missing, of the commitment."""
    named_s: float | None
    """From the loss to the first notice that names the group that was lost; None: none did."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One seed of a line. The same code, line and seed give the same, but for `wall_s`."""

    line: str
    seed: int
    made_by: str
    """Which code and which line it was; see `playing.fingerprint`."""
    committed_w: float
    delivered_mean: float
    """Of the commitment, from half a minute after the start to the end."""
    delivered_whole: float
    """The same from the very start: what the ramp-up costs is in it."""
    baseline_off_pct: float
    """How far the published baseline was from what the fleet did in that moment, of the
    commitment. [%]"""
    worst_5min: float
    """The least mean over any five minutes of what `delivered_mean` counts."""
    settle_5pct_s: float | None
    """None: never."""
    settle_2pct_s: float | None
    overshoot_pct: float
    out_5pct_s: list[float]
    """After each event of the line: the longest time outside the band, until the next."""
    out_2pct_s: list[float]
    off_pct: list[float]
    """After each event: how far it was off at most, of the commitment. [%]"""
    admitted: Admitted | None
    """None: no shortfall was announced."""
    detected_s: float | None
    """From the first loss until the plant counted on none of the lost; None: never, or no loss."""
    redispatch_p95_s: float | None
    """From the loss of a device to the sending of its replacement; None where none was lost."""
    commands_per_device_hour: float
    double_effects: int
    stranded: int
    fencing: int
    """Commands of a deposed epoch that took effect, and entries of a deposed writer."""
    restarts: int
    """Lives of roles that ended and began anew."""
    problems: list[str]
    """Every other promise that was broken."""
    wall_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Delivered:
    """The share of the commitment that was there, over an order.

    Counted from the baseline the plant published: baseline and commitment together are the promise.
    What the fleet did by itself in the second of the start is no better a reference, since clouds
    move it by percents of an order within seconds; how far off it was is told by itself.
    """

    at_s: Floats
    share: Floats

    def since(self, start_s: float, end_s: float) -> "_Delivered":
        part = slice(*np.searchsorted(self.at_s, [start_s, end_s]))
        return _Delivered(self.at_s[part], self.share[part])

    def settled_s(self, band: float) -> float | None:
        return settled(self.at_s, np.abs(self.share - 1.0) <= band)

    def longest_out_s(self, band: float) -> float:
        return longest_out(self.at_s, np.abs(self.share - 1.0) > band)


def measure(line: Line, done: Performance, detected_s: float | None, made_by: str) -> Seen:
    """Return what a run of a line was like.

    Args:
        line: What was played.
        done: How it went.
        detected_s: When the first loss was noticed, since the loss; None: never.
        made_by: The fingerprint to keep with it.

    Raises:
        ValueError: The order was declined: there is nothing to measure.
    """
    (order,) = done.result.orders
    if order.committed_w == 0.0:
        raise ValueError(f"line {line.name}, seed {done.result.seed}: nothing was committed")
    whole = _delivered(done, order)
    counted = whole.since(order.starts_s + _SETTLES_S, order.ends_s)
    times_s = line.events_s
    windows = [whole.since(start_s, end_s) for start_s, end_s in pairwise([*times_s, order.ends_s])]
    agents = done.play.world.agents
    deposed = [problem for problem in done.audit.problems if "of the past" in problem]
    return Seen(
        line=line.name,
        seed=done.result.seed,
        made_by=made_by,
        committed_w=order.committed_w,
        delivered_mean=float(counted.share.mean()),
        delivered_whole=float(whole.share.mean()),
        baseline_off_pct=abs(order.baseline_w - order.true_baseline_w)
        / abs(order.committed_w)
        * 100,
        worst_5min=worst_window(counted.at_s, counted.share, _WINDOW_S),
        settle_5pct_s=whole.settled_s(0.05),
        settle_2pct_s=whole.settled_s(0.02),
        overshoot_pct=max(0.0, float(whole.share.max() - 1.0) * 100),
        out_5pct_s=[window.longest_out_s(0.05) for window in windows],
        out_2pct_s=[window.longest_out_s(0.02) for window in windows],
        off_pct=[float(np.abs(window.share - 1.0).max()) * 100 for window in windows],
        admitted=_admitted(line, done, order, whole),
        detected_s=detected_s,
        redispatch_p95_s=done.result.redispatch.p95_s,
        commands_per_device_hour=done.result.commands_per_device_hour,
        double_effects=agents.double_effects,
        stranded=done.result.stranded,
        fencing=agents.stale_effects + len(deposed),
        restarts=done.result.restarts,
        problems=broken(done),
        wall_s=done.result.wall_s,
    )


def _delivered(done: Performance, order: OrderResult) -> _Delivered:
    track = Track(np.array(done.play.at_s), np.array(done.play.power_w))
    part = track.between(order.starts_s, order.ends_s)
    return _Delivered(part.at_s, (part.power_w - order.baseline_w) / order.committed_w)


def _admitted(
    line: Line, done: Performance, order: OrderResult, whole: _Delivered
) -> Admitted | None:
    losses = line.scenario.faults.group_loss
    since_s = losses[0].at_s if losses else order.starts_s
    said = [
        (done.play.elapsed_s(notice.at_ns) - since_s, notice)
        for notice in done.play.notices
        if notice.code == "shortfall" and done.play.elapsed_s(notice.at_ns) >= since_s
    ]
    if not said:
        return None
    missing = 1.0 - float(whole.since(order.ends_s - _LAST_S, order.ends_s).share.mean())
    after_s, first = said[0]
    naming = [at_s for at_s, notice in said if losses and losses[0].name in notice.text]
    return Admitted(
        after_s=after_s,
        error=abs(first.power_w / order.committed_w - missing),
        named_s=min(naming, default=None),
    )
