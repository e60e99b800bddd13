"""The registry's rows reach the columns whole, and what devices reported stays."""

import numpy as np
from fleet_worlds import block, enrolled, fleet_of, power, say
from numpy.testing import assert_array_equal

from kapelle.fleet.enrol import apply_enrolled, apply_members
from kapelle.model.enums import DeviceKind, Metric
from kapelle.model.plant import Members


def test_later_row_replaces_the_earlier_whole_and_keeps_what_was_reported() -> None:
    fleet = fleet_of()
    say(fleet, block([power(2, 1.0, 700.0)]))
    apply_enrolled(
        fleet,
        enrolled(
            [2, 2],
            kind=[DeviceKind.PV, DeviceKind.EV],
            nameplate_up_w=[1.0, 2.0],
            vendor=(b"a", b"b"),
            energy_wh=np.nan,
        ),
    )
    assert fleet.kind[2] == DeviceKind.EV
    assert fleet.nameplate_up_w[2] == 2.0
    assert fleet.names["vendor"][fleet.vendor[2]] == "b"
    assert np.isnan(fleet.energy_wh[2])
    assert fleet.value[Metric.POWER_W, 2] == 700.0


def test_fleet_grows_with_its_highest_number_and_gaps_are_inactive() -> None:
    fleet = fleet_of()
    apply_enrolled(fleet, enrolled([9]))
    assert fleet.size == 10
    assert_array_equal(np.flatnonzero(fleet.active[:10]), [0, 1, 2, 3, 9])
    assert np.isnan(fleet.desired_w[5])


def test_same_name_has_one_code_in_every_block() -> None:
    fleet = fleet_of(2)
    apply_enrolled(fleet, enrolled([2, 3], vendor=(b"maker-0", "Zürich".encode())))
    vendors = [fleet.names["vendor"][code] for code in fleet.vendor[:4]]
    assert vendors == ["maker-0", "maker-1", "maker-0", "Zürich"]
    assert fleet.vendor[0] == fleet.vendor[2]


def test_members_are_ascending_rows_replaced_as_a_whole() -> None:
    fleet = fleet_of(12, partition=1, partitions=4)
    apply_members(fleet, Members("some", [9, 1, 9]))
    assert_array_equal(fleet.members["some"], [0, 2])
    apply_members(fleet, Members("some", [5]))
    assert_array_equal(fleet.members["some"], [1])
    apply_members(fleet, Members("some", []))
    assert "some" not in fleet.members
