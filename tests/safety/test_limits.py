"""What the configured limits mean, by example; `test_hostile_orders` shows that they hold."""

import numpy as np
import pytest

from kapelle.config import parse
from kapelle.errors import Invalid
from kapelle.model.blocks import Commands
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Order
from kapelle.registry.directory import Bearer, Directory
from kapelle.safety import gate
from kapelle.safety.accounts import restore, to_snapshot
from kapelle.safety.gate import RULES, check
from kapelle.safety.settings import GroupLimit, SafetySettings
from kapelle.safety.state import GateState, know

DEVICES = 100
REVERT_S = 120.0
TTL_S = 10.0


class Plant:
    """A hundred generators of 5 kW, ten on each feeder, behind a gate with limits."""

    def __init__(self, *limits: GroupLimit, **more: float) -> None:
        self.settings = SafetySettings(limits=limits, **more)  # type: ignore[arg-type]  # floats only
        self.state = GateState.of(self.settings)
        self.directory = Directory.build(
            1,
            [Bearer(n, f"d{n}", True, 5e3, 0.0, feeder=f"f{n // 10}") for n in range(DEVICES)],
        )
        self.state.orders.apply(Order(1, "all", 5e5, 0, 1 << 61, 0))
        self.setpoint_w = np.zeros(DEVICES)
        """As the gate let it out."""

    def tell(
        self,
        at_s: float,
        devices: range,
        setpoint_w: float | list[float],
        revert_s: float = REVERT_S,
    ) -> list[str]:
        """Tell devices a setpoint (NaN: a release), or each its own; return what became of each."""
        now_ns, count = round((1e6 + at_s) * NS_PER_S), len(devices)
        asked_w = np.full(count, setpoint_w)
        commands = Commands(
            device_no=np.array(devices, np.int32),
            order_no=np.where(np.isnan(asked_w), 0, 1).astype(np.int32),
            revision=np.full(count, now_ns, np.int64),
            epoch=np.ones(count, np.int64),
            attempt=np.ones(count, np.int32),
            setpoint_w=asked_w,
            issued_at_ns=np.full(count, now_ns, np.int64),
            not_after_ns=np.full(count, now_ns + round(TTL_S * NS_PER_S), np.int64),
            ttl_s=np.full(count, TTL_S),
            revert_s=np.full(count, revert_s),
        )
        known = know(self.state, self.directory, commands.device_no)
        broken = check(self.state, commands, known, now_ns, 1, self.settings)
        self.setpoint_w[commands.device_no[broken == 0]] = asked_w[broken == 0]
        return [RULES[place] for place in broken]


ALL = range(DEVICES)


def test_a_plant_with_a_ramp_moves_at_exactly_its_ramp() -> None:
    pace_w, burst_s = 60_000.0, 10.0
    plant = Plant(GroupLimit(ramp_w_per_min=pace_w, ramp_burst_s=burst_s), commands_burst=1e3)
    for at_s in range(0, 240, 4):
        # Whoever was refused is told again; so is everybody else.
        plant.tell(at_s, ALL, 5e3)
        most_w = pace_w / 60 * (at_s + burst_s)
        assert most_w - 5e3 < plant.setpoint_w.sum() <= most_w
    assert plant.setpoint_w.sum() == pytest.approx(245_000)


def test_what_a_limit_leaves_goes_in_order_of_arrival() -> None:
    plant = Plant(GroupLimit(feeder="*", power_w=20_000.0))
    said = plant.tell(0, range(20), 5e3)
    assert said == ([""] * 4 + [gate.POWER] * 6) * 2
    assert plant.tell(1, range(3, 5), 5e3) == ["", gate.POWER], "refreshing asks for nothing more"


def test_whoever_asks_for_more_than_there_is_keeps_nobody_from_passing() -> None:
    plant = Plant(GroupLimit(feeder="*", power_w=4_000.0))
    assert plant.tell(0, range(3), [5e3, 2.5e3, 2.5e3]) == [gate.POWER, "", gate.POWER]
    plant = Plant(authority_w_per_hour=12_000.0)
    assert plant.tell(0, range(4), [5e3, 4e3, 4e3, 3e3]) == ["", "", gate.AUTHORITY, ""]


def test_the_narrowest_limit_decides_and_takes_nothing_from_the_others() -> None:
    plant = Plant(GroupLimit(power_w=50_000.0), GroupLimit(feeder="f0", power_w=0.0))
    assert plant.tell(0, range(20), 5e3) == [gate.POWER] * 10 + [""] * 10


def test_a_setpoint_counts_until_its_timer_has_certainly_run_out() -> None:
    plant = Plant(GroupLimit(power_w=5e3))
    assert plant.tell(0, range(1), 5e3) == [""]
    # Neither a release nor a lower setpoint need have arrived.
    assert plant.tell(5, range(1), np.nan) == [""]
    assert plant.tell(10, range(1, 2), 5e3) == [gate.POWER]
    assert plant.tell(REVERT_S + TTL_S - 1, range(1, 2), 5e3) == [gate.POWER]
    assert plant.tell(REVERT_S + TTL_S + 1, range(1, 2), 5e3) == [""]


def test_every_setpoint_that_was_replaced_counts_as_long() -> None:
    plant = Plant(GroupLimit(power_w=5e3))
    assert plant.tell(0, range(1), 5e3) == [""]
    for at_s in (5, 10, 15):
        assert plant.tell(at_s, range(1), 1e3) == [""]
    assert plant.tell(20, range(1, 2), 4e3) == [gate.POWER], "all three may be lost"


def test_a_setpoint_without_a_timer_counts_until_its_device_was_let_go_and_could_hear_it() -> None:
    plant = Plant(GroupLimit(power_w=5e3))
    assert plant.tell(0, range(1), 5e3, revert_s=np.nan) == [""]
    assert plant.tell(86_400, range(1, 2), 5e3) == [gate.POWER], "a day later it still stands"
    assert plant.tell(86_401, range(1), np.nan) == [""]
    assert plant.tell(86_402, range(1, 2), 5e3) == [gate.POWER], "the release may have got lost"
    late_s = 86_401 + plant.settings.revert_s_max + TTL_S + 1
    assert plant.tell(late_s, range(1, 2), 5e3) == [""]


def test_a_device_that_moves_takes_its_setpoint_along() -> None:
    plant = Plant(GroupLimit(feeder="*", power_w=5e3))
    assert plant.tell(0, range(10, 11), 5e3) == [""]
    plant.directory.apply([Bearer(10, "d10", True, 5e3, 0.0, feeder="f0")])
    assert plant.tell(1, range(1), 5e3) == [gate.POWER]
    assert plant.tell(1, range(11, 12), 5e3) == [""], "there is room where it was"


def test_a_group_beyond_its_limit_is_not_kept_there() -> None:
    plant = Plant(GroupLimit(feeder="*", power_w=5e3))
    assert plant.tell(0, range(0, 11, 10), 5e3) == [""] * 2
    plant.directory.apply([Bearer(10, "d10", True, 5e3, 0.0, feeder="f0")])
    assert plant.tell(60, range(0, 11, 10), 5e3) == [gate.POWER] * 2
    assert plant.tell(60, range(0, 11, 10), np.nan) == [""] * 2


@pytest.mark.parametrize("level", ["zone", "feeder", "site"])
def test_whoever_has_no_label_cannot_be_held_to_the_limit_of_each(level: str) -> None:
    plant = Plant(GroupLimit(**{level: "*"}, power_w=1e9))
    plant.directory.apply([Bearer(0, "d0", True, 5e3, 0.0, **{level: "here"})])
    plant.directory.apply([Bearer(1, "d1", True, 5e3, 0.0)])
    assert plant.tell(0, range(2), 5e3) == ["", gate.NO_LABEL]
    assert plant.tell(1, range(2), np.nan) == ["", ""]


def test_no_part_of_a_watt_gets_lost_where_nobody_stood_before() -> None:
    plant = Plant(GroupLimit(power_w=9 * 5e3 + 10 * 0.9))
    plant.tell(0, range(1), np.nan)
    # Each may stand 0.9 W above its schedule, and 5 kW below it when let go.
    found = [plant.tell(0, range(n, n + 1), 0.9)[0] for n in range(10)]
    assert found == [""] * 9 + [gate.POWER]
    assert plant.state.ledgers[0]._standing_w[0] == pytest.approx(9 * 0.9)


def test_no_limit_stops_a_release() -> None:
    """ADR 12: the timers would do the same, later and all at once."""
    tight = {"dwell_s": 1e6, "commands_per_hour": 1.0, "commands_per_day": 1.0}
    plant = Plant(GroupLimit(power_w=5e5, ramp_w_per_min=3e6, switching_max=0.0), **tight)
    assert set(plant.tell(0, ALL, 5e3)) == {""}
    assert set(plant.tell(1, ALL, 4e3)) == {gate.RATE_DAY}
    assert set(plant.tell(2, ALL, np.nan)) == {""}


def test_a_released_device_pays_its_whole_span_again() -> None:
    plant = Plant(GroupLimit(ramp_w_per_min=6_000.0, ramp_burst_s=60.0))
    assert plant.tell(0, range(1), 5e3) == [""]
    assert plant.tell(1, range(1), 5e3) == [""]
    assert plant.tell(2, range(1), np.nan) == [""]
    assert plant.tell(3, range(1), 5e3) == [gate.RAMP]


def test_limits_are_tables_and_their_mistakes_are_named() -> None:
    text = """
    [safety]
    dwell_s = 120
    [[safety.limits]]
    zone = "north"
    power_w = 2e6
    [[safety.limits]]
    feeder = "*"
    switching_max = 20
    """
    settings = parse(text, {}).config.safety
    assert settings.limits == (
        GroupLimit(zone="north", power_w=2e6),
        GroupLimit(feeder="*", switching_max=20.0),
    )
    wrong = {
        "pwer_w = 2": "nothing is called pwer_w in [safety.limits.1]; did you mean power_w?",
        'power_w = "2"': "safety.limits.1.power_w",
        'zone = "a"\nsite = "b"': "a limit is about one of zone, feeder, site, device",
        "power_w = -1": "not negative",
        "switching_share = 2": "within 0 to 1",
    }
    for line, said in wrong.items():
        with pytest.raises(Invalid) as caught:
            parse(f"[[safety.limits]]\n{line}", {})
        assert said in str(caught.value)


def test_accounts_are_taken_up_also_of_groups_nobody_was_asked_in() -> None:
    plant = Plant(GroupLimit(feeder="*", switching_share=0.5))
    know(plant.state, plant.directory, np.zeros(0, np.int32))
    restore(GateState.of(plant.settings), to_snapshot(plant.state, {}))
