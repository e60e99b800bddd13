"""Envelopes that change while an order runs, in the whole plant under virtual time."""

from math import inf

import numpy as np
import pytest

from kapelle.dispatch.caps.binding import in_force
from kapelle.dispatch.promise import parts_of
from kapelle.model.ids import PLANT, partition_topic
from kapelle.model.plant import Envelopes
from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import FaultPlan
from kapelle.sim.play import Play
from kapelle.sim.run import perform
from kapelle.sim.scenario import OrderPlan, Scenario
from kapelle.sim.stage import Stage

FEEDER = "feeder-001"
LOWERED_S, RAISED_S, END_S = 80.0, 130.0, 190.0
FOLLOWED_S = 8.0
"""A tick, a cycle, a command and the device's own pace. [s]"""


class Watched:
    """Lowers the envelope of one feeder to a third of what it does, and takes it away again."""

    def __init__(self) -> None:
        self.cap_w = inf
        self.at_s: list[float] = []
        self.feeder_w: list[float] = []
        self.said: list[str] = []

    async def act(self, play: Play, _: Stage) -> None:
        mine = np.array(play.devices.groups("feeder")) == FEEDER
        while True:
            await play.clock.sleep(1.0)
            now_s = play.elapsed_s()
            self.at_s.append(now_s)
            self.feeder_w.append(float(play.world.physics.power_w[mine].sum()))
            if self.cap_w == inf and now_s >= LOWERED_S:
                self.cap_w = self.feeder_w[-1] / 3.0
                await self.say(play, self.cap_w)
            if LOWERED_S + FOLLOWED_S < now_s < RAISED_S:
                order = play.view.orders[1]
                self.said += in_force(parts_of(play.view, "all"), order.committed_w)
            if self.feeder_w[-1] and now_s >= RAISED_S and play.view.envelopes.windows:
                await self.say(play, inf)

    async def say(self, play: Play, export_w: float) -> None:
        now_ns = play.clock.now_ns()
        body = Envelopes("feeder", [FEEDER], export_w, inf, 0, 1 << 62, "grid", now_ns)
        for topic in [*(partition_topic(p) for p in range(play.view.partitions)), PLANT]:
            await play.journal.append(topic, [body], writer="api")


def test_a_lowered_envelope_acts_at_once_and_others_make_up_for_it() -> None:
    watched = Watched()
    fleet = FleetPlan(devices=60, partitions=2, mix={"battery": 1.0}, devices_per_feeder=20)
    order = OrderPlan(at_s=20, duration_s=END_S - 20, fraction=0.4)
    done = perform(Scenario(END_S, fleet, FaultPlan(), (order,)), 1, act=watched.act)
    assert not done.play.problems
    at_s, feeder_w = np.array(watched.at_s), np.array(watched.feeder_w)
    kept = (at_s > LOWERED_S + FOLLOWED_S) & (at_s < RAISED_S)
    # Meters err and devices wander by a part of a percent about their setpoints.
    assert feeder_w[kept].max() <= watched.cap_w * 1.01
    back = at_s > RAISED_S + FOLLOWED_S
    assert feeder_w[back].mean() > 2.0 * watched.cap_w
    (result,) = done.result.orders
    assert result.delivered_mean == pytest.approx(1.0, abs=0.03)
    assert any(said.startswith(f"feeder {FEEDER} at its export limit of") for said in watched.said)
