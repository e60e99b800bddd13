"""What the devices say: who reports when, with which clock, number and error of measurement."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from kapelle.adapters.rank import rank
from kapelle.model.enums import DeviceMode, Metric
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints, Longs
from kapelle.sim.faults import Faults
from kapelle.sim.physics import Physics

_NOISE = 0.005
"""Standard deviation of a meter, as a share of the value (class 0.5)."""
_NOISE_W = 2.0
"""And the least it makes of nothing. [W]"""

_LATER_BOOT = 7
"""Devices that will fall back have started so often."""
COUNTERS = (1 << 40) - 1
"""The bits of an `order` in which boot and number of a simulated device fit."""


def marks(place: Ints, order: Longs) -> Longs:
    """Return a number for each report that no other report has: device, boot and number."""
    marked: Longs = place.astype(np.int64) << 40 | order & COUNTERS
    return marked


@dataclass(frozen=True, slots=True, eq=False)
class Reports:
    """What some devices say at one moment; a row per report, NaN where a device has no such
    value."""

    rows: Ints
    boot: Longs
    seq: Longs
    at_ns: Longs
    """By the device's own clock."""
    values: dict[Metric, Floats]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def order(self) -> Longs:
        """Return the rank among the device's reports, as every adapter makes it."""
        return rank(self.boot, self.seq, self.at_ns)

    def where(self, keep: Flags | Ints) -> "Reports":
        """Return some of the rows."""
        return Reports(
            self.rows[keep],
            self.boot[keep],
            self.seq[keep],
            self.at_ns[keep],
            {metric: value[keep] for metric, value in self.values.items()},
        )


class Telemetry:
    """The reporting side of every device: its phase, cadence, clock, counters and meter."""

    def __init__(
        self,
        period_s: Floats,
        rng: Generator,
        now_ns: int,
        *,
        skew_ns: Longs | None = None,
        frozen: Flags | None = None,
        faults: Faults | None = None,
    ) -> None:
        n = len(period_s)
        self._faults = faults
        self._rng = rng
        self._period_ns = (period_s * NS_PER_S).astype(np.int64)
        self._next_ns = now_ns + (rng.random(n) * self._period_ns).astype(np.int64)
        self._skew_ns = np.zeros(n, np.int64) if skew_ns is None else skew_ns
        self._frozen = np.zeros(n, np.bool_) if frozen is None else frozen
        self._stuck_w = np.full(n, np.nan)
        self.boot = np.ones(n, np.int64)
        self.seq = np.zeros(n, np.int64)
        self._register_wh = np.zeros((2, n))
        """What registers that began again had counted before. [Wh]"""
        self._reset_ns = np.iinfo(np.int64).max
        if faults is not None and (faults.resets.any() or faults.register_resets.any()):
            self._reset_ns = now_ns + round(faults.plan.reset_s * NS_PER_S)
            self.boot[faults.resets] = _LATER_BOOT

    def due(self, now_ns: int) -> Ints:
        """Return the devices whose next report is due, and set the one after it."""
        rows = np.flatnonzero(self._next_ns <= now_ns).astype(np.int32)
        missed = (now_ns - self._next_ns[rows]) // self._period_ns[rows]
        self._next_ns[rows] += (missed + 1) * self._period_ns[rows]
        return rows

    def read(self, rows: Ints, physics: Physics) -> Reports:
        """Measure: small errors, registers in whole Wh, and meters that repeat one value."""
        self.seq[rows] += 1
        true_w = physics.power_w[rows]
        error = self._rng.standard_normal(len(rows))
        power_w = np.round(true_w + error * (_NOISE * np.abs(true_w) + _NOISE_W), 1)
        frozen = self._frozen[rows]
        if frozen.any():
            stuck = rows[frozen]
            first = np.isnan(self._stuck_w[stuck])
            self._stuck_w[stuck[first]] = power_w[frozen][first]
            power_w[frozen] = self._stuck_w[stuck]
        values = {
            Metric.POWER_W: power_w,
            Metric.SOC: np.round(physics.soc[rows], 3),
            Metric.EXPORT_WH: np.floor(physics.export_wh[rows]),
            Metric.IMPORT_WH: np.floor(physics.import_wh[rows]),
            Metric.MAX_W: np.round(physics.max_w[rows], 1),
            Metric.MIN_W: np.round(physics.min_w[rows], 1),
        }
        if self._faults is not None:
            self._err(self._faults, rows, physics, values)
        at_ns = physics.now_ns + self._skew_ns[rows]
        return Reports(rows, self.boot[rows], self.seq[rows], at_ns, values)

    def _err(
        self, faults: Faults, rows: Ints, physics: Physics, values: dict[Metric, Floats]
    ) -> None:
        """Let meters, registers and people on site do what they should not."""
        power_w, plan = values[Metric.POWER_W], faults.plan
        power_w[faults.sign_turned[rows]] *= -1.0
        power_w[faults.in_kw[rows]] /= 1000.0
        local = faults.local(physics.now_ns)[rows]
        setpoint_w = np.where(local, np.nan, physics.setpoint_w[rows])
        mode = np.where(np.isnan(setpoint_w), DeviceMode.OWN, DeviceMode.COMMAND)
        values[Metric.SETPOINT_W] = setpoint_w
        values[Metric.MODE] = np.where(local, DeviceMode.LOCAL, mode).astype(np.float64)
        for place, metric in enumerate((Metric.EXPORT_WH, Metric.IMPORT_WH)):
            register_wh = values[metric] - self._register_wh[place, rows]
            if plan.register_rollover_wh > 0:
                register_wh %= plan.register_rollover_wh
            if plan.register_jitter_wh > 0:
                register_wh = np.floor(register_wh - faults.jitter_wh(len(rows)))
            values[metric] = np.maximum(register_wh, 0.0)

    def reset(self, faults: Faults, physics: Physics) -> None:
        """Let devices go back to the factory's state, and registers to 0, when it is time."""
        if physics.now_ns < self._reset_ns:
            return
        self._reset_ns = np.iinfo(np.int64).max
        self.boot[faults.resets], self.seq[faults.resets] = 1, 0
        for place, counted_wh in enumerate((physics.export_wh, physics.import_wh)):
            self._register_wh[place, faults.register_resets] = np.floor(
                counted_wh[faults.register_resets]
            )

    def restart(self, rows: Ints) -> None:
        """Let devices boot anew: their counters begin again under a higher boot number."""
        self.boot[rows] += 1
        self.seq[rows] = 0
