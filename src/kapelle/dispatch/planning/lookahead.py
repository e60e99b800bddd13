"""A plan of power by group of devices and interval, so that no interval falls short for another.

A linear program in HiGHS. What it finds has yet to be checked: `physics` knows nothing of it.
"""

from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray

from kapelle.dispatch.planning.groups import Groups, Window
from kapelle.fleet.curve import rations
from kapelle.model.ids import Floats

DEADLINE_S = 0.5
"""A solver that takes longer in all has failed: dispatch waits for it. [s]"""
STEPS_MAX = 50_000
"""So has one that takes more steps, on however fast a machine."""
_PLENTY = 0.3
"""With so much more than is wanted, each group may do all that harms no later interval …"""
_CHOICE = 0.05
"""… and with nothing to spare, of what is beyond its part in the plan so much."""
_LEEWAY = 1.1
"""Stores last for less with every second, and who lasts for less gets less: until the next plan the
sum would sink by a few percent. So each may do a little more than its part."""
_SLACK = 1e-5
"""What one goal may lose to the next, as a part of everything wanted."""


@dataclass(frozen=True, slots=True, eq=False)
class Ahead:
    """What each group is to do, and what it may do."""

    power_w: Floats
    """Shape (intervals, groups); positive in the direction of its interval. [W]"""
    short_w: Floats
    """What is missing in each interval, >= 0. [W]"""
    most: Floats
    """The largest part of its power each group may move in the first interval, shape (groups,): its
    part in the plan, and more where energy is plenty. 0-1"""


@dataclass(frozen=True, slots=True)
class Unplanned:
    """There is no plan, and why."""

    reason: str


class _Program:
    """Columns: power of each group in each interval, what each is short of, the worst of that.

    Rows: the sum of each interval, its part in the worst, all that is missing, and the energy of
    each group at the end of each run of intervals in one direction.
    """

    def __init__(self, groups: Groups, window: Window) -> None:
        self.intervals, self.groups = len(window.want_w), len(groups)
        self._cells = self.intervals * self.groups
        self._missing = 2 * self.intervals
        self._worst = self._cells + self.intervals
        # A solver's tolerances are absolute: it is told parts of the largest target, and of the
        # mean interval.
        self.base_w = float(np.abs(window.want_w).max()) or 1.0
        self.base_h = float(window.length_h.mean())
        self.spare = 0.0
        """How much more than everything wanted there is, as a part of it; up to `_PLENTY`."""
        self.size = np.abs(window.want_w) / self.base_w
        self.length = window.length_h / self.base_h
        down = (window.want_w < 0).astype(np.intp)
        power = groups.power_w[:, down].T / self.base_w
        power[window.want_w == 0] = 0.0
        model = highspy.HighsLp()
        model.num_col_ = self._worst + 1
        # To see how much more than is wanted would be possible, more is allowed at first.
        more = -_PLENTY * self.size
        model.col_lower_ = np.concatenate([np.zeros(self._cells), more, [-_PLENTY]])
        model.col_upper_ = np.concatenate([power.ravel(), self.size, [1.0]])
        model.col_cost_ = np.zeros(model.num_col_)
        rows, columns, values, lower, upper = self._entries(groups, down)
        model.num_row_ = len(lower)
        model.row_lower_, model.row_upper_ = lower, upper
        order = np.lexsort((columns, rows))
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        counts = np.bincount(rows, minlength=len(lower))
        model.a_matrix_.start_ = np.append(0, np.cumsum(counts)).astype(np.int32)
        model.a_matrix_.index_ = columns[order].astype(np.int32)
        model.a_matrix_.value_ = values[order]
        self.solver = highspy.Highs()  # type: ignore[no-untyped-call]  # its author left this one out
        self.solver.setOptionValue("output_flag", False)
        self.solver.setOptionValue("threads", 1)
        self.solver.setOptionValue("presolve", "off")
        self.solver.setOptionValue("time_limit", DEADLINE_S)
        self.solver.setOptionValue("simplex_iteration_limit", STEPS_MAX)
        self.solver.passModel(model)

    def _entries(
        self, groups: Groups, down: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, Floats, Floats]:
        n, g = self.intervals, self.groups
        each = np.arange(n)
        cell = np.arange(self._cells)
        short = self._cells + each
        parts = [
            (cell // g, cell, np.ones(self._cells)),
            (each, short, np.ones(n)),
            (n + each, short, np.ones(n)),
            (n + each, np.full(n, self._worst), -self.size),
            (np.full(n, self._missing), short, self.length),
        ]
        lower = [*self.size, *np.full(n, -np.inf), -np.inf]
        upper = [*self.size, *np.zeros(n), np.inf]
        ends = [*(np.flatnonzero(np.diff(down)) + 1), n]
        energy = groups.energy_wh / (self.base_w * self.base_h)
        for group in np.flatnonzero(np.isfinite(energy).all(axis=1)):
            for end in ends:
                given = np.where(down[:end], -self.length[:end], self.length[:end])
                parts.append((np.full(end, len(lower)), each[:end] * g + group, given))
                lower.append(-energy[group, 1])
                upper.append(energy[group, 0])
        rows, columns, values = (np.concatenate(found) for found in zip(*parts, strict=True))
        return rows, columns, values, np.array(lower), np.array(upper)

    def least(self, columns: NDArray[np.intp], costs: Floats) -> str:
        """Solve for the least cost of some columns; say what went wrong, if anything."""
        every = np.zeros(self._worst + 1)
        every[columns] = costs
        places = np.arange(len(every), dtype=np.int32)
        self.solver.changeColsCost(len(every), places, every)
        self.solver.run()
        status = self.solver.getModelStatus()
        if status == highspy.HighsModelStatus.kOptimal:
            return ""
        return f"the solver ended with {self.solver.modelStatusToString(status)!r}"

    @property
    def values(self) -> Floats:
        """Return what was found."""
        return np.array(self.solver.getSolution().col_value)

    def least_worst(self) -> str:
        """Make the largest part any interval falls short by as small as can be, and keep it so."""
        problem = self.least(np.array([self._worst]), np.ones(1))
        if not problem:
            self.spare = max(-float(self.values[self._worst]), 0.0)
            # Once more without giving more than is wanted: that makes room to take later.
            short = self._cells + np.arange(self.intervals, dtype=np.int32)
            nothing = np.zeros(self.intervals)
            self.solver.changeColsBounds(self.intervals, short, nothing, self.size)
            self.solver.changeColBounds(self._worst, 0.0, 1.0)
            problem = self.least(np.array([self._worst]), np.ones(1))
        if not problem:
            worst = float(self.values[self._worst])
            self.solver.changeColBounds(self._worst, 0.0, max(worst, 0.0) + _SLACK)
        return problem

    def least_missing(self) -> str:
        """Make the energy that is missing as small as can be, and keep it so."""
        short = self._cells + np.arange(self.intervals)
        problem = self.least(short, self.length)
        if not problem:
            missing = float(self.values[short] @ self.length) + _SLACK
            self.solver.changeRowBounds(self._missing, -np.inf, missing)
        return problem

    def longest_first(self, groups: Groups, down: bool) -> str:
        """Let those who last longest do most, and the others so late as possible.

        Who lasts longest gives first: for stores that only give no other order serves more of
        whatever may come (Evans, Tindemans, Angeli, "Flexibility in aggregated storage", 2020).
        """
        cost = np.zeros((self.intervals, self.groups))
        knot = groups.knot[:, int(down)].astype(np.float64)
        early = 1.0 - 0.5 * np.arange(self.intervals) / self.intervals
        cost += early[:, None] * (1.0 + rations.KNOTS - knot) * self.length[:, None]
        cost[:, ~np.isfinite(groups.energy_wh).any(axis=1)] = 0.0
        return self.least(np.arange(self._cells), cost.ravel() / rations.KNOTS)


def look_ahead(groups: Groups, window: Window) -> Ahead | Unplanned:
    """Plan the intervals of a window.

    First the largest part by which an interval falls short is made as small as can be, so that the
    last is served as well as the first; then the energy that is missing altogether; then those who
    last longest go first. At last each group is asked how much it could do now without harm to any
    of that. The more there is to spare, the more of it is left open, so that whoever divides the
    present target has a choice; where energy just suffices only the plan itself is.
    """
    powers_w = np.concatenate([window.want_w, groups.power_w.ravel()])
    if not np.isfinite(powers_w).all() or np.isnan(groups.energy_wh).any():
        return Unplanned("what is wanted, or what there is, is not a number")
    program = _Program(groups, window)
    down = bool(window.want_w[0] < 0)
    for goal in (
        program.least_worst,
        program.least_missing,
        lambda: program.longest_first(groups, down),
    ):
        if problem := goal():
            return Unplanned(problem)
    found = program.values
    cells = program.intervals * program.groups
    power_w = found[:cells].reshape(program.intervals, program.groups) * program.base_w
    short_w = found[cells : cells + program.intervals] * program.base_w
    most = _most(program, groups, power_w[0], down)
    return most if isinstance(most, Unplanned) else Ahead(power_w, short_w, most)


def _most(program: _Program, groups: Groups, now_w: Floats, down: bool) -> Floats | Unplanned:
    able_w = groups.power_w[:, int(down)]
    most = np.ones(len(groups))
    choice = max(program.spare / _PLENTY, _CHOICE)
    for group in range(len(groups)):
        if able_w[group] <= 0.0 or not np.isfinite(groups.energy_wh[group]).all():
            continue
        if problem := program.least(np.array([group]), np.array([-1.0])):
            return Unplanned(problem)
        more_w = max(float(program.values[group]) * program.base_w - float(now_w[group]), 0.0)
        most[group] = _LEEWAY * (float(now_w[group]) + choice * more_w) / able_w[group]
    return np.clip(most, 0.0, 1.0)


def by_knot(groups: Groups, most: Floats, down: bool) -> tuple[float, ...]:
    """Return the largest part at each knot of duration, as devices look it up between two.

    Who lasts until the end is not rationed. Knots between groups get what lies between; those below
    the first what that has.
    """
    able_w, allowed_w = np.zeros(rations.KNOTS), np.zeros(rations.KNOTS)
    limited = np.isfinite(groups.energy_wh).all(axis=1)
    knot = groups.knot[limited, int(down)]
    power_w = groups.power_w[limited, int(down)]
    np.add.at(able_w, knot, power_w)
    np.add.at(allowed_w, knot, power_w * most[limited])
    able_w[groups.free_from :] = allowed_w[groups.free_from :] = 1.0
    known = np.flatnonzero(able_w > 0)
    if not len(known):
        return ()
    table = np.interp(rations.KNOTS_S, rations.KNOTS_S[known], allowed_w[known] / able_w[known])
    return tuple(np.round(table, 4).tolist())
