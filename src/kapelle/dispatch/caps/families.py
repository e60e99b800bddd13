"""Disjoint groups of one kind, what they give together, and what is left when each is cut off."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kapelle.dispatch.caps.rows import Places
from kapelle.model.ids import Floats


class Family(NamedTuple):
    """Disjoint groups of one kind."""

    of: Places
    """Group of each row; -1 for none."""
    room_w: Floats
    """What the rows of each group may give together; >= 0. [W]"""


def sums(family: Family, row_w: Floats) -> Floats:
    """Return what each group gives. [W]"""
    mine = family.of >= 0
    return np.bincount(family.of[mine], row_w[mine], len(family.room_w)).astype(np.float64)


def cut_w(row_w: Floats, chain: Sequence[Family]) -> float:
    """Return what all give together, every group cut off at its cap. [W]"""
    if not chain:
        return float(row_w.sum())
    inner = chain[0]
    inner_w = np.minimum(sums(inner, row_w), inner.room_w)
    free = inner.of < 0
    if len(chain) == 1:
        return float(inner_w.sum()) + float(row_w[free].sum())
    outer = chain[1]
    # What is in no outer group counts where the inner one ends.
    total_w = float(inner_w[_parents(inner, outer) < 0].sum())
    total_w += float(np.minimum(outer_w(row_w, inner, outer), outer.room_w).sum())
    return total_w + float(row_w[free & (outer.of < 0)].sum())


def outer_w(row_w: Floats, inner: Family, outer: Family) -> Floats:
    """Return what each outer group gives, the inner ones in it cut off at their caps. [W]"""
    groups = len(outer.room_w)
    parent = _parents(inner, outer)
    within = parent >= 0
    inner_w = np.minimum(sums(inner, row_w), inner.room_w)
    alone = (inner.of < 0) & (outer.of >= 0)
    nested_w = np.bincount(parent[within], inner_w[within], groups)
    alone_w = np.bincount(outer.of[alone], row_w[alone], groups)
    return (nested_w + alone_w).astype(np.float64)


def is_nested(inner: Family, outer: Family) -> bool:
    """Tell whether each group lies in one of the other family, or all of it in none."""
    mine = inner.of >= 0
    parents = _parents(inner, outer)
    return bool((parents[inner.of[mine]] == outer.of[mine]).all())


def _parents(inner: Family, outer: Family) -> Places:
    """Return the group of `outer` in which each of `inner` lies; -1 for none."""
    parents = np.full(len(inner.room_w), -1, np.intp)
    mine = inner.of >= 0
    parents[inner.of[mine]] = outer.of[mine]
    return parents
