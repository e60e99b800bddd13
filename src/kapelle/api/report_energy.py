"""The energy of an order: asked, promised, published, corrected, and as the ledger has it."""

import numpy as np

from kapelle.api.report_delivery import Said, corrected_minutes
from kapelle.api.report_shapes import EnergyTold, QuarterTold
from kapelle.api.report_targets import (
    Steps,
    baseline_w,
    committed_of,
    mwh,
    others_of,
    target_of,
)
from kapelle.api.times import to_datetime
from kapelle.history.evidence import Evidence
from kapelle.history.tables import MINUTE_NS, QUARTER_NS
from kapelle.model.ids import NS_PER_S


def energy(found: Evidence, told: Said) -> EnergyTold:
    """Add up the energy of the window: asked, promised, published, corrected and in the ledger."""
    target, window = target_of(found), (found.starts_at_ns, found.ends_at_ns)
    sure = ~np.isnan(told.delivered_w)
    held_s = told.held_ns[sure] / NS_PER_S
    minutes_ns, minutes_w = corrected_minutes(found)
    is_told = ~np.isnan(minutes_w)
    minutes_ns, minutes_w = minutes_ns[is_told], minutes_w[is_told]
    quarters = _quarters(found, target)
    sums = [quarter.delivered_mwh for quarter in quarters]
    whole = [each for each in sums if each is not None]
    return EnergyTold(
        asked_mwh=target.mwh(*window),
        promised_mwh=committed_of(found).mwh(*window),
        published_mwh=mwh(float((told.delivered_w[sure] * held_s).sum())) if sure.any() else None,
        published_s=float(held_s.sum()),
        published_asked_mwh=mwh(float((told.target_w[sure] * held_s).sum())),
        corrected_mwh=mwh(float(minutes_w.sum()) * 60.0) if len(minutes_w) else None,
        corrected_s=len(minutes_w) * 60.0,
        corrected_asked_mwh=sum(target.mwh(ns, ns + MINUTE_NS) for ns in minutes_ns.tolist()),
        quarters=quarters,
        ledger_mwh=sum(whole) if sums and len(whole) == len(sums) else None,
        ledger_asked_mwh=sum(quarter.asked_mwh for quarter in quarters),
    )


def _quarters(found: Evidence, target: Steps) -> list[QuarterTold]:
    if found.energy is None:
        return []
    rows = {(row["starts_at_ns"], row["register"]): row for row in found.energy.to_pylist()}
    base_w = baseline_w(found)
    if np.isnan(base_w):
        return []
    base_mwh, others = mwh(base_w * QUARTER_NS / NS_PER_S), others_of(found)
    told = []
    for starts_ns in sorted({starts_ns for starts_ns, _ in rows}):
        out, into = (rows.get((starts_ns, register), {}) for register in (0, 1))
        given, taken = out.get("mwh"), into.get("mwh")
        is_known = given is not None and taken is not None
        net = given - taken if is_known else None
        others_mwh = others.mwh(starts_ns, starts_ns + QUARTER_NS)
        told.append(
            QuarterTold(
                starts_at=to_datetime(starts_ns),
                net_mwh=net,
                baseline_mwh=base_mwh,
                others_mwh=others_mwh,
                delivered_mwh=None if net is None else net - base_mwh - others_mwh,
                asked_mwh=target.mwh(starts_ns, starts_ns + QUARTER_NS),
                devices=max(row.get("devices", 0) for row in (out, into)),
                known=min(row.get("known", 0) for row in (out, into)),
            )
        )
    return told
