"""Scenario files: what the documentation shows is read, anything else is named with its remedy."""

import datetime
from pathlib import Path

import pytest

from kapelle.errors import Invalid
from kapelle.model.ids import NS_PER_S
from kapelle.sim.faults import GroupLoss, Restart, Rival
from kapelle.sim.scenario import parse_scenario, read_scenario

FULL = """
duration_s = 900
[fleet]
devices = 2000
partitions = 4
telemetry_period_s = 4
mix = { battery = 0.5, pv = 0.2, ev = 0.2, load = 0.1 }
vendors = { acme = 0.40, bolt = 0.25, core = 0.15, dyna = 0.12, eon = 0.08 }
[faults]
dead_fraction = 0.10
command_loss = 0.02
ack_loss = 0.02
command_latency_s = 1.5
telemetry_delay_s = 0.5
telemetry_loss = 0.01
duplicate = 0.01
late_fraction = 0.0
late_s = 600
skew_s = 0.0
frozen_fraction = 0.0
mtbf_s = 0
mttr_s = 0
sign_turned_fraction = 0.01
kw_fraction = 0.01
one_way_fraction = 0.01
contested_fraction = 0.01
flapping_fraction = 0.01
flap_s = 20
poison = 0.01
reset_fraction = 0.01
reset_s = 60
local_fraction = 0.01
local_s = 100
register_reset_fraction = 0.01
register_jitter_wh = 2
register_rollover_wh = 1e6
[[faults.clock_step]]
at_s = 200
by_s = -3600
[[faults.group_loss]]
by = "vendor"
name = "bolt"
at_s = 300
return_s = 600
stops = true
[[faults.rival]]
role = "dispatch"
at_s = 350
for_s = 20
how = "cut-off"
[[faults.restart]]
role = "all"
at_s = 400
down_s = 2
[[orders]]
at_s = 60
duration_s = 780
fraction = 0.6
direction = "up"
"""


def test_every_documented_key_is_read(tmp_path: Path) -> None:
    file = tmp_path / "bad-day.toml"
    file.write_text(FULL)
    scenario = read_scenario(file)
    assert scenario.duration_s == 900
    assert scenario.fleet.devices == 2000
    assert scenario.fleet.vendors["bolt"] == 0.25
    assert scenario.faults.dead_fraction == 0.1
    assert scenario.faults.group_loss == (GroupLoss("vendor", "bolt", 300, 600, stops=True),)
    assert scenario.faults.rival == (Rival("dispatch", 350, 20, "cut-off"),)
    assert scenario.faults.restart == (Restart("all", 400, 2),)
    (order,) = scenario.orders
    assert (order.at_s, order.fraction, order.target_w, order.direction) == (60, 0.6, None, "up")


def test_what_is_left_out_has_a_default() -> None:
    scenario = parse_scenario("duration_s = 10\nstart = 2026-01-02T03:04:05Z")
    at = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert scenario.start_ns == at.timestamp() * NS_PER_S
    assert scenario.orders == ()
    assert scenario.fleet.devices == 2000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("devices = 2000", "devics = 2000"), "did you mean 'devices'"),
        (("[faults]", "[fault]"), "did you mean 'faults'"),
        (("devices = 2000", "devices = 0"), "a whole number from 1"),
        (("devices = 2000", "devices = true"), "fleet.devices"),
        (("dead_fraction = 0.10", "dead_fraction = 1.5"), "a number from 0 to 1"),
        (("dead_fraction = 0.10", 'dead_fraction = "ten"'), "faults.dead_fraction"),
        (("skew_s = 0.0", "skew_s = nan"), "faults.skew_s"),
        (("pv = 0.2", "vp = 0.2"), "fleet.mix"),
        (("eon = 0.08", "eon = 0.5"), "sum to 1"),
        (('name = "bolt"', 'name = "blt"'), "did you mean 'bolt'"),
        (('by = "vendor"', 'by = "street"'), "vendor, provider, feeder, gateway"),
        (("return_s = 600", "return_s = 200"), "not after at_s"),
        (('role = "all"', 'role = "everything"'), "all, gateway, fleet, dispatch"),
        (("stops = true", "stops = 1"), "true or false"),
        (
            ('direction = "up"', "staged = true\nprofile = [{ duration_s = 780, part = 1 }]"),
            "all devices",
        ),
        (('role = "dispatch"', 'role = "gateway"'), "one of fleet, dispatch"),
        (('how = "cut-off"', 'how = "tired"'), "paused, cut-off"),
        (("for_s = 20\n", ""), "faults.rival[0].for_s: is missing"),
        (("fraction = 0.6", "fraction = 0.6\ntarget_w = 1e6"), "exactly one"),
        (("fraction = 0.6", ""), "exactly one"),
        (("at_s = 60\n", ""), "orders[0].at_s: is missing"),
        (("at_s = 60\n", "at_s = 1000\n"), "after the run is over"),
        (("mtbf_s = 0", "mtbf_s = 10"), "go together"),
        (("duration_s = 900", ""), "duration_s: is missing"),
        (("[[orders]]", "[orders"), "not TOML"),
    ],
)
def test_every_mistake_is_named(change: tuple[str, str], told: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_scenario(FULL.replace(*change, 1))
    assert told in str(caught.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        parse_scenario("duration_s = -1\nfoo = 1\n[fleet]\ndevices = 0")
    assert len(caught.value.problems) == 3


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"nowhere\.toml"):
        read_scenario(tmp_path / "nowhere.toml")


RESOURCES = """
duration_s = 60
[resources.stores]
kind = ["battery", "ev"]
[resources.north]
vendor = ["acme"]
[[orders]]
at_s = 1
duration_s = 9
fraction = 0.5
resource = "stores"
"""


def test_orders_name_resources_of_the_fleet() -> None:
    found = parse_scenario(RESOURCES)
    assert found.orders[0].resource == "stores"
    assert found.resources["stores"].kind == ("battery", "ev")
    assert found.resources["north"].vendor == ("acme",)


@pytest.mark.parametrize(
    ("was", "now", "place"),
    [
        ('resource = "stores"', 'resource = "store"', "orders[0].resource"),
        ('vendor = ["acme"]', 'vendor = ["acne"]', "resources.north.vendor"),
        ('kind = ["battery", "ev"]', 'kind = ["batery"]', "resources.stores.kind"),
        ('kind = ["battery", "ev"]', "kind = []", "resources.stores.kind"),
        ('kind = ["battery", "ev"]', 'kinds = ["ev"]', "resources.stores.kinds"),
        ("[resources.north]", "[resources.all]", "resources"),
    ],
)
def test_a_resource_that_is_not_there_is_named(was: str, now: str, place: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_scenario(RESOURCES.replace(was, now))
    assert [problem.where for problem in refused.value.problems] == [place]
