"""Drills: what is measured is held against its limit, and the fleet is of the plant's shape."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from kapelle.cli import app
from kapelle.errors import Invalid
from kapelle.model.enums import DeviceKind
from kapelle.registry.device import Device
from kapelle.registry.store import Registry
from kapelle.sim.devices import FleetPlan, make_fleet
from kapelle.sim.drills import losses
from kapelle.sim.drills.fleet import example, like
from kapelle.sim.drills.losses import gateway_of, run_loss, vendor_of
from kapelle.sim.drills.verdict import Criterion, Report, as_document, as_rows, worst

SMALL = FleetPlan(devices=240, partitions=1, vendors={"acme": 0.25, "bolt": 0.75}, revert_s=30.0)


def criterion(measured: float | None, limit: float = 10.0) -> Criterion:
    return Criterion(name="c", measured=measured, limit=limit, unit="s")


def report(*criteria: Criterion) -> Report:
    return Report(drill="hold", title="t", seeds=[1], fleet="f", criteria=criteria)


@pytest.mark.parametrize(
    ("measured", "passed"), [(9.9, True), (10.0, True), (10.1, False), (None, False)]
)
def test_what_never_came_is_as_bad_as_what_came_too_late(
    measured: float | None, passed: bool
) -> None:
    assert criterion(measured).passed is passed
    assert report(criterion(1.0), criterion(measured)).passed is passed


def test_of_several_plays_the_worst_counts() -> None:
    plays = [[criterion(1.0), criterion(2.0)], [criterion(None), criterion(1.5)]]
    assert [each.measured for each in worst(plays)] == [None, 2.0]


def test_a_report_says_the_same_to_people_and_to_programs() -> None:
    told = report(criterion(1.25), criterion(None))
    assert [row["measured"] for row in as_rows(told)] == ["1.25 s", "never"]
    document = json.loads(json.dumps(as_document(told)))
    assert document["passed"] is False
    assert [each["passed"] for each in document["criteria"]] == [True, False]


def test_a_lost_vendor_is_made_up_for_or_what_is_missing_is_said() -> None:
    found = run_loss("vendor-loss", SMALL, vendor_of(SMALL, "acme"), [3])
    assert [each.name for each in found.criteria if not each.passed] == []
    assert len(found.criteria) == 11


def test_a_plant_that_does_not_make_up_for_a_loss_fails() -> None:
    """As much as there is was ordered, and it is judged as if there were headroom."""
    group = vendor_of(SMALL, "bolt")
    criteria = losses.with_headroom("vendor-loss", SMALL, group, 3, part=1.3)
    assert not all(each.passed for each in criteria if "after the loss" in each.name)


def test_the_largest_is_lost_where_none_is_named() -> None:
    assert vendor_of(SMALL, None).name == "bolt"
    gateway = gateway_of(example(), None, by="gateway")
    assert (gateway.name, gateway.share) == ("gateway-00", 0.25)
    assert gateway_of(FleetPlan(), None, by="provider").name == "nordnet"
    with pytest.raises(Invalid, match=r"no vendor is called 'ghost'; there are acme, bolt"):
        vendor_of(SMALL, "ghost")


def enrolled(path: Path, *devices: Device) -> Registry:
    registry = Registry(f"sqlite:///{path / 'registry.db'}", partitions=1)
    if devices:
        registry.put_devices(devices, 0)
    return registry


def test_the_fleet_is_of_the_shape_of_the_plants_own(tmp_path: Path) -> None:
    devices = [
        Device(
            id=f"d{n}",
            kind=DeviceKind.EV if n < 3 else DeviceKind.LOAD,
            vendor="acme" if n < 8 else "",
            provider="telko",
            feeder=f"f{n % 5}",
            revert_s=60.0 if n < 5 else float("nan"),
            nameplate_down_w=5_000.0,
            report_every_s=10.0,
        )
        for n in range(10)
    ]
    with enrolled(tmp_path, *devices) as registry:
        plan = like(registry.shape(), devices=100)
    assert (plan.devices, plan.telemetry_period_s, plan.revert_s) == (100, 10.0, 60.0)
    assert (plan.no_revert_fraction, plan.devices_per_feeder) == (0.5, 2)
    assert plan.vendors == {"acme": 8}
    assert plan.providers == {"telko": 10}
    made = make_fleet(plan, np.random.default_rng(1))
    assert np.count_nonzero(made.kind == DeviceKind.EV) == 30


def test_a_plant_without_devices_cannot_be_drilled(tmp_path: Path) -> None:
    with enrolled(tmp_path) as registry, pytest.raises(Invalid, match="no device is enrolled"):
        like(registry.shape())


def test_the_command_ends_with_what_the_drill_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for measured, code in ((1.0, 0), (None, 1)):
        told = report(criterion(measured))
        monkeypatch.setattr(losses, "run_loss", lambda *_, told=told: told)
        done = CliRunner().invoke(app, ["drill", "vendor-loss", "--json"])
        assert done.exit_code == code
        assert json.loads(done.stdout)["passed"] is (code == 0)
        assert CliRunner().invoke(app, ["drill", "gateway-loss"]).exit_code == code


def test_a_data_directory_without_a_registry_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["drill", "vendor-loss", "--data-dir", str(tmp_path)])
    assert isinstance(done.exception, Invalid)
    assert "there is no registry" in str(done.exception)
