"""An order whose target changes is judged interval by interval, and as the worst of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kapelle.api.report_delivery import Said
from kapelle.api.report_intervals import intervals, of_all
from kapelle.api.report_judgement import judge
from kapelle.api.report_targets import committed_of, target_of
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S

LENGTH_S = 600


def record(delivered_w: list[float], amends: list[dict[str, object]] | None = None):
    """Return the record of an order for 1 kW, then -500 W, and what was published each second."""
    ends_ns = 2 * LENGTH_S * NS_PER_S
    profile = [
        {"starts_at_ns": 0, "target_w": 1_000.0, "committed_w": 1_000.0},
        {"starts_at_ns": LENGTH_S * NS_PER_S, "target_w": -500.0, "committed_w": -400.0},
    ]
    plan = {
        "status": OrderStatus.ACTIVE,
        "at_ns": 1,
        "committed_w": 1_000.0,
        "declined_w": 100.0,
        "profile": profile,
    }
    order = {"target_w": 1_000.0, "tolerance": 0.02, "profile": profile}
    found = SimpleNamespace(
        order=order, amends=amends or [], plans=[plan], starts_at_ns=0, ends_at_ns=ends_ns
    )
    at_ns = np.arange(2 * LENGTH_S, dtype=np.int64) * NS_PER_S
    values_w = np.repeat(delivered_w, LENGTH_S)
    told = Said(
        at_ns=at_ns,
        held_ns=np.full(len(at_ns), NS_PER_S, np.int64),
        delivered_w=values_w,
        low_w=values_w,
        high_w=values_w,
        share=np.ones(len(at_ns)),
        target_w=target_of(found).when(at_ns),  # type: ignore[arg-type]  # all it reads
        committed_w=committed_of(found).when(at_ns),  # type: ignore[arg-type]  # the same
    )
    return found, told


@pytest.mark.parametrize(
    ("delivered_w", "verdicts", "whole"),
    [
        ([1_000.0, -500.0], ["delivered", "delivered"], "delivered"),
        ([1_000.0, -400.0], ["delivered", "promise-kept"], "promise-kept"),
        ([900.0, -500.0], ["fell-short", "delivered"], "fell-short"),
        # The mean of both is right, and neither is.
        ([900.0, -400.0], ["fell-short", "promise-kept"], "fell-short"),
    ],
)
def test_each_interval_has_its_verdict_and_energy(
    delivered_w: list[float], verdicts: list[str], whole: str
) -> None:
    found, told = record(delivered_w)
    each = intervals(found, told, OrderStatus.COMPLETED)
    assert [interval.judged.verdict for interval in each] == verdicts
    assert of_all(judge(found, told, OrderStatus.COMPLETED), each).verdict == whole
    hours = LENGTH_S / 3600.0
    for interval, asked_w, given_w in zip(each, (1_000.0, -500.0), delivered_w, strict=True):
        assert interval.asked_mwh == round(asked_w * hours * 1e3)
        assert interval.published_mwh == round(given_w * hours * 1e3)


@pytest.mark.parametrize(("off_w", "verdict"), [(15.0, "delivered"), (25.0, "fell-short")])
def test_of_nothing_the_tolerance_is_that_of_the_largest_target(off_w: float, verdict: str) -> None:
    found, told = record([1_000.0, off_w])
    for step in found.order["profile"][1:]:
        step.update(target_w=0.0, committed_w=0.0)
    told = replace(told, target_w=target_of(found).when(told.at_ns))
    nothing = intervals(found, told, OrderStatus.COMPLETED)[1].judged
    assert nothing.verdict == verdict
    assert nothing.within_share == float(verdict == "delivered")


def test_an_amendment_ends_what_was_to_come() -> None:
    at_ns = LENGTH_S // 2 * NS_PER_S
    found, _ = record([1_000.0, 0.0], [{"at_ns": at_ns, "target_w": 700.0}])
    asked = target_of(found)
    assert asked.at_ns.tolist() == [0, at_ns]
    assert asked.value.tolist() == [1_000.0, 700.0]


def test_an_order_with_one_target_has_none() -> None:
    found, told = record([1_000.0, 1_000.0])
    found.order["profile"] = []
    assert intervals(found, told, OrderStatus.COMPLETED) == []
