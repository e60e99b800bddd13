"""A plant of two partitions for dispatch to drive, that says what a test tells it to."""

import msgspec

from kapelle.dispatch.control import step
from kapelle.dispatch.memory import ControlState, Outcome
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.model.entries import KIND_OF, Entry
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.orders import Order, Plan
from kapelle.model.plant import Small
from kapelle.model.summaries import Curve, ResourceSummary, Silence, Summary

SETTINGS = DispatchSettings()
EPOCH = 3


def s(seconds: float) -> int:
    """Return a moment of the play. [ns]"""
    return 1_000 * NS_PER_S + int(seconds * NS_PER_S)


class Plant:
    """Two partitions; each could go from 0 to 10 kW up and 4 kW down on `all` and `north`."""

    def __init__(self) -> None:
        self.view = PlantView(2)
        self.state = ControlState()
        self.position = 0
        self.up_w, self.down_w = 10_000.0, 4_000.0
        self.power_w, self.uncontrolled_w, self.own_w = 0.0, 0.0, 0.0
        self.vendors = {"acme": [40, 40], "bolt": [20, 20]}
        self.excluded: dict[str, int] = {}
        self.fading_w = self.fading_up_w = 0.0
        self.doubt_up_w = self.doubt_most_w = 0.0
        self.phases = [0] * 18
        self.silences: dict[str, Silence] = {}

    def say(self, body: Small) -> None:
        self.position += 1
        apply_plant(
            self.view,
            Entry(PLANT, self.position, KIND_OF[type(body)], "test", 0, 0, body),
        )

    def summary(self, partition: int, at_s: float) -> Summary:
        part = ResourceSummary(
            resource="all",
            devices=30,
            power_w=self.power_w / 2,
            variance_w2=100.0,
            shared_std_w={},
            measured_w=self.power_w / 2,
            freshness=[0, 30, 0, 0, 0],
            oldest_age_s=2.0,
            nameplate_w=30_000.0,
            uncontrolled_w=self.uncontrolled_w / 2,
            headroom_up_w=self.up_w,
            headroom_down_w=self.down_w,
            commanded_w=0.0,
            continuous=Curve(
                [-1024.0, -1.0, 0.0, 1.0, 1024.0],
                [
                    self.own_w - self.down_w,
                    self.own_w - self.down_w,
                    self.own_w,
                    self.own_w + self.up_w,
                    self.own_w + self.up_w,
                ],
            ),
            blocks=Curve([-1024.0, 0.0, 1024.0], [0.0, 0.0, 0.0]),
            phases=list(self.phases),
            excluded=self.excluded,
            by_kind_w={},
            vendors={name: [n // 2, m // 2] for name, (n, m) in self.vendors.items()},
            measured_nameplate_w=30_000.0,
            fading_w=self.fading_w / 2,
            fading_up_w=self.fading_up_w / 2,
            doubt_up_w=self.doubt_up_w / 2,
            doubt_most_w=self.doubt_most_w,
            silences=self.silences,
        )
        north = msgspec.structs.replace(part, resource="north")
        return Summary(partition, s(at_s), 1, [part, north])

    def step(self, at_s: float, summaries: bool = True) -> Outcome:
        if summaries:
            for partition in range(2):
                self.say(self.summary(partition, at_s))
        out = step(self.state, self.view, s(at_s), EPOCH, SETTINGS)
        for body in [*out.plans, *out.notices]:
            self.say(body)
        return out

    def order(self, target_w: float, no: int = 1, resource: str = "all", **other: float) -> None:
        starts_s, ends_s = other.get("starts_s", 0.0), other.get("ends_s", 600.0)
        self.say(Order(no, resource, target_w, s(starts_s), s(ends_s), s(0)))


def only(plans: list[Plan]) -> Plan:
    (plan,) = plans
    return plan
