"""What envelopes of sites keep from a resource: dispatch names it where a target is missed."""

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division, trust
from kapelle.model.ids import Floats, Ints
from kapelle.model.signals import Rationing

_NAMED_MAX = 3
_NOTHING_W = 1e-6


def site_cuts(
    fleet: Fleet, rows: Ints, horizon_s: float, rationing: Rationing | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Return how much further the rows that count could go without their sites' envelopes.

    Towards export, then towards consumption, by site; "" stands for all but those that lose most.
    [W]
    """
    heads = division.site_heads(fleet, horizon_s, rationing)
    if heads is None:
        return {}, {}
    names = fleet.names["site"]
    up_w, down_w = np.zeros(len(names)), np.zeros(len(names))
    for start in range(0, len(rows), division.CHUNK):
        piece = rows[start : start + division.CHUNK]
        piece = piece[np.isfinite(heads.up_w[piece]) & trust.controllable(fleet, piece)]
        if not len(piece):
            continue
        part, site = division.free_shares(fleet, piece, horizon_s, rationing), fleet.site[piece]
        lost_up_w = np.maximum(part.up_w - heads.up_w[piece], 0.0)
        lost_down_w = np.maximum(part.down_w - heads.down_w[piece], 0.0)
        up_w += np.bincount(site, lost_up_w, len(names))
        down_w += np.bincount(site, lost_down_w, len(names))
    return _named(names, up_w), _named(names, down_w)


def _named(names: list[str], lost_w: Floats) -> dict[str, float]:
    most = np.argsort(-lost_w, kind="stable")
    most = most[lost_w[most] > _NOTHING_W]
    named = {names[code]: float(lost_w[code]) for code in most[:_NAMED_MAX].tolist()}
    others_w = float(lost_w[most[_NAMED_MAX:]].sum())
    return named | {"": others_w} if others_w else named
