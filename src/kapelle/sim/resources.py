"""Named resources of a simulated fleet, and what truly comes of orders that share devices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kapelle.fleet.plant import PlantView
from kapelle.model.enums import DeviceKind, OrderStatus
from kapelle.model.ids import ALL, Flags
from kapelle.model.plant import Members
from kapelle.sim.devices import Devices
from kapelle.sim.physics import Physics

_ARRIVED = 0.02
"""Within this part of where it is sent a device has arrived."""


@dataclass(frozen=True, slots=True)
class ResourcePlan:
    """Which devices a resource has: of these kinds and vendors; of any where none are named."""

    kind: Sequence[str] = ()
    vendor: Sequence[str] = ()


def members(devices: Devices, plan: ResourcePlan) -> Flags:
    """Tell which devices a resource has."""
    found = np.ones(len(devices), np.bool_)
    if plan.kind:
        found &= np.isin(devices.kind, [DeviceKind[name.upper()] for name in plan.kind])
    if plan.vendor:
        vendors = {name.encode() for name in plan.vendor}
        found &= np.array([vendor in vendors for vendor in devices.enrolled.vendor])
    return found


def told(
    devices: Devices, plans: Mapping[str, ResourcePlan], partition: int, partitions: int
) -> list[Members]:
    """Return what the registry tells a partition about its resources."""
    numbers = devices.enrolled.device_no
    mine = numbers % partitions == partition
    return [
        Members(name, numbers[mine & members(devices, plan)].tolist())
        for name, plan in sorted(plans.items())
    ]


class NetPower:
    """The true power of each resource, but for what its devices do for orders on others.

    A device is an order's from the moment that order's setpoint reaches it. What it has not yet
    left of the setpoint before is still the other's.
    """

    def __init__(self, devices: Devices, plans: Mapping[str, ResourcePlan]) -> None:
        count = len(devices)
        self._rows = {name: members(devices, plan) for name, plan in sorted(plans.items())}
        self._rows[ALL] = np.ones(count, np.bool_)
        self.power_w: dict[str, list[float]] = {name: [] for name in self._rows}
        """By resource, a value for each step."""
        self._follows = np.zeros(count, np.int64)
        """Whose setpoint each device is at; 0: nobody's."""
        self._at_w = np.full(count, np.nan)
        self._leaving = np.zeros(count, np.bool_)
        """Who was another order's and has not arrived where he is sent since."""

    def note(self, view: PlantView, physics: Physics) -> None:
        """Note a step."""
        active = sorted(
            (state.plan.rank, number, state.order.resource)
            for number, state in view.orders.items()
            if state.status == OrderStatus.ACTIVE and state.plan is not None
        )
        self._follow([(number, resource) for _, number, resource in active], physics)
        own_no = {resource: number for _, number, resource in active}
        goal_w = np.where(np.isnan(self._at_w), physics.own_w, self._at_w)
        low_w, high_w = np.minimum(physics.own_w, goal_w), np.maximum(physics.own_w, goal_w)
        theirs_w = physics.power_w - np.clip(physics.power_w, low_w, high_w)
        beyond_w = physics.power_w - physics.own_w
        for name, rows in self._rows.items():
            others = (self._follows != 0) & (self._follows != own_no.get(name, 0))
            net_w = physics.power_w - np.where(others, beyond_w, 0.0)
            net_w -= np.where(self._leaving & ~others, theirs_w, 0.0)
            self.power_w[name].append(float(net_w[rows].sum()))

    def _follow(self, active: Sequence[tuple[int, str]], physics: Physics) -> None:
        owner = np.zeros(len(self._follows), np.int64)
        for number, resource in reversed(active):
            owner[self._rows[resource]] = number
        setpoint_w = physics.setpoint_w
        is_told = ~np.isnan(setpoint_w)
        waits = is_told & (setpoint_w == self._at_w) & (self._follows != 0)
        owner = np.where(waits, self._follows, owner)
        self._leaving |= (owner != self._follows) & (self._follows != 0)
        wanted_w = physics.wanted_w()
        near_w = _ARRIVED * np.maximum(np.abs(wanted_w), 100.0)
        self._leaving &= np.abs(physics.power_w - wanted_w) > near_w
        self._follows, self._at_w = owner, setpoint_w.copy()
