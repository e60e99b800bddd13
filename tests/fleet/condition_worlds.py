"""Simulated fleets folded directly, whose meters can be made to lie: hours pass in seconds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from fleet_worlds import T0, entry

from kapelle.fleet.columns import Fleet
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.settings import FleetSettings
from kapelle.model.blocks import Acks, Commands, Readings, Sessions
from kapelle.model.entries import Body
from kapelle.model.enums import AckStatus, Condition, DeviceKind, Metric, SessionEvent, Standing
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Notice, Tick
from kapelle.sim.devices import FleetPlan, make_fleet
from kapelle.sim.physics import Physics
from kapelle.sim.telemetry import Telemetry

ALL_KINDS = {kind.name.lower(): 1.0 for kind in DeviceKind}
Values = dict[Metric, np.ndarray]
Lie = Callable[[np.ndarray, Values], None]
"""Changes what the given devices say, in place."""


@dataclass
class World:
    devices: int = 200
    seed: int = 1
    period_s: float = 60.0
    step_s: float = 20.0
    mix: Mapping[str, float] = field(default_factory=lambda: dict(ALL_KINDS))
    starts_at_h: float = 0.0
    lie: Lie | None = None
    skew_s: float = 0.0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        plan = FleetPlan(self.devices, 1, self.period_s, self.mix)
        self.made = make_fleet(plan, rng)
        midnight_ns = T0 - T0 % (86_400 * NS_PER_S)
        self.now_ns = midnight_ns + round(self.starts_at_h * 3600) * NS_PER_S
        self.physics = Physics(self.made, rng, self.now_ns)
        skew_ns = np.full(self.devices, round(self.skew_s * NS_PER_S), np.int64)
        period = np.full(self.devices, self.period_s)
        self.meters = Telemetry(period, rng, self.now_ns, skew_ns=skew_ns)
        self.fleet = Fleet.empty()
        self.notices: list[Notice] = []
        self.ever = np.zeros(self.devices, np.uint16)
        self.silent = np.zeros(self.devices, np.bool_)
        self.settings = FleetSettings()
        self.revision = 0
        self.say(self.made.enrolled)
        self.session(np.arange(self.devices), SessionEvent.UP, 1)

    @property
    def kind(self) -> np.ndarray:
        """Return the kind of each device."""
        return self.made.kind[np.argsort(self.made.enrolled.device_no)]

    def say(self, *bodies: Body) -> None:
        for body in bodies:
            apply_entry(self.fleet, entry(self.fleet.position + 1, body), self.settings)

    def session(self, rows: np.ndarray, event: SessionEvent, number: int) -> None:
        count = len(rows)
        self.say(
            Sessions(
                rows.astype(np.int32),
                np.full(count, event, np.uint8),
                np.full(count, number, np.int64),
                np.full(count, self.now_ns, np.int64),
            )
        )

    def run(self, seconds: float) -> None:
        """Let time pass: devices live and report, ticks come."""
        for _ in range(round(seconds / self.step_s)):
            self.now_ns += round(self.step_s * NS_PER_S)
            self.physics.step(self.now_ns)
            self._report()
            self.say(Tick(self.now_ns))
            self.notices += self.fleet.notices
            self.ever |= self.fleet.condition[: self.devices]

    def _report(self) -> None:
        rows = self.meters.due(self.now_ns)
        rows = rows[~self.silent[rows]]
        if not len(rows):
            return
        said = self.meters.read(rows, self.physics)
        number = self.made.enrolled.device_no[rows]
        values = dict(said.values)
        if self.lie is not None:
            self.lie(rows, values)
        self.say(
            Readings(
                number,
                said.order,
                said.at_ns,
                np.full(len(rows), self.now_ns + NS_PER_S // 2, np.int64),
                np.zeros(len(rows), np.uint8),
                values,
            )
        )

    def order(
        self,
        rows: np.ndarray,
        setpoint_w: np.ndarray | float,
        *,
        obey: bool = True,
        answer: AckStatus | None = AckStatus.APPLIED,
        order_no: int = 1,
    ) -> None:
        """Ask devices (places of the physics), who obey or only say so."""
        self.revision += 1
        setpoint = np.broadcast_to(np.asarray(setpoint_w, np.float64), len(rows)).copy()
        number = self.made.enrolled.device_no[rows]
        count, at = len(rows), np.full(len(rows), self.now_ns, np.int64)
        revision, epoch = np.full(count, self.revision, np.int64), np.ones(count, np.int64)
        self.say(
            Commands(
                number,
                np.full(count, order_no, np.int32),
                revision,
                epoch,
                np.ones(count, np.int32),
                setpoint,
                at,
                at + 10 * NS_PER_S,
                np.full(count, 10.0),
                np.full(count, 120.0),
            )
        )
        if obey:
            self.physics.setpoint_w[rows] = setpoint
        if answer is not None:
            status = np.full(count, answer, np.uint8)
            self.say(Acks(number, revision, epoch, status, at, (b"",) * count))

    def having(self, bit: Condition) -> set[int]:
        """Return the places (of the physics) of the devices that have a condition now."""
        number = self.made.enrolled.device_no
        return set(np.flatnonzero(self.fleet.condition[number] & np.uint16(bit)).tolist())

    def ever_having(self, bit: Condition) -> set[int]:
        number = self.made.enrolled.device_no
        return set(np.flatnonzero(self.ever[number] & np.uint16(bit)).tolist())

    def standing(self, place: int) -> Standing:
        return Standing(int(self.fleet.standing[self.made.enrolled.device_no[place]]))

    def of(self, *kinds: DeviceKind) -> np.ndarray:
        """Return the places of devices of some kinds."""
        return np.flatnonzero(np.isin(self.made.kind, kinds))


def only(victims: np.ndarray, change: Callable[[Values, np.ndarray], None]) -> Lie:
    """Let a lie be told by these places alone: `change(values, which rows)`."""

    def lie(rows: np.ndarray, values: Values) -> None:
        which = np.flatnonzero(np.isin(rows, victims))
        if len(which):
            change(values, which)

    return lie
