"""A plant of batteries alone, driven by the real loop, whose stores are integrated in virtual time.

Beside it what a linear program that knows every device says is possible: the yardstick.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import highspy
import numpy as np

from kapelle.dispatch.control import step
from kapelle.dispatch.memory import ControlState, Running
from kapelle.dispatch.planning.groups import Groups, Window
from kapelle.dispatch.planning.lookahead import Ahead, Unplanned
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division
from kapelle.fleet.curve.rations import EFFICIENCY
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.profiles import largest_w
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.summary import summarise
from kapelle.model.entries import KIND_OF, Entry
from kapelle.model.enums import DeviceKind, Freshness, Metric
from kapelle.model.ids import ALL, NS_PER_S, PLANT, Floats
from kapelle.model.orders import Interval, Order, Plan
from kapelle.model.plant import Notice, Small
from kapelle.model.signals import Rationing

T0 = 1_700_000_000 * NS_PER_S
STEP_S = 15.0
EDGE_S = 6.0
"""Around the beginning of an interval time goes by the second. [s]"""
SETTINGS, FLEET = DispatchSettings(), FleetSettings()


@dataclass(frozen=True)
class Stores:
    """Batteries, each with power [W], energy [Wh] and state of charge of its own."""

    power_w: Floats
    energy_wh: Floats
    soc: Floats
    reserve: float = 0.1

    @property
    def give_wh(self) -> Floats:
        return np.maximum(self.soc - self.reserve, 0.0) * self.energy_wh * EFFICIENCY

    @property
    def take_wh(self) -> Floats:
        return (1.0 - self.soc) * self.energy_wh / EFFICIENCY


def drawn(seed: int, devices: int = 24) -> Stores:
    """Draw batteries that last from some minutes to some hours."""
    rng = np.random.default_rng(seed)
    power_w = rng.choice([3000.0, 5000.0, 10_000.0], devices)
    lasts_h = np.exp(rng.uniform(np.log(0.2), np.log(4.0), devices))
    return Stores(power_w, power_w * lasts_h, rng.uniform(0.2, 1.0, devices))


def feasible_w(stores: Stores, shape: Floats, length_h: float) -> float:
    """Return by how much a profile may be scaled up so that the devices, known one by one, can
    just do it: a linear program over every device and interval."""
    devices, count = len(stores.power_w), len(shape)
    cells = devices * count
    down = shape < 0
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    model = highspy.HighsLp()
    model.num_col_ = cells + 1
    model.col_cost_ = np.append(np.zeros(cells), -1.0)
    model.col_lower_ = np.zeros(cells + 1)
    able_w = np.where(shape != 0, stores.power_w[:, None], 0.0)
    model.col_upper_ = np.append(able_w.ravel(), np.inf)
    matrix, low, high = [], [], []
    for i in range(count):
        row = np.zeros(cells + 1)
        row[i:cells:count], row[cells] = 1.0, -abs(shape[i])
        matrix, low, high = [*matrix, row], [*low, 0.0], [*high, 0.0]
    for d in range(devices):
        for i in range(count):
            row = np.zeros(cells + 1)
            row[d * count : d * count + i + 1] = np.where(down[: i + 1], -length_h, length_h)
            matrix = [*matrix, row]
            low, high = [*low, -stores.take_wh[d]], [*high, stores.give_wh[d]]
    dense = np.array(matrix)
    rows, columns = np.nonzero(dense)
    model.num_row_ = len(dense)
    model.row_lower_, model.row_upper_ = np.array(low), np.array(high)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.append(0, np.cumsum(np.bincount(rows))).astype(np.int32)
    model.a_matrix_.index_ = columns.astype(np.int32)
    model.a_matrix_.value_ = dense[rows, columns]
    solver.passModel(model)
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return float(solver.getSolution().col_value[-1])


@dataclass
class Plant:
    """One partition of batteries, dispatch, and time."""

    stores: Stores
    fleet: Fleet = field(init=False)
    view: PlantView = field(init=False)
    state: ControlState = field(default_factory=ControlState)
    now_ns: int = T0
    said: list[Notice] = field(default_factory=list)
    setpoint_w: Floats = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.stores.power_w)
        fleet = Fleet.empty(0, 1, count)
        fleet.reserve(count)
        fleet.active[:] = fleet.connected[:] = True
        fleet.freshness[:] = Freshness.LIVE
        fleet.kind[:] = DeviceKind.BATTERY
        fleet.nameplate_up_w[:] = fleet.nameplate_down_w[:] = self.stores.power_w
        fleet.energy_wh[:], fleet.reserve_soc[:] = self.stores.energy_wh, self.stores.reserve
        fleet.value[Metric.SOC] = self.stores.soc
        fleet.revert_s[:], fleet.responses[:] = 120.0, 1000.0
        fleet.now_ns = self.now_ns
        self.fleet, self.view = fleet, PlantView(1)
        self.setpoint_w = np.zeros(count)

    @property
    def plan(self) -> Plan:
        found = self.view.orders[1].plan
        assert found is not None
        return found

    @property
    def rationing(self) -> Rationing | None:
        """What is in force for setpoints."""
        return division.rationing_of(self.fleet, ALL)

    def solve_with(self, solve: Callable[[Groups, Window], Ahead | Unplanned]) -> None:
        """Have plans of a running order made otherwise from now on."""
        self.state.running.setdefault(1, Running()).horizon.solve = solve

    def order(self, targets_w: Floats, length_s: float) -> None:
        """Order a profile of intervals that are equally long."""
        starts = self.now_ns + (np.arange(len(targets_w) + 1) * length_s * NS_PER_S).astype(int)
        profile = tuple(
            Interval(int(at), float(w)) for at, w in zip(starts[:-1], targets_w, strict=True)
        )
        self.say(
            Order(1, ALL, largest_w(profile), int(starts[0]), int(starts[-1]), T0, profile=profile)
        )

    def say(self, body: Small) -> None:
        position = self.view.position + 1
        apply_plant(self.view, Entry(PLANT, position, KIND_OF[type(body)], "test", 0, 0, body))

    def cycle(self) -> None:
        """Tell, decide, follow: what happens once a second, without the way in between."""
        fleet = self.fleet
        fleet.now_ns = self.now_ns
        self.say(summarise(fleet, FLEET))
        out = step(self.state, self.view, self.now_ns, 1, SETTINGS)
        for body in [*out.plans, *out.notices]:
            self.say(body)
        self.said += out.notices
        for signal in out.signals:
            fleet.signals[signal.resource] = signal
        signal = fleet.signals.get(ALL)
        self.setpoint_w = np.zeros(fleet.size)
        if signal is not None and signal.order_no:
            rationing = division.rationing_of(fleet, ALL)
            wanted_w = division.setpoints(
                fleet,
                np.arange(fleet.size, dtype=np.int32),
                signal.level,
                signal.block_level,
                division.horizon_s(fleet, ALL, rationing),
                rationing,
            )
            self.setpoint_w = np.nan_to_num(wanted_w)

    def run(self, seconds: float) -> float:
        """Follow setpoints for a while; return the energy that was given. [Wh]"""
        wanted_wh = self.setpoint_w * (seconds / 3600.0)
        soc, energy_wh = self.fleet.value[Metric.SOC].copy(), self.stores.energy_wh
        give_wh = np.maximum(soc - self.stores.reserve, 0.0) * energy_wh * EFFICIENCY
        moved_wh = np.clip(wanted_wh, -(1.0 - soc) * energy_wh / EFFICIENCY, give_wh)
        inside_wh = np.where(moved_wh > 0, moved_wh / EFFICIENCY, moved_wh * EFFICIENCY)
        self.fleet.value[Metric.SOC] = soc - inside_wh / energy_wh
        self.fleet.estimate_w[:] = moved_wh * (3600.0 / seconds)
        self.now_ns += round(seconds * NS_PER_S)
        return float(moved_wh.sum())

    def delivered(self, targets_w: Floats, length_s: float) -> Floats:
        """Order a profile and let it run; return the mean power of each interval but for its
        first seconds, in which plans change hands. [W]"""
        self.order(targets_w, length_s)
        means = []
        for _ in targets_w:
            given_wh = elapsed_s = 0.0
            while elapsed_s < length_s:
                self.cycle()
                is_edge = elapsed_s < EDGE_S or length_s - elapsed_s <= EDGE_S
                last_s = 1.0 if is_edge else min(STEP_S, length_s - elapsed_s - EDGE_S)
                moved_wh = self.run(last_s)
                given_wh += moved_wh if elapsed_s >= EDGE_S else 0.0
                elapsed_s += last_s
            means.append(given_wh * 3600.0 / (length_s - EDGE_S))
        return np.array(means)
