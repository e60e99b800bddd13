"""What a station says becomes reports: sums, vehicles that come and go, what they need."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.ocpp.events import Event, Need, Occupancy, Sample
from kapelle.adapters.ocpp.flexibility import Setpoint
from kapelle.adapters.ocpp.station import Nameplate, Saying, Station
from kapelle.model.enums import DeviceMode, Metric
from kapelle.model.ids import NS_PER_S

NAN = math.nan
NOW_NS = 1_795_340_466 * NS_PER_S
WHOLE = {0: Nameplate(0.0, 11_000.0)}
BOTH_WAYS = {0: Nameplate(10_000.0, 11_000.0)}
CHARGING, FREE = Occupancy.CHARGING, Occupancy.FREE


class World:
    """A station and the clock it is asked by."""

    def __init__(self, scopes: dict[int, Nameplate] = WHOLE) -> None:
        self.station = Station()
        self.scopes = scopes
        self.at_s = 0.0

    @property
    def now_ns(self) -> int:
        return NOW_NS + int(self.at_s * NS_PER_S)

    def hear(self, **event: object) -> list[Saying]:
        said, self.problems = self.station.apply(
            Event(**event),  # type: ignore[arg-type]
            self.scopes,
            self.now_ns,
        )
        return said

    def sample(self, evse: int = 1, transaction: str = "", **values: float) -> list[Saying]:
        metrics = {Metric[name.upper()]: value for name, value in values.items()}
        samples = (Sample(self.now_ns, metrics),)
        return self.hear(evse=evse, transaction=transaction, samples=samples)

    def begin(self, evse: int = 1, import_wh: float = 0.0) -> None:
        samples = (Sample(self.now_ns, {Metric.IMPORT_WH: import_wh}),)
        name = f"t{evse}"
        self.hear(evse=evse, transaction=name, began=True, occupancy=CHARGING, samples=samples)

    def bounds(self, scope: int = 0) -> tuple[float, float]:
        return self.station.bounds(scope, self.scopes[scope], self.now_ns)


def test_without_a_vehicle_nothing_flows_and_nothing_can() -> None:
    world = World()
    (said,) = world.hear(evse=1, occupancy=FREE)
    nothing = {Metric.POWER_W: 0.0, Metric.MIN_W: 0.0, Metric.MAX_W: 0.0}
    assert nothing.items() <= said.values.items()
    (alive,) = world.hear(alive=True)
    assert nothing.items() <= alive.values.items()
    world.begin()
    assert world.bounds() == (-11_000.0, 0.0)
    assert world.hear(alive=True) == []  # a vehicle is there: the meter speaks
    (said,) = world.hear(transaction="t1", ended=True)
    assert nothing.items() <= said.values.items()


def test_a_station_of_which_nothing_is_known_says_nothing() -> None:
    assert World().hear(alive=True) == []


def test_a_transaction_is_about_the_evse_its_first_event_named() -> None:
    world = World()
    world.begin(1)
    world.begin(2)
    world.hear(transaction="t2", samples=(Sample(NOW_NS, {Metric.POWER_W: -3_000.0}),))
    assert world.station.evses[2].power_w == -3_000.0
    world.hear(transaction="unknown", samples=(Sample(NOW_NS, {Metric.POWER_W: -1.0}),))
    assert "EVSE" in world.problems[0] or "evse" in world.problems[0]
    assert world.hear(evse=1_000, samples=(Sample(NOW_NS, {Metric.POWER_W: -1.0}),)) == []
    assert world.problems


def test_after_a_restart_of_the_plant_meter_values_tell_that_a_transaction_runs() -> None:
    world = World()
    (said,) = world.sample(transaction="77", power_w=-7_000.0)
    assert said.values[Metric.POWER_W] == -7_000.0
    assert world.station.evses[1].transaction == "77"
    assert world.bounds()[0] <= -7_000.0


def test_the_station_is_the_sum_of_its_evses_once_all_are_known() -> None:
    world = World()
    world.station.evses_said = 2
    world.begin(1)
    assert world.sample(1, "t1", power_w=-3_000.0, import_wh=500.0) == []
    world.hear(evse=2, occupancy=FREE)
    world.begin(2, import_wh=9_000.0)
    (said,) = world.sample(2, "t2", power_w=-4_000.0, import_wh=9_100.0)
    assert said.values[Metric.POWER_W] == -7_000.0
    assert said.values[Metric.IMPORT_WH] == 9_600.0


def test_a_main_meter_speaks_for_the_station() -> None:
    world = World()
    world.begin(1)
    (said,) = world.sample(0, power_w=-3_100.0, import_wh=70_000.0)
    assert said.values[Metric.POWER_W] == -3_100.0
    (said,) = world.sample(1, "t1", power_w=-3_000.0, import_wh=500.0, soc=0.5)
    assert Metric.POWER_W not in said.values
    assert Metric.IMPORT_WH not in said.values
    assert said.values[Metric.SOC] == 0.5


def test_devices_of_single_evses() -> None:
    world = World({1: Nameplate(0.0, 11_000.0), 2: Nameplate(0.0, 7_000.0)})
    world.begin(1)
    said = world.sample(1, "t1", power_w=-3_000.0, import_wh=500.0)
    assert [(one.scope, one.values[Metric.POWER_W]) for one in said] == [(1, -3_000.0)]
    assert world.bounds(2) == (0.0, 0.0)


def test_registers_that_reset_pass_as_they_are() -> None:
    """The fold opens a new segment; nothing here invents energy."""
    world = World()
    told = []
    for transaction, register in (("a", 4_000.0), ("a", 9_000.0), ("b", 0.0), ("b", 100.0)):
        world.at_s += 10
        (said,) = world.sample(1, transaction, import_wh=register)
        told.append(said.values[Metric.IMPORT_WH])
    assert told == [4_000.0, 9_000.0, 0.0, 100.0]


def test_what_a_vehicle_takes_unhindered_is_what_it_can_take() -> None:
    world = World()
    world.begin()
    world.sample(1, "t1", power_w=-3_600.0)
    assert world.bounds() == (-3_600.0, 0.0)
    # Held back, it shows no more than what it was allowed.
    world.station.setpoints[0] = Setpoint(-2_000.0, world.now_ns, 0)
    world.at_s = 60
    world.sample(1, "t1", power_w=-2_000.0)
    assert world.bounds() == (-3_600.0, 0.0)
    # It takes less than allowed once it is nearly full.
    world.at_s = 120
    world.sample(1, "t1", power_w=-900.0)
    assert world.bounds() == (-900.0, 0.0)
    # The next vehicle is another one.
    world.hear(transaction="t1", ended=True)
    world.begin()
    assert world.bounds() == (-11_000.0, 0.0)


def test_a_vehicle_that_is_full_offers_nothing_unless_it_was_held_back() -> None:
    world = World()
    world.begin()
    world.hear(evse=1, transaction="t1", occupancy=Occupancy.SATISFIED)
    assert world.bounds() == (0.0, 0.0)
    world.station.setpoints[0] = Setpoint(0.0, world.now_ns, world.now_ns + 300 * NS_PER_S)
    assert world.bounds() == (-11_000.0, 0.0)
    world.at_s = 400  # the profile has ended by itself
    assert world.bounds() == (0.0, 0.0)


def need(energy_wh: float, leaves_s: float, discharge_w: float = 0.0) -> Need:
    return Need(energy_wh, NOW_NS + int(leaves_s * NS_PER_S), 10_000.0, discharge_w, NAN)


@pytest.mark.parametrize(
    ("energy_wh", "leaves_s", "bounds"),
    [
        # 10 kWh at 10 kW take an hour.
        (10_000.0, 3 * 3_600, (-10_000.0, 5_000.0)),
        (10_000.0, 1.5 * 3_600, (-10_000.0, 0.0)),
        (10_000.0, 1.2 * 3_600, (-10_000.0, -10_000.0)),
        (10_000.0, 0.5 * 3_600, (-10_000.0, -10_000.0)),
        (0.0, 0.5 * 3_600, (-10_000.0, 5_000.0)),
    ],
)
def test_who_must_leave_in_time_is_moved_as_far_as_time_allows(
    energy_wh: float, leaves_s: float, bounds: tuple[float, float]
) -> None:
    world = World(BOTH_WAYS)
    world.begin()
    world.hear(evse=1, need=need(energy_wh, leaves_s, 5_000.0))
    assert world.bounds() == bounds


def test_energy_that_was_charged_is_needed_no_more() -> None:
    world = World()
    world.begin(import_wh=1_000.0)
    world.hear(evse=1, need=need(10_000.0, 4_000))
    assert world.bounds() == (-10_000.0, -10_000.0)
    world.sample(1, "t1", import_wh=9_000.0)
    assert world.bounds() == (-10_000.0, 0.0)


def test_energy_that_was_given_back_is_needed_again() -> None:
    world = World(BOTH_WAYS)
    world.begin(import_wh=1_000.0)
    world.sample(1, "t1", import_wh=1_000.0, export_wh=50.0)
    world.hear(evse=1, need=need(5_000.0, 6_000, 5_000.0))
    assert world.bounds() == (-10_000.0, 5_000.0)
    world.sample(1, "t1", import_wh=1_000.0, export_wh=9_550.0)
    assert world.bounds() == (-10_000.0, -10_000.0)


def test_a_vehicle_that_is_let_go_is_not_taken_for_one_that_is_full() -> None:
    world = World()
    world.begin()
    world.sample(1, "t1", power_w=-7_000.0)
    world.station.setpoints[0] = Setpoint(-2_000.0, world.now_ns, world.now_ns + 300 * NS_PER_S)
    world.at_s = 100
    world.sample(1, "t1", power_w=-2_000.0)
    world.station.release(0, world.now_ns)
    world.at_s = 105
    world.sample(1, "t1", power_w=-2_500.0)
    assert world.bounds() == (-7_000.0, 0.0)
    world.at_s = 140
    world.sample(1, "t1", power_w=-6_000.0)
    assert world.bounds() == (-6_000.0, 0.0)


def test_a_transaction_that_ends_after_a_restart_of_the_plant_ends_at_the_only_evse() -> None:
    world = World()
    (said, *_) = world.hear(
        transaction="9", ended=True, samples=(Sample(NOW_NS, {Metric.IMPORT_WH: 5_000.0}),)
    )
    assert world.problems == []
    assert said.values[Metric.IMPORT_WH] == 5_000.0


def test_a_need_heard_before_its_transaction_belongs_to_it() -> None:
    world = World()
    world.hear(evse=1, need=need(10_000.0, 3_700))
    world.begin()
    assert world.bounds() == (-10_000.0, -10_000.0)
    world.hear(transaction="t1", ended=True)
    world.begin()
    assert world.bounds() == (-11_000.0, 0.0)


def test_another_connector_that_is_free_does_not_end_a_transaction() -> None:
    world = World()
    world.begin()
    world.hear(evse=1, occupancy=FREE, is_aside=True)
    assert world.station.evses[1].occupancy is CHARGING
    world.hear(evse=1, occupancy=FREE)
    assert world.bounds() == (0.0, 0.0)


@pytest.mark.parametrize("evse", [0, 1])
def test_a_fault_is_said_and_offers_nothing(evse: int) -> None:
    world = World()
    world.begin()
    (said,) = world.hear(evse=evse, occupancy=Occupancy.FAULTED)
    assert said.values[Metric.MODE] == DeviceMode.FAULT
    assert world.bounds() == (0.0, 0.0)


def test_what_a_schedule_showed_is_what_it_was_set_to_until_it_ends() -> None:
    world = World()
    world.begin()
    until_ns = world.now_ns + 300 * NS_PER_S
    world.station.setpoints[0] = Setpoint(-4_000.0, world.now_ns, until_ns, is_seen=True)
    (said,) = world.sample(1, "t1", power_w=-4_000.0)
    assert said.values[Metric.SETPOINT_W] == -4_000.0
    assert said.values[Metric.MODE] == DeviceMode.COMMAND
    world.at_s = 301
    (said,) = world.sample(1, "t1", power_w=-7_000.0)
    assert Metric.SETPOINT_W not in said.values
    assert said.values[Metric.MODE] == DeviceMode.OWN


NUMBERS = st.floats(-1e9, 1e9) | st.just(NAN)
METERED = (Metric.POWER_W, Metric.IMPORT_WH, Metric.EXPORT_WH, Metric.SOC, Metric.VOLTAGE_V)
SAMPLES = st.builds(
    Sample,
    st.integers(0, 2**62),
    st.dictionaries(st.sampled_from(METERED), st.floats(-1e9, 1e9), min_size=1),
    st.integers(0, 3),
)
NEEDS = st.builds(Need, NUMBERS, st.integers(0, 2**62), NUMBERS, NUMBERS, NUMBERS)
EVENTS = st.builds(
    Event,
    evse=st.none() | st.integers(-1, 4),
    transaction=st.sampled_from(["", "a", "b"]),
    began=st.booleans(),
    ended=st.booleans(),
    occupancy=st.none() | st.sampled_from(Occupancy),
    is_aside=st.booleans(),
    samples=st.lists(SAMPLES, max_size=2).map(tuple),
    need=st.none() | NEEDS,
    alive=st.booleans(),
)


@given(st.lists(EVENTS, max_size=8), st.integers(0, 3), NUMBERS)
def test_whatever_is_said_limits_keep_to_the_nameplate(
    events: list[Event], evses_said: int, setpoint_w: float
) -> None:
    scopes = {0: Nameplate(5_000.0, 11_000.0), 2: Nameplate(0.0, 7_000.0)}
    station = Station()
    station.evses_said = evses_said
    station.setpoints[0] = Setpoint(setpoint_w, NOW_NS, NOW_NS + 60 * NS_PER_S, is_seen=True)
    for turn, event in enumerate(events):
        now_ns = NOW_NS + turn * 40 * NS_PER_S
        said, problems = station.apply(event, scopes, now_ns)
        assert all("; " in problem for problem in problems)
        for one in said:
            plate = scopes[one.scope]
            low, high = one.values[Metric.MIN_W], one.values[Metric.MAX_W]
            assert -plate.down_w <= low <= high <= plate.up_w
            if not station.active(one.scope):
                assert low == high == 0
        assert len(station.evses) <= 5
