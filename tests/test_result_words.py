"""What a simulated run came to is told in units, and nothing of it as a field of a structure."""

from kapelle.cli.result_words import facts
from kapelle.sim.result import (
    AggregateResult,
    IntervalResult,
    OrderResult,
    RedispatchResult,
    Result,
)

ORDER = OrderResult(
    committed_w=4.68e6, delivered_mean=0.9968, worst_5min=0.9958, settle_5pct_s=9.0,
    settle_2pct_s=None, recover_2pct_s=[0.0, 14.5], overshoot_pct=0.887, shortfall_notice_s=5.5,
    recover_5pct_s=[0.0, 0.0], target_w=5e6, declined_w=3.2e5, baseline_w=-106_938.0,
    true_baseline_w=-96_377.0, starts_s=60.0, ends_s=840.0, worst_pct=1.866,
    intervals=[
        IntervalResult(
            starts_s=60.0, ends_s=840.0, target_w=-5e6, committed_w=-4.68e6, delivered_mean=0.99
        )
    ],
)  # fmt: skip
NOTHING = OrderResult(
    committed_w=0.0, delivered_mean=None, worst_5min=None, settle_5pct_s=None, settle_2pct_s=None,
    recover_2pct_s=[], overshoot_pct=None, shortfall_notice_s=None, recover_5pct_s=[],
    target_w=1e3, declined_w=1e3, baseline_w=float("nan"), true_baseline_w=-0.2, starts_s=0.0,
    ends_s=1.0,
)  # fmt: skip
RESULT = Result(
    seed=7, virtual_s=900.0, wall_s=60.0, orders=[ORDER, NOTHING],
    aggregate=AggregateResult(
        error_p50_pct=0.0764, error_p95_pct=0.498, interval_coverage=0.976, published=1884,
        interval_mean_pct=0.447,
    ),
    firm={"p50_w": 6.84e6}, commands={"completed": 33_191}, double_effects=0, stranded=1,
    readings={"lost_after_accept": 0}, state_hash="", devices={}, notices=[], restarts=0,
    problems=[], redispatch=RedispatchResult(devices=514, p50_s=0.86, p95_s=6.02),
    commands_per_device_hour=107.7,
)  # fmt: skip


def test_a_run_is_told_in_words() -> None:
    told = [f"{name}: {text}" for name, text in facts(RESULT)]
    for said in (
        "order 1: 4.68 MW of 5.00 MW promised from −106.9 kW (in truth −96.4 kW)",
        "delivered 99.7 % of it, in the worst five minutes 99.6 %; 0.9 % too much at most, 1.9 %",
        "within ±5 % after 9.0 s, ±2 % after never",
        "out of ±5 % for 0.0 s, 0.0 s, of ±2 % for 0.0 s, 14.5 s",
        "interval 1: 99.0 % of −4.68 MW",
        "order 2: 0 W of 1.0 kW promised from – (in truth 0 W)",
        "estimate: 0.08 % of nameplate off in the median, 0.50 % in 95 of 100; its 95 % interval",
        "of 1,884 truths",
        "replaced: 514 lost devices, half within 0.9 s, 95 % within 6.0 s",
        "commands: completed 33,191; 107.7 per device and hour",
        "firm: P50 6.84 MW",
        "1 device left with a setpoint",
    ):
        assert any(said in line for line in told), (said, told)
    assert not any("_" in line for line in told)
