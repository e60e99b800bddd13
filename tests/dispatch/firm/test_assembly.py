"""From what partitions tell to a promise: many vendors, none, and what was learned since."""

import msgspec
import numpy as np
import pytest

from kapelle.dispatch.firm import assembly
from kapelle.dispatch.firm.assembly import portfolio_of
from kapelle.dispatch.firm.capacity import FirmCapacity, answer
from kapelle.dispatch.firm.portfolio import Response, merged, vendor_of
from kapelle.fleet.capacity.learned import Firmness, Rooms
from kapelle.fleet.capacity.outages import Record
from kapelle.fleet.capacity.recalibration import LEVELS
from kapelle.fleet.capacity.responses import Cell
from kapelle.model.ids import ALL
from kapelle.model.summaries import Room

P95 = LEVELS.index(0.95)


def rooms_of(vendors: dict[str, float]) -> Rooms:
    """Return rooms in which each vendor has so much headroom, in 100 devices at two places."""
    cells, places = {}, {}
    for name, head_w in vendors.items():
        way = [head_w, head_w, 0.0, head_w**2 / 100.0]
        cells[f"0/{name}"] = [100.0, *way, *way]
        places[name] = {3: [head_w / 2, head_w / 2], 40: [head_w / 2, head_w / 2]}
    return {0: {ALL: {3600.0: Room(3600.0, cells, places)}}}


def failing(names: list[str], events: float = 40.0) -> Firmness:
    firmness = Firmness()
    for name in names:
        firmness.outages.groups[f"vendor:{name}"] = Record(events, 1_000.0, True)
    return firmness


def told(rooms: Rooms, firmness: Firmness) -> FirmCapacity:
    return answer(portfolio_of(rooms, firmness, ALL, "up", 3600.0))


def test_beyond_so_many_vendors_the_smallest_count_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    vendors = {f"v{n:02d}": float(rng.lognormal(12.0, 1.0)) for n in range(40)}
    rooms, firmness = rooms_of(vendors), failing(list(vendors))
    bounded = told(rooms, firmness)
    assert len(portfolio_of(rooms, firmness, ALL, "up", 3600.0).vendors) == assembly.VENDORS + 1
    monkeypatch.setattr(assembly, "VENDORS", 100)
    whole = told(rooms, firmness)
    assert bounded.headroom_w == pytest.approx(whole.headroom_w)
    assert bounded.expected_w == pytest.approx(whole.expected_w, rel=1e-4)
    assert bounded.promise_w == pytest.approx(whole.promise_w, rel=0.01)


def test_devices_without_a_vendor_share_no_cloud() -> None:
    rooms = rooms_of({"": 1e6})
    firmness = failing([""], events=400.0)
    found = told(rooms, firmness)
    assert found.worst is None
    assert found.promise_w[P95] > 0.5e6
    assert told(rooms_of({"a": 1e6}), failing(["a"], events=400.0)).promise_w[P95] == 0.0


def test_the_promise_follows_what_is_learned() -> None:
    rooms = rooms_of({"a": 1e6, "b": 8e5, "c": 6e5})
    before = told(rooms, Firmness())
    worse = Firmness()
    worse.responses.cells["0/a"] = Cell(600.0, 1_000.0, 50.0)
    assert told(rooms, worse).promise_w[P95] < before.promise_w[P95]
    failed = told(rooms, failing(["a", "b"]))
    assert failed.promise_w[P95] < before.promise_w[P95]
    assert failed.worst is not None
    assert failed.worst.odds == pytest.approx(0.04, abs=0.005)


def test_vendors_behind_one_provider_fail_together() -> None:
    rooms, firmness = rooms_of({"a": 1e6, "b": 8e5, "c": 6e5}), Firmness()
    apart = told(rooms, firmness)
    shares = {"a": 0.9, "b": 0.9, "c": 0.1}
    mine = rooms[0][ALL][3600.0]
    nets = {
        name: {5: [share * sum(at[0] for at in mine.places[name].values()), 0.0]}
        for name, share in shares.items()
    }
    rooms[0][ALL][3600.0] = msgspec.structs.replace(mine, providers=nets)
    firmness.outages.groups["provider:5"] = Record(60.0, 1_000.0, True)
    together = told(rooms, firmness)
    left_w = 0.1 * 1e6 + 0.1 * 8e5 + 0.9 * 6e5
    assert together.promise_w[P95] < left_w < apart.promise_w[P95]
    assert together.headroom_w == apart.headroom_w


def test_a_resource_nobody_spoke_of_promises_nothing() -> None:
    found = answer(portfolio_of(rooms_of({"a": 1e6}), Firmness(), "nobody", "up", 3600.0))
    assert list(found.promise_w) == [0.0] * len(LEVELS)
    assert found.headroom_w == 0.0


def test_a_vendor_that_may_be_gone_is_as_lopsided_as_drawn() -> None:
    """Third cumulant of a beta-binomial power times whether the vendor is there at all."""
    vendor = vendor_of("x", [Response(1000.0, 1000.0, 0.7, 0.15)])
    found = merged([vendor], [0.02])
    rng, draws = np.random.default_rng(1), 1_000_000
    weight = 0.7 * 0.3 / 0.15**2 - 1.0
    day = rng.beta(0.7 * weight, 0.3 * weight, draws)
    power_w = rng.binomial(1000, day) * (rng.random(draws) >= 0.02)
    off_w = power_w - power_w.mean()
    assert found.own_variance_w2 == pytest.approx((off_w**2).mean(), rel=0.01)
    assert found.own_third_w3 == pytest.approx((off_w**3).mean(), rel=0.02)
