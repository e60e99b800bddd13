"""The most that cells can give together while every group keeps its cap: a linear program.

Where groups are nested in each other it is only cut off sums; where vendors cross feeders, or are
limited to a part of what it comes to, a solver finds it.
"""

from collections.abc import Sequence

import highspy
import numpy as np
from numpy.typing import NDArray

from kapelle.dispatch.caps.families import Family, cut_w, is_nested
from kapelle.dispatch.caps.rows import Places
from kapelle.model.ids import Floats

DEADLINE_S = 2.0
"""Without an answer by then, what is certain is told: no less can be reached. [s]"""
_SURE = 1.0 - 1e-9
"""What a solver calls feasible is so within this part of it."""


def reach_w(
    head_w: Floats, families: Sequence[Family], vendor: Places, vendor_share: float = 1.0
) -> float:
    """Return the largest sum of what the cells give. [W]

    Args:
        head_w: The most each cell gives, >= 0. [W]
        families: Groups with caps.
        vendor: Of each cell; -1 for none.
        vendor_share: The part of the sum that each vendor may carry, 0-1.
    """
    if not len(head_w):
        return 0.0
    shares = vendor_share < 1.0 and bool((vendor >= 0).any())
    if not shares and (
        len(families) < 2 or (len(families) == 2 and is_nested(families[0], families[1]))
    ):
        return cut_w(head_w, families)
    return _solved_w(head_w, families, vendor if shares else np.full(len(head_w), -1), vendor_share)


def _solved_w(
    head_w: Floats, families: Sequence[Family], vendor: Places, vendor_share: float
) -> float:
    count = len(head_w)
    # Tolerances are absolute: the solver is told parts of the sum.
    base_w = max(float(head_w.sum()), 1.0)
    rows: list[NDArray[np.intp]] = []
    columns: list[NDArray[np.intp]] = []
    values: list[Floats] = []
    upper: list[Floats] = []
    begun = 0
    for family in families:
        mine = np.flatnonzero(family.of >= 0)
        rows.append(family.of[mine] + begun)
        columns.append(mine)
        values.append(np.ones(len(mine)))
        upper.append(family.room_w / base_w)
        begun += len(family.room_w)
    for each in np.unique(vendor[vendor >= 0]).tolist():
        # What it gives, less its share of what all give, is not above 0.
        rows.append(np.full(count, begun))
        columns.append(np.arange(count))
        values.append((vendor == each) - vendor_share)
        upper.append(np.zeros(1))
        begun += 1
    row, column, value = np.concatenate(rows), np.concatenate(columns), np.concatenate(values)
    order = np.lexsort((column, row))
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = count, begun
    model.col_cost_ = -np.ones(count)
    model.col_lower_, model.col_upper_ = np.zeros(count), head_w / base_w
    model.row_lower_ = np.full(begun, -np.inf)
    model.row_upper_ = np.concatenate(upper)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.append(0, np.cumsum(np.bincount(row, minlength=begun))).astype(
        np.int32
    )
    model.a_matrix_.index_ = column[order].astype(np.int32)
    model.a_matrix_.value_ = value[order]
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # its author left this one out
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("time_limit", DEADLINE_S)
    solver.passModel(model)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return 0.0
    given_w = np.array(solver.getSolution().col_value) * base_w
    return float(given_w.sum()) * _SURE
