"""A plant in a box: simple devices, lossy air; fold, decide and control called directly."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from kapelle.dispatch.control import step
from kapelle.dispatch.delivery import decide
from kapelle.dispatch.memory import ControlState
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.columns import Fleet
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.summary import summarise
from kapelle.model.blocks import Acks, Commands, Enrolled, Phases, Readings, Sessions
from kapelle.model.entries import KIND_OF, Body, Entry
from kapelle.model.enums import AckStatus, DeviceKind, Metric, Phase, SessionEvent
from kapelle.model.ids import NS_PER_S, PLANT, partition_topic
from kapelle.model.orders import Order, Plan
from kapelle.model.plant import Notice, Tick
from kapelle.model.signals import Signal

START_NS = 1_800_000_000 * NS_PER_S
VENDORS = (b"acme", b"bolt", b"core", b"dyna")


@dataclass
class Faults:
    dead: float = 0.0
    """Fall silent when the first order starts, and obey nothing."""
    command_loss: float = 0.0
    ack_loss: float = 0.0
    command_latency_s: float = 1.5
    telemetry_delay_s: float = 0.5
    telemetry_loss: float = 0.0
    frozen: float = 0.0
    vendor_lost_at_s: float = -1.0
    vendor_back_at_s: float = 1e9
    deaf: float = 0.0
    """Report, and obey nothing."""


@dataclass
class Box:
    """Everything at a quarter of a second."""

    devices: int = 500
    partitions: int = 2
    seed: int = 1
    faults: Faults = field(default_factory=Faults)
    settings: DispatchSettings = field(default_factory=DispatchSettings)
    cadence_s: float = 4.0
    revert_s: float = 120.0
    mix: tuple[float, ...] = (0.5, 0.2, 0.15, 0.05, 0.05, 0.05)
    slow: float = 0.0
    """Part of the devices that move by a hundredth of nameplate a second."""

    def __post_init__(self) -> None:
        n, draw = self.devices, np.random.default_rng(self.seed)
        self.draw = draw
        self.now_s = 0.0
        self.fleets = [Fleet.empty(p, self.partitions) for p in range(self.partitions)]
        self.view = PlantView(self.partitions)
        self.control = ControlState()
        self.plans: list[Plan] = []
        self.notices: list[Notice] = []
        self.signals: list[Signal] = []
        self.commands_sent = 0
        self.positions = dict.fromkeys([PLANT, *map(partition_topic, range(self.partitions))], 0)

        self.kind = draw.choice(len(self.mix), n, p=self.mix).astype(np.uint8)
        self.vendor = draw.choice(len(VENDORS), n, p=[0.4, 0.25, 0.2, 0.15])
        gives = np.isin(self.kind, (DeviceKind.BATTERY, DeviceKind.PV))
        self.up_w = np.where(gives, draw.uniform(2000, 8000, n), 0.0)
        self.down_w = np.where(self.kind == DeviceKind.PV, 0.0, draw.uniform(2000, 8000, n))
        rating_w = np.maximum(self.up_w, self.down_w)
        self.ramp_w_per_s = np.where(np.arange(n) < self.slow * n, 0.01 * rating_w, np.inf)
        self.energy_wh = np.where(self.kind == DeviceKind.BATTERY, 2.0 * self.up_w, np.nan)
        self.soc = draw.uniform(0.3, 0.9, n)
        on = draw.random(n) < 0.6
        self.own_w = np.select(
            [self.kind == DeviceKind.BATTERY, self.kind == DeviceKind.PV],
            [draw.uniform(-0.1, 0.1, n) * self.up_w, draw.uniform(0.2, 0.7, n) * self.up_w],
            -1.0 * on * self.down_w * np.where(np.isin(self.kind, (3, 4)), 1.0, 0.7),
        )
        self.power_w = self.own_w.copy()
        self.setpoint_w = np.full(n, np.nan)
        self.revision = np.zeros(n, np.int64)
        self.reverts_s = np.full(n, np.inf)
        self.silent = np.zeros(n, bool)
        self.doomed = draw.permutation(n) < round(self.faults.dead * n)
        self.deaf = draw.permutation(n) < round(self.faults.deaf * n)
        self.frozen = draw.permutation(n) < round(self.faults.frozen * n)
        self.reports_s = draw.uniform(0, self.cadence_s, n)
        self.seq = np.zeros(n, np.int64)
        self.air: list[tuple[float, int, Callable[[], None]]] = []
        self.truth: list[tuple[float, float]] = []
        self.session = np.zeros(n, np.int64)
        self.double_effects = 0
        self.effects = np.zeros(n, np.int64)
        self._enrol()

    # ------------------------------------------------------------------ journal, in memory

    def say(self, topic: str, body: Body, writer: str = "test") -> None:
        self.positions[topic] += 1
        entry = Entry(
            topic, self.positions[topic], KIND_OF[type(body)], writer, 1, self.now_ns, body
        )
        if topic == PLANT:
            apply_plant(self.view, entry)
        else:
            apply_entry(self.fleets[int(topic[2:])], entry, self.fleet_settings)

    fleet_settings = FleetSettings()

    @property
    def now_ns(self) -> int:
        return START_NS + round(self.now_s * NS_PER_S)

    def _enrol(self) -> None:
        every = np.arange(self.devices, dtype=np.int32)
        for p in range(self.partitions):
            no = every[every % self.partitions == p]
            blank = (b"",) * len(no)
            self.say(
                partition_topic(p),
                Enrolled(
                    device_no=no,
                    active=np.ones(len(no), np.uint8),
                    kind=self.kind[no],
                    device_id=tuple(b"d%d" % i for i in no),
                    site=blank,
                    vendor=tuple(VENDORS[v] for v in self.vendor[no]),
                    model=blank,
                    zone=blank,
                    feeder=blank,
                    provider=blank,
                    adapter=blank,
                    address=blank,
                    nameplate_up_w=self.up_w[no],
                    nameplate_down_w=self.down_w[no],
                    energy_wh=self.energy_wh[no],
                    reserve_soc=np.full(len(no), 0.1),
                    ramp_w_per_s=np.where(
                        np.isinf(self.ramp_w_per_s[no]), np.nan, self.ramp_w_per_s[no]
                    ),
                    revert_s=np.full(len(no), self.revert_s),
                    report_every_s=np.full(len(no), self.cadence_s),
                ),
            )
        self._sessions(every, SessionEvent.UP)

    def _sessions(self, no: np.ndarray, event: SessionEvent) -> None:
        if event == SessionEvent.UP:
            self.session[no] += 1
        for p in range(self.partitions):
            mine = no[no % self.partitions == p].astype(np.int32)
            if len(mine):
                self.say(
                    partition_topic(p),
                    Sessions(
                        device_no=mine,
                        event=np.full(len(mine), event, np.uint8),
                        session=self.session[mine],
                        at_ns=np.full(len(mine), self.now_ns, np.int64),
                    ),
                )

    # ------------------------------------------------------------------ devices and air

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        self.air.append((self.now_s + delay_s, len(self.air), act))

    def _deliver(self) -> None:
        due = sorted((a for a in self.air if a[0] <= self.now_s), key=lambda a: a[:2])
        self.air = [a for a in self.air if a[0] > self.now_s]
        for _, _, act in due:
            act()

    def _split(self, no: np.ndarray, delay_s: np.ndarray, act: Callable[..., None]) -> None:
        """Deliver rows in quarter-second groups."""
        slot = np.ceil(delay_s / 0.25).astype(int)
        for each in np.unique(slot):
            chosen = np.flatnonzero(slot == each)
            self._later(each * 0.25, lambda c=chosen: act(c))

    def _send(self, p: int, commands: Commands) -> None:
        self.commands_sent += len(commands)
        connected = self.fleets[p].connected[self.fleets[p].rows(commands.device_no)]
        went = np.flatnonzero(connected)
        if len(went):
            self.say(
                partition_topic(p),
                Phases(
                    device_no=commands.device_no[went],
                    revision=commands.revision[went],
                    phase=np.full(len(went), Phase.SENT, np.uint8),
                    at_ns=np.full(len(went), self.now_ns, np.int64),
                ),
            )
        kept = went[self.draw.random(len(went)) >= self.faults.command_loss]
        delay_s = self.draw.exponential(self.faults.command_latency_s, len(kept))
        self._split(kept, delay_s, lambda c: self._receive(p, commands, kept[c]))

    def _receive(self, p: int, commands: Commands, rows: np.ndarray) -> None:
        no = commands.device_no[rows]
        hears = ~self.silent[no] & ~self.deaf[no] & (commands.not_after_ns[rows] >= self.now_ns)
        rows, no = rows[hears], no[hears]
        newer = commands.revision[rows] > self.revision[no]
        again = commands.revision[rows] == self.revision[no]
        at, which = no[newer], rows[newer]
        self.revision[at] = commands.revision[which]
        self.setpoint_w[at] = commands.setpoint_w[which]
        self.effects[at] += 1
        self.reverts_s[at] = self.now_s + self.revert_s
        answers = np.concatenate([which, rows[again]])
        kept = answers[self.draw.random(len(answers)) >= self.faults.ack_loss]
        if len(kept):
            delay_s = self.draw.exponential(0.2, len(kept))
            self._split(
                kept,
                delay_s,
                lambda c: self.say(
                    partition_topic(p),
                    Acks(
                        device_no=commands.device_no[kept[c]],
                        revision=commands.revision[kept[c]],
                        epoch=commands.epoch[kept[c]],
                        status=np.full(len(c), AckStatus.APPLIED, np.uint8),
                        at_ns=np.full(len(c), self.now_ns, np.int64),
                        reason=(b"",) * len(c),
                    ),
                ),
            )

    def _physics(self, dt_s: float) -> None:
        over = self.reverts_s <= self.now_s
        self.setpoint_w[over], self.reverts_s[over] = np.nan, np.inf
        goal_w = np.where(np.isnan(self.setpoint_w), self.own_w, self.setpoint_w)
        goal_w = np.clip(goal_w, -self.down_w, self.up_w)
        pv = self.kind == DeviceKind.PV
        goal_w[pv] = np.minimum(goal_w[pv], self.own_w[pv])
        step_w = (goal_w - self.power_w) * (1 - np.exp(-dt_s / 0.7))
        self.power_w += np.clip(step_w, -self.ramp_w_per_s * dt_s, self.ramp_w_per_s * dt_s)
        with np.errstate(invalid="ignore"):
            self.soc -= np.nan_to_num(self.power_w * dt_s / 3600 / self.energy_wh)

    def _report(self) -> None:
        due = np.flatnonzero((self.reports_s <= self.now_s) & ~self.silent)
        self.reports_s[self.reports_s <= self.now_s] += self.cadence_s
        self.seq[due] += 1
        due = due[self.draw.random(len(due)) >= self.faults.telemetry_loss].astype(np.int32)
        if not len(due):
            return
        power_w = np.where(self.frozen[due], self.own_w[due], self.power_w[due])
        soc = np.where(self.kind[due] == DeviceKind.BATTERY, self.soc[due], np.nan)
        max_w = np.where(self.kind[due] == DeviceKind.PV, self.own_w[due], np.nan)
        min_w = np.where(np.isin(self.kind[due], (2, 5)), np.minimum(self.own_w[due], 0), np.nan)
        order, measured_ns = self.seq[due].copy(), self.now_ns

        def arrive(c: np.ndarray) -> None:
            for p in range(self.partitions):
                k = c[due[c] % self.partitions == p]
                if len(k):
                    self.say(
                        partition_topic(p),
                        Readings(
                            device_no=due[k],
                            order=order[k],
                            measured_at_ns=np.full(len(k), measured_ns, np.int64),
                            received_at_ns=np.full(len(k), self.now_ns, np.int64),
                            quality=np.zeros(len(k), np.uint8),
                            values={
                                Metric.POWER_W: power_w[k],
                                Metric.SOC: soc[k],
                                Metric.MAX_W: max_w[k],
                                Metric.MIN_W: min_w[k],
                            },
                        ),
                    )

        self._split(due, self.draw.exponential(self.faults.telemetry_delay_s, len(due)), arrive)

    # ------------------------------------------------------------------ the plant

    def _cycle(self) -> None:
        """A tick in every partition, summaries, one step of control, and what follows from it."""
        for p, fleet in enumerate(self.fleets):
            self.say(partition_topic(p), Tick(self.now_ns))
            self._decide(p)
            self.say(PLANT, summarise(fleet, self.fleet_settings))
        out = step(self.control, self.view, self.now_ns, 1, self.settings)
        for plan in out.plans:
            self.say(PLANT, plan)
        for signal in out.signals:
            for p in range(self.partitions):
                self.say(partition_topic(p), signal)
        for body in (*out.cancels, *out.notices):
            self.say(PLANT, body)
        self.plans += out.plans
        self.notices += out.notices
        self.signals += out.signals
        if out.signals:
            for p in range(self.partitions):
                self._decide(p)

    def _decide(self, p: int) -> None:
        bodies = decide(self.fleets[p], self.settings, 1)
        for body in bodies:
            self.say(partition_topic(p), body)
        for body in bodies:
            if isinstance(body, Commands):
                self._send(p, body)

    def order(
        self,
        target_w: float,
        for_s: float,
        resource: str = "all",
        order_no: int = 1,
        staged: bool = False,
        randomise_s: float = 0.0,
    ) -> Order:
        order = Order(
            order_no,
            resource,
            target_w,
            self.now_ns,
            self.now_ns + round(for_s * NS_PER_S),
            self.now_ns,
            staged=staged,
            randomise_s=randomise_s,
        )
        self.say(PLANT, order)
        self.silent |= self.doomed
        return order

    def run(self, until_s: float) -> None:
        while self.now_s < until_s:
            self.now_s += 0.25
            lost = self.vendor == 1
            if self.now_s == self.faults.vendor_lost_at_s:
                self.silent |= lost
            if self.now_s == self.faults.vendor_back_at_s:
                self.silent &= ~lost | self.doomed
                self._sessions(np.flatnonzero(lost & ~self.doomed), SessionEvent.UP)
            self._physics(0.25)
            self._report()
            self._deliver()
            if self.now_s % 1.0 == 0.0:
                self._cycle()
                self.truth.append((self.now_s, float(self.power_w.sum())))

    def share(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the times and the delivered part of the commitment."""
        plan = next(p for p in reversed(self.plans) if p.committed_w)
        t, power_w = np.array(self.truth).T
        return t, (power_w - plan.baseline_w) / plan.committed_w


def settled(t: np.ndarray, share: np.ndarray, from_s: float, band: float) -> float:
    """Return how long after `from_s` the share stays within a band for good."""
    after = t >= from_s
    outside = np.flatnonzero(after & (np.abs(share - 1.0) > band))
    return float(t[outside[-1]] + 1.0 - from_s) if len(outside) else 0.0


@pytest.fixture
def make_box() -> type[Box]:
    return Box


@pytest.fixture
def make_faults() -> type[Faults]:
    return Faults


@pytest.fixture
def settle_time() -> Callable[[np.ndarray, np.ndarray, float, float], float]:
    return settled
