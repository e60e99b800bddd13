"""Common outages: what counts as one, whom it is laid to, and what rate is learned."""

import numpy as np
import pytest

from kapelle.fleet.capacity.outages import (
    Heard,
    Outages,
    Record,
    Through,
    learn_outages,
    outage_odds,
)

FEEDERS = 8
NAMES = ("acme", "bolt", "core")


def heard(gone: dict[tuple[str, int, int], float] | None = None) -> Heard:
    """Return three vendors with 20 devices at each of 16 places, all heard but some."""
    places = [(name, region, feeder) for name in NAMES for region in (0, 1) for feeder in range(8)]
    return {place: (20.0, 20.0 * (1.0 - (gone or {}).get(place, 0.0))) for place in places}


def let(outages: Outages, told: Heard, ticks: int = 1, *, broken: bool = False) -> None:
    for _ in range(ticks):
        learn_outages(outages, told, 10.0, broken, FEEDERS)


def events(outages: Outages) -> dict[str, float]:
    return {name: round(r.events, 6) for name, r in outages.groups.items() if r.events > 0.5}


def working() -> Outages:
    outages = Outages()
    let(outages, heard(), broken=True)
    let(outages, heard(), 3)
    return outages


def test_an_outage_is_laid_to_the_largest_group_that_explains_it() -> None:
    places = list(heard())
    cases = {
        "vendor:bolt": [p for p in places if p[0] == "bolt"],
        "region:1": [p for p in places if p[1] == 1],
        "feeder:3": [p for p in places if p[1:] == (0, 3)],
    }
    for name, gone in cases.items():
        outages = working()
        let(outages, heard(dict.fromkeys(gone, 1.0)), 5)
        assert events(outages) == {name: pytest.approx(1.0)}


def test_an_outage_counts_once_and_again_only_after_it_was_over() -> None:
    outages, out = working(), heard({p: 1.0 for p in heard() if p[0] == "core"})
    half_back = heard({p: 0.4 for p in heard() if p[0] == "core"})
    let(outages, out, 20)
    let(outages, half_back, 5)
    let(outages, out, 20)
    assert outages.down("vendor:core")
    assert events(outages) == {"vendor:core": pytest.approx(1.0)}
    let(outages, heard(), 2)
    assert not outages.down("vendor:core")
    let(outages, out, 2)
    assert events(outages) == {"vendor:core": pytest.approx(2.0, abs=1e-3)}


def test_who_hears_nobody_has_failed_itself() -> None:
    outages = working()
    let(outages, heard(dict.fromkeys(heard(), 1.0)), 5)
    assert events(outages) == {}
    # After a pause they come back one after another: nobody was seen working and then not.
    let(outages, heard({p: 1.0 for p in heard() if p[0] != "acme"}), broken=True)
    let(outages, heard({p: 1.0 for p in heard() if p[0] == "bolt"}), 5)
    assert events(outages) == {}


def test_rates_are_learned_and_alike_groups_teach_each_other() -> None:
    """Thirty vendors with rates drawn from a Gamma: their odds over an hour come out right."""
    rng = np.random.default_rng(3)
    rates = rng.gamma(2.0, 0.01, 30)
    outages = Outages()
    for at, rate in enumerate(rates):
        hours = 24.0 * 60
        outages.groups[f"vendor:{at}"] = Record(float(rng.poisson(rate * hours)), hours, True)
    names = [f"vendor:{at}" for at in range(30)]
    odds = np.array(list(outage_odds(outages, names, 3600.0).values()))
    truth = 1.0 - np.exp(-rates)
    naive = np.array([r.events / r.exposure_h for r in outages.groups.values()])
    assert odds.mean() == pytest.approx(truth.mean(), rel=0.1)
    assert np.abs(odds - truth).mean() <= np.abs(naive - truth).mean()
    unseen = outage_odds(outages, ["vendor:new"], 3600.0)["vendor:new"]
    assert unseen == pytest.approx(truth.mean(), rel=0.3)


def test_longer_windows_fail_more_often_and_doubt_is_not_forgotten() -> None:
    fresh = outage_odds(Outages(), ["vendor:a"], 3600.0)["vendor:a"]
    assert 0.0005 < fresh < 0.005
    odds = [outage_odds(Outages(), ["vendor:a"], hours * 3600.0)["vendor:a"] for hours in (1, 4)]
    assert odds[0] < odds[1] < 4 * odds[0]


def through(share_heard: dict[int, float]) -> Through:
    """Return who is heard by provider: 160 devices of each vendor through each of two."""
    return {
        (name, net): (160.0, 160.0 * share_heard.get(net, 1.0)) for name in NAMES for net in (4, 9)
    }


def test_a_providers_outage_is_laid_to_it_and_to_no_region() -> None:
    """Half of all devices are silent, and nearly all of one region's."""
    outages = working()
    gone = heard({p: 0.9 if p[1] == 1 else 0.1 for p in heard()})
    learn_outages(outages, heard(), 10.0, False, FEEDERS, through({}))
    learn_outages(outages, gone, 10.0, False, FEEDERS, through({9: 0.0}))
    assert events(outages) == {"provider:9": pytest.approx(1.0)}
    learn_outages(outages, heard(), 10.0, False, FEEDERS, through({}))
    assert not outages.down("provider:9")


def test_a_provider_is_judged_without_vendors_that_are_out() -> None:
    outages = working()
    gone = heard({p: 1.0 for p in heard() if p[0] == "bolt"})
    learn_outages(outages, heard(), 10.0, False, FEEDERS, through({}))
    nets = {at: (160.0, 0.0 if at[0] == "bolt" else 100.0) for at in through({})}
    learn_outages(outages, gone, 10.0, False, FEEDERS, nets)
    assert events(outages) == {"vendor:bolt": pytest.approx(1.0)}
