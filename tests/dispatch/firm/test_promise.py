"""A promise is what devices drawn one by one, with all that fails together, keep that often."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.dispatch.firm.capacity import answer
from kapelle.dispatch.firm.mixture import ENUMERATED, alone, mix, normal
from kapelle.dispatch.firm.portfolio import Portfolio, Response, grouped, vendor_of
from kapelle.fleet.capacity.recalibration import LEVELS
from kapelle.model.ids import Floats

RISKS = tuple(1.0 - level for level in LEVELS)


@dataclass(frozen=True, slots=True)
class Maker:
    """A vendor's devices: headrooms by place, the part that follows, and how far it wanders."""

    heads_w: Mapping[int, Sequence[float]]
    share: float = 0.93
    share_std: float = 0.03
    odds: float = 0.02


def portfolio(makers: Sequence[Maker], places: Mapping[int, float] | None = None) -> Portfolio:
    """Return the portfolio of some makers; `places` fail as a whole with these odds."""
    count = 1 + max(at for maker in makers for at in maker.heads_w)
    vendors, within, odds = [], {}, {}
    spread = np.zeros((len(makers), count))
    for row, maker in enumerate(makers):
        every = np.concatenate([np.asarray(h, np.float64) for h in maker.heads_w.values()])
        kind = Response(float(every.sum()), float((every**2).sum()), maker.share, maker.share_std)
        vendors.append(vendor_of(f"v{row}", [kind]))
        for at, heads_w in maker.heads_w.items():
            spread[row, at] = sum(heads_w) / every.sum()
        within[f"vendor:v{row}"] = np.zeros((len(makers), count), np.bool_)
        within[f"vendor:v{row}"][row] = True
        odds[f"vendor:v{row}"] = maker.odds
    for at, chance in (places or {}).items():
        within[f"region:{at}"] = np.zeros((len(makers), count), np.bool_)
        within[f"region:{at}"][:, at] = True
        odds[f"region:{at}"] = chance
    bare = Portfolio(vendors, spread, ())
    return Portfolio(vendors, spread, grouped(within, odds, bare.mean_w))


def drawn_w(makers: Sequence[Maker], places: Mapping[int, float], draws: int, seed: int) -> Floats:
    """Draw device by device: the cloud, the place, the day, and the coin of each."""
    rng = np.random.default_rng(seed)
    total_w = np.zeros(draws)
    is_up = {at: rng.random(draws) >= odds for at, odds in places.items()}
    for maker in makers:
        cloud = rng.random(draws) >= maker.odds
        weight = maker.share * (1.0 - maker.share) / maker.share_std**2 - 1.0
        day = rng.beta(maker.share * weight, (1.0 - maker.share) * weight, draws)
        for at, heads_w in maker.heads_w.items():
            there = cloud & is_up.get(at, np.ones(draws, np.bool_))
            for head_w in heads_w:
                total_w += head_w * (there & (rng.random(draws) < day))
    return total_w


def some_makers(seed: int) -> list[Maker]:
    rng = np.random.default_rng(seed)
    makers = []
    for share in (0.38, 0.27, 0.2, 0.15):
        heads_w = rng.lognormal(8.0, 0.5, int(400 * share))
        at = rng.integers(0, 8, len(heads_w))
        makers.append(
            Maker(
                {place: heads_w[at == place].tolist() for place in range(8)},
                share=float(rng.uniform(0.85, 0.97)),
                share_std=float(rng.uniform(0.01, 0.05)),
                odds=float(rng.uniform(0.005, 0.04)),
            )
        )
    return makers


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_promise_is_kept_as_often_as_it_says(seed: int) -> None:
    makers = some_makers(seed)
    places = dict.fromkeys(range(8), 0.004)
    found_w = drawn_w(makers, places, 20_000, seed)
    promised = answer(portfolio(makers, places))
    for risk, promise_w in zip(RISKS, promised.promise_w, strict=True):
        short = float((found_w < promise_w).mean())
        # Three standard errors of the draw, and what a distribution by three moments is off.
        assert short == pytest.approx(
            risk, abs=3 * np.sqrt(risk * (1 - risk) / 20_000) + 0.1 * risk
        )


def test_groups_that_are_not_enumerated_count_as_well() -> None:
    rng = np.random.default_rng(5)
    makers = [Maker({at: rng.lognormal(8, 0.3, 12).tolist() for at in range(30)}, odds=0.01)]
    places = dict.fromkeys(range(30), 0.03)
    assert len(portfolio(makers, places).groups) > ENUMERATED
    found_w = drawn_w(makers, places, 20_000, 5)
    promise_w = mix(portfolio(makers, places)).promise_w(0.05)
    assert (found_w < promise_w).mean() == pytest.approx(0.05, abs=0.01)


def test_a_part_of_every_place_is_lost_like_places_of_its_own() -> None:
    """Of a provider only the share of each vendor is known: the same as if it were told where."""
    vendors = [vendor_of(f"v{n}", [Response(3e5, 1e9, 0.9, 0.04)]) for n in range(3)]
    odds = {"provider:1": 0.03, "vendor:v0": 0.02}
    row = np.array([[True], [False], [False]])
    share = np.array([[0.4], [0.25], [0.0]])
    whole = Portfolio(vendors, np.ones((3, 1)), ())
    parted = Portfolio(vendors, np.hstack([share, 1.0 - share]), ())
    there = np.hstack([share > 0.0, np.zeros((3, 1), np.bool_)])
    for risk in RISKS:
        told = [
            mix(Portfolio(p.vendors, p.spread, grouped(within, odds, p.mean_w))).promise_w(risk)
            for p, within in (
                (whole, {"provider:1": share, "vendor:v0": row}),
                (parted, {"provider:1": there, "vendor:v0": np.hstack([row, row])}),
            )
        ]
        assert told[0] == pytest.approx(told[1], rel=1e-6)


def test_bad_days_of_those_who_wander_are_worse_than_a_bell_says() -> None:
    maker = Maker({0: [1000.0] * 300}, share=0.9, share_std=0.08, odds=0.0)
    found_w = drawn_w([maker], {}, 40_000, 6)
    mixture = mix(portfolio([maker]))
    for risk in (0.01, 0.05, 0.1):
        short = float((found_w < mixture.promise_w(risk)).mean())
        assert short == pytest.approx(risk, abs=0.2 * risk)
    bell_w = float(mixture.mean_w[0] - 2.326348 * mixture.std_w[0])
    assert mixture.promise_w(0.01) < 0.95 * bell_w


def test_devices_alone_promise_more_than_common_causes_allow() -> None:
    makers = some_makers(4)
    told = answer(portfolio(makers, dict.fromkeys(range(8), 0.01)))
    found_w = drawn_w(makers, dict.fromkeys(range(8), 0.01), 5_000, 4)
    p95 = LEVELS.index(0.95)
    assert told.alone_w[p95] > 1.06 * told.promise_w[p95]
    assert (found_w < told.alone_w[p95]).mean() > 0.1


def test_who_is_all_of_it_and_fails_more_often_than_the_risk_can_promise_nothing() -> None:
    only = Maker({0: [1000.0] * 200}, odds=0.06)
    told = answer(portfolio([only]))
    p90, p95 = LEVELS.index(0.9), LEVELS.index(0.95)
    assert told.promise_w[p95] == 0.0
    assert told.promise_w[p90] > 0.0
    assert told.worst is not None
    assert told.worst.vendor == "v0"
    assert list(told.worst.left_w) == [0.0] * len(LEVELS)


makers_ = st.lists(
    st.builds(
        Maker,
        heads_w=st.dictionaries(
            st.integers(0, 3), st.lists(st.floats(500, 5000), min_size=3, max_size=20), min_size=1
        ),
        share=st.floats(0.5, 0.99),
        share_std=st.floats(0.0, 0.1),
        odds=st.floats(0.0, 0.1),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=50, deadline=None)
@given(makers_)
def test_who_wants_to_be_surer_promises_less(makers: list[Maker]) -> None:
    told = answer(portfolio(makers, {0: 0.01}))
    assert sorted(told.promise_w, reverse=True) == list(told.promise_w)
    assert all(0.0 <= each <= told.headroom_w for each in told.promise_w)
    assert told.worst is not None
    for left_w, promise_w in zip(told.worst.left_w, told.promise_w, strict=True):
        assert left_w <= promise_w * (1 + 1e-6) + 1e-6


@settings(max_examples=50, deadline=None)
@given(makers_, st.floats(1e-3, 1e3))
def test_twice_the_power_twice_the_promise(makers: list[Maker], factor: float) -> None:
    scaled = [
        Maker(
            {at: [w * factor for w in heads] for at, heads in m.heads_w.items()},
            m.share,
            m.share_std,
            m.odds,
        )
        for m in makers
    ]
    small, large = mix(portfolio(makers)), mix(portfolio(scaled))
    for risk in RISKS:
        # Every bisection ends within a billionth of all there is.
        slack_w = 1e-8 * large.most_w
        assert large.promise_w(risk) == pytest.approx(small.promise_w(risk) * factor, abs=slack_w)


@settings(max_examples=50, deadline=None)
@given(makers_, st.lists(st.floats(500, 5000), min_size=1, max_size=20), st.floats(0.7, 0.99))
def test_more_devices_never_lower_the_promise(
    makers: list[Maker], more_w: list[float], share: float
) -> None:
    """A further vendor, to be there or not: whatever it adds, nothing is lost with it."""
    added = [*makers, Maker({0: more_w}, share=share, share_std=0.02, odds=0.03)]
    before, after = mix(portfolio(makers)), mix(portfolio(added))
    for risk in RISKS:
        # Three moments are no distribution: small fleets are off by part of one device.
        slack_w = 0.25 * max(max(heads) for m in makers for heads in m.heads_w.values())
        assert after.promise_w(risk) >= before.promise_w(risk) - slack_w


def test_nobody_promises_nothing() -> None:
    told = answer(Portfolio([], np.zeros((0, 64)), ()))
    assert list(told.promise_w) == [0.0] * len(LEVELS)
    assert told.worst is None


def test_the_normal_distribution_is_that() -> None:
    z = np.array([-1.959964, -1.0, 0.0, 1.644854, 5.0])
    expected = [0.025, 0.1586553, 0.5, 0.95, 0.9999997]
    assert normal(z) == pytest.approx(expected, abs=2e-7)


def test_certain_devices_are_promised_whole() -> None:
    sure = Maker({0: [1000.0] * 10}, share=1.0, share_std=0.0, odds=0.0)
    assert mix(portfolio([sure])).promise_w(0.01) == pytest.approx(10_000.0)
    assert alone(portfolio([sure])).promise_w(0.01) == pytest.approx(10_000.0)
