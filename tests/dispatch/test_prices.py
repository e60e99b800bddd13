"""λ and prices against linear programs and against what proves a solution the best there is."""

from collections.abc import Sequence

import highspy
import numpy as np
import pytest

from kapelle.dispatch.caps.families import Family, sums
from kapelle.dispatch.caps.prices import Priced, solve
from kapelle.dispatch.caps.reach import reach_w
from kapelle.dispatch.caps.rows import Rows
from kapelle.model.ids import Floats

KNOTS = 5


def make_world(seed: int) -> tuple[Rows, list[Family]]:
    """Return a few cells in feeders, zones and vendors with caps; every other world is nested."""
    draw = np.random.default_rng(seed)
    count = int(draw.integers(1, 12))
    level, power_w = np.zeros((count, KNOTS)), np.zeros((count, KNOTS))
    for row in range(count):
        knots = int(draw.integers(2, KNOTS + 1))
        level[row, 1:knots] = np.sort(draw.uniform(0.05, 3.0, knots - 1))
        level[row, knots:] = level[row, knots - 1] + np.arange(1, KNOTS - knots + 1)
        rise_w = draw.uniform(0, 1000, knots - 1) * (draw.random(knots - 1) < 0.8)
        power_w[row, 1:knots] = np.cumsum(rise_w)
        power_w[row, knots:] = power_w[row, knots - 1]
    feeder, zone = draw.integers(-1, 4, count), draw.integers(-1, 3, count)
    if seed % 2:
        zone_of = draw.integers(-1, 3, 4)
        zone = np.where(feeder >= 0, zone_of[feeder], zone)
    families = []
    for of, groups in ((feeder, 4), (zone, 3), (draw.integers(-1, 3, count), 3)):
        full_w = np.array([power_w[of == group, -1].sum() for group in range(groups)])
        room_w = full_w * draw.choice([0.0, 0.05, 0.2, 0.5, 0.8, 1.2], groups)
        if draw.random() < 0.8:
            families.append(Family(of, room_w))
    return Rows(level, power_w, np.zeros(count, np.bool_)), families


def largest_w(rows: Rows, families: Sequence[Family]) -> float:
    """Return the largest total within the caps, by HiGHS. [W]"""
    count = len(rows.level)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = count, sum(len(each.room_w) for each in families)
    model.col_cost_ = -np.ones(count)
    model.col_lower_, model.col_upper_ = np.zeros(count), rows.power_w[:, -1]
    model.row_lower_ = np.full(model.num_row_, -np.inf)
    model.row_upper_ = np.concatenate([np.zeros(0), *(each.room_w for each in families)])
    starts, index = [0], []
    for row in range(count):
        begun = 0
        for family in families:
            if family.of[row] >= 0:
                index.append(begun + int(family.of[row]))
            begun += len(family.room_w)
        starts.append(len(index))
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.array(starts, np.int32)
    model.a_matrix_.index_ = np.array(index, np.int32)
    model.a_matrix_.value_ = np.ones(len(index))
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # its author left this one out
    solver.setOptionValue("output_flag", False)
    solver.passModel(model)
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return -float(solver.getInfo().objective_function_value)


def given_w(rows: Rows, families: Sequence[Family], found: Priced) -> Floats:
    """Return what each cell gives at λ less the prices of its groups, the slow way. [W]"""
    powers_w = []
    for row in range(len(rows.level)):
        level = found.level
        for family, price in zip(families, found.prices, strict=True):
            level -= price[family.of[row]] if family.of[row] >= 0 else 0.0
        powers_w.append(np.interp(max(level, 0.0), rows.level[row], rows.power_w[row]))
    return np.array(powers_w)


def check_is_best(rows: Rows, families: Sequence[Family], found: Priced, target_w: float) -> None:
    """Hold a solution against the conditions of Karush, Kuhn and Tucker, which for a convex problem
    only the best solution meets: a group pays only if it is at its cap."""
    row_w = given_w(rows, families, found)
    assert row_w == pytest.approx(found.row_w, abs=1e-6)
    assert row_w.sum() == pytest.approx(target_w, abs=1.0)
    for family, price in zip(families, found.prices, strict=True):
        group_w = sums(family, row_w)
        assert (group_w <= family.room_w * (1 + 1e-6) + 1e-6).all()
        assert (price >= 0.0).all()
        pays = price > 0.0
        assert group_w[pays] == pytest.approx(family.room_w[pays], abs=1.0)


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_a_target_is_met_within_every_cap_in_the_fairest_way(first: int) -> None:
    for seed in range(first, first + 100):
        rows, families = make_world(seed)
        most_w = largest_w(rows, families)
        for part in (1.0, 0.5, 0.1):
            target_w = part * most_w
            check_is_best(rows, families, solve(rows, families, target_w, 0.0), target_w)


def test_the_largest_total_is_that_of_the_linear_program() -> None:
    for seed in range(200):
        rows, families = make_world(seed)
        nobody = np.full(len(rows.level), -1)
        reached_w = reach_w(rows.power_w[:, -1], families, nobody)
        assert reached_w == pytest.approx(largest_w(rows, families), abs=1e-3)


def test_nothing_beyond_reach_breaks_a_cap() -> None:
    for seed in range(100):
        rows, families = make_world(seed)
        found = solve(rows, families, 1e9, 0.0)
        for family in families:
            group_w = sums(family, found.row_w)
            assert (group_w <= family.room_w * (1 + 1e-6) + 1e-6).all()


def test_where_the_last_solution_lay_does_not_change_the_next() -> None:
    for seed in range(100):
        rows, families = make_world(seed)
        target_w = 0.7 * largest_w(rows, families)
        before = solve(rows, families, 0.5 * target_w, 0.0)
        found = solve(rows, families, target_w, 0.0, near=before)
        check_is_best(rows, families, found, target_w)


def test_vendors_carry_at_most_their_share() -> None:
    # Of 10, 3 and 1 kW the first may carry half: as much as the two others together.
    head_w, vendor = np.array([10e3, 3e3, 1e3]), np.array([0, 1, 2])
    assert reach_w(head_w, [], vendor, 0.5) == pytest.approx(8e3)
    # Of two vendors nobody can carry a third at most.
    assert reach_w(head_w[:2], [], vendor[:2], 1 / 3) == pytest.approx(0.0, abs=1e-3)
