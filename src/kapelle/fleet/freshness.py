"""How long each device has been silent, in units of its own rhythm. Looked at once a tick."""

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, Floats32
from kapelle.fleet.estimation.estimate import in_flight
from kapelle.fleet.estimation.news import step_news
from kapelle.fleet.settings import FleetSettings
from kapelle.model.enums import Freshness, Metric
from kapelle.model.ids import NS_PER_S, Longs

_CHUNK = 1 << 15
"""Rows handled at once, so that what is computed stays in the cache: measured 2-3 times faster."""
_NO_SKEW = np.iinfo(np.int64).max
_S_PER_NS = 1e-9
_JUMP_NS = NS_PER_S
"""A clock that seems to have gone ahead by more may be a single wrong stamp."""


def step_freshness(fleet: Fleet, settings: FleetSettings, before_ns: int) -> NDArray[np.intp]:
    """Learn each device's rhythm and judge its silence, as of `fleet.now_ns`.

    Returns the rows whose newest power reading is another than at the tick before.

    What counts is how far the newest power reading advanced between two ticks, in the device's own
    time: how its reports were cut into blocks never matters, and nothing we send does.

    Args:
        fleet: The partition.
        settings: Bounds and rates.
        before_ns: The tick before.
    """
    marks = fleet.measured_at_ns[Metric.POWER_W, : fleet.size]
    news = np.flatnonzero(marks != fleet.marked_at_ns[: fleet.size])
    _note(fleet, settings, news, marks[news])
    if len(news):
        _hear(fleet, settings, news, marks[news])
    window_ns = int(settings.skew_window_s * NS_PER_S)
    if fleet.now_ns // window_ns != before_ns // window_ns:
        # Of a device that was silent we keep what we knew: it may return with old data first.
        heard = fleet.skew_ns != _NO_SKEW
        np.copyto(fleet.skew_before_ns, fleet.skew_ns, where=heard)
        fleet.skew_ns[heard] = _NO_SKEW
    for start in range(0, fleet.size, _CHUNK):
        _judge(fleet, settings, slice(start, min(start + _CHUNK, fleet.size)))
    return news


def _note(fleet: Fleet, settings: FleetSettings, rows: NDArray[np.intp], mark_ns: Longs) -> None:
    gap_ns = mark_ns - fleet.marked_at_ns[rows]
    known = (fleet.marked_at_ns[rows] > 0) & (gap_ns > 0)
    gap_s = np.where(known, gap_ns * _S_PER_NS, np.nan).astype(np.float32)
    step_news(fleet, rows, gap_s, in_flight(fleet, settings, rows))


def _hear(fleet: Fleet, settings: FleetSettings, rows: NDArray[np.intp], mark_ns: Longs) -> None:
    marked_ns = fleet.marked_at_ns[rows]
    first = marked_ns == 0
    gap_ns = mark_ns - marked_ns
    set_back = (gap_ns < 0) & ~first
    if set_back.any():
        # The device's clock was set back; what we knew of its error is void.
        back = rows[set_back]
        fleet.skew_before_ns[back] = _NO_SKEW
        fleet.skew_ns[back] = fleet.received_at_ns[back] - mark_ns[set_back]
    before_ns, off_ns = fleet.skew_before_ns[rows], fleet.received_at_ns[rows] - mark_ns
    astray = (fleet.skew_ns[rows] < np.minimum(-_JUMP_NS, before_ns - _JUMP_NS)) & (
        (off_ns >= before_ns - _JUMP_NS) & ~set_back
    )
    if astray.any():
        # One stamp ahead of its time, and the newest agrees with what we knew: forget that one.
        fleet.skew_ns[rows[astray]] = off_ns[astray]

    skew_ns = np.minimum(fleet.skew_ns[rows], fleet.skew_before_ns[rows])
    true_ns = np.minimum(mark_ns + skew_ns, fleet.received_at_ns[rows])
    fleet.heard_at_ns[rows] = np.maximum(fleet.heard_at_ns[rows], true_ns)
    fleet.marked_at_ns[rows] = mark_ns
    gap_s = np.where(first | set_back, np.nan, gap_ns * _S_PER_NS).astype(np.float32)
    known_s = fleet.cadence_s[rows]
    known_s = np.where(np.isnan(known_s), fleet.report_every_s[rows], known_s)
    fleet.cadence_s[rows] = _learned(known_s, gap_s, settings)


def _learned(known_s: Floats32, gap_s: Floats32, settings: FleetSettings) -> Floats32:
    """Return the cadence after one more gap; NaN while neither a gap nor a promise is known."""
    rise = np.float32(settings.cadence_rise)
    fall = np.float32(settings.cadence_fall)
    capped_s = np.minimum(gap_s, known_s * np.float32(settings.cadence_rise_most))
    off_s = capped_s - known_s
    moved_s = known_s + off_s * np.where(off_s > 0, rise, fall)
    learned_s = np.where(np.isnan(known_s), gap_s, np.where(np.isnan(gap_s), known_s, moved_s))
    return np.maximum(learned_s, np.float32(settings.cadence_s_min))


def _judge(fleet: Fleet, settings: FleetSettings, at: slice) -> None:
    heard_at_ns = fleet.heard_at_ns[at]
    silent_s = ((fleet.now_ns - heard_at_ns) * _S_PER_NS).astype(np.float32)
    cadence_s = _expected_s(fleet, settings, at)
    silences = (silent_s - np.float32(settings.slack_s)) / cadence_s
    freshness = np.full(len(silences), Freshness.LIVE, np.uint8)
    for bound in (settings.late_after, settings.stale_after, settings.lost_after):
        freshness += silences > np.float32(bound)
    freshness[heard_at_ns == 0] = Freshness.NEVER
    fleet.freshness[at] = freshness


def _expected_s(fleet: Fleet, settings: FleetSettings, at: slice) -> Floats32:
    """Return the time expected between reports: learned, else promised, else the prior. [s]"""
    cadence_s = fleet.cadence_s[at]
    unknown = np.isnan(cadence_s)
    if unknown.any():
        promised_s = fleet.report_every_s[at]
        prior_s = np.where(
            np.isnan(promised_s), np.float32(settings.cadence_prior_s), promised_s
        ).astype(np.float32)
        least_s = np.float32(settings.cadence_s_min)
        cadence_s = np.where(unknown, np.maximum(prior_s, least_s), cadence_s)
    return cadence_s
