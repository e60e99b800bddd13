"""Fleets: exact shares, dense numbers, sites that stay together, rows that can be imported."""

from collections import Counter, defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.model.enums import DeviceKind
from kapelle.sim.devices import VENDORS, FleetPlan, make_fleet


@settings(max_examples=30, deadline=None)
@given(devices=st.integers(1, 400), partitions=st.integers(1, 9), seed=st.integers(0, 99))
def test_shares_are_exact_and_sites_stay_in_one_partition(
    devices: int, partitions: int, seed: int
) -> None:
    plan = FleetPlan(devices=devices, partitions=partitions)
    made = make_fleet(plan, np.random.default_rng(seed)).enrolled
    numbers = made.device_no.tolist()
    assert len(set(numbers)) == devices
    vendors = Counter(name.decode() for name in made.vendor)
    for vendor, share in VENDORS.items():
        assert abs(vendors[vendor] - share * devices) < 1
    kinds = Counter(DeviceKind(int(kind)).name.lower() for kind in made.kind)
    for kind, share in plan.mix.items():
        assert abs(kinds[kind] - share * devices) < 1
    homes = defaultdict(set)
    for site, number in zip(made.site, numbers, strict=True):
        homes[site].add(number % partitions)
    assert all(len(where) == 1 for where in homes.values())
    for partition in range(partitions):
        rows = sorted(
            number // partitions for number in numbers if number % partitions == partition
        )
        assert rows == list(range(len(rows)))


def test_parts_are_the_whole() -> None:
    made = make_fleet(FleetPlan(devices=100, partitions=3), np.random.default_rng(1))
    parts = [made.part(partition, 3) for partition in range(3)]
    assert sum(len(part) for part in parts) == 100
    together = {name for part in parts for name in part.device_id}
    assert together == set(made.enrolled.device_id)
    for partition, part in enumerate(parts):
        assert (part.device_no % 3 == partition).all()


def test_rows_say_what_an_import_asks_for() -> None:
    made = make_fleet(FleetPlan(devices=40), np.random.default_rng(1))
    rows = made.rows()
    assert len(rows) == 40
    assert all(row["kind"] in {kind.name.lower() for kind in DeviceKind} for row in rows)
    batteries = [row for row in rows if row["kind"] == "battery"]
    assert batteries
    assert all(row["energy_wh"] for row in batteries)
    assert all(row["energy_wh"] is None for row in rows if row["kind"] == "pv")
    assert {"id", "site", "vendor", "model", "zone", "feeder", "provider", "adapter"} <= set(
        rows[0]
    )


def test_groups_name_every_device() -> None:
    made = make_fleet(FleetPlan(devices=400), np.random.default_rng(1))
    for by, expected in (("vendor", 5), ("provider", 3), ("feeder", 10), ("gateway", 4)):
        names = made.groups(by)
        assert len(names) == 400
        assert len(set(names)) == expected
