"""A whole simulated fleet in one object: devices, their physics, their rules and their faults.

Virtual time and the simulated MQTT devices both drive it: call `step` a few times a second, send
what `reports` returns, hand over what arrives with `receive`.
"""

import numpy as np
from numpy.random import Generator

from kapelle.model.ids import Floats, Ints
from kapelle.sim.agents import Agents, Answers
from kapelle.sim.devices import Devices
from kapelle.sim.faults import FaultPlan, Faults
from kapelle.sim.measured import Measured, MeasuredWeather
from kapelle.sim.physics import Physics
from kapelle.sim.telemetry import Reports, Telemetry


class World:
    """Everything outside the plant. Rows are places in `devices`."""

    def __init__(
        self,
        devices: Devices,
        plan: FaultPlan,
        rng: Generator,
        now_ns: int,
        *,
        measured: Measured | None = None,
    ) -> None:
        # Each part has a stream of its own, so that more messages do not change the weather.
        physics_rng, agents_rng, telemetry_rng, faults_rng, weather_rng = rng.spawn(5)
        driver = None
        if measured is not None:
            down_w = devices.enrolled.nameplate_down_w
            driver = MeasuredWeather(measured, devices.feeder_codes(), down_w, weather_rng)
        self.devices = devices
        self.faults = Faults(plan, devices, faults_rng, now_ns)
        self.physics = Physics(devices, physics_rng, now_ns, driver)
        self.agents = Agents(
            devices.enrolled.revert_s,
            agents_rng,
            skew_ns=self.faults.skew_ns,
            opt_out=plan.opt_out,
        )
        self.telemetry = Telemetry(
            devices.enrolled.report_every_s,
            telemetry_rng,
            now_ns,
            skew_ns=self.faults.skew_ns,
            frozen=self.faults.frozen,
            faults=self.faults,
        )
        self.lost = np.empty(0, np.int32)
        """Who lost its communications in the last step."""
        self.back = np.empty(0, np.int32)
        """Who got them back in the last step."""

    def step(self, now_ns: int) -> Answers:
        """Advance everything to a later moment; return answers of devices that now act."""
        self.lost, self.back = self.faults.step(now_ns)
        if len(self.lost):
            self.agents.stop(self.faults.stopped(self.lost, now_ns))
        answers = self.agents.step(now_ns)
        setpoint_w = self.agents.setpoint_w
        local = self.faults.local(now_ns)
        # Whoever is taken over on site says yes to everything, and does as it is told there.
        self.physics.setpoint_w = np.where(local, np.nan, setpoint_w) if local.any() else setpoint_w
        self.physics.step(now_ns)
        self.telemetry.reset(self.faults, self.physics)
        return answers

    def reports(self, now_ns: int) -> Reports:
        """Return the reports due now of every device that can be heard."""
        rows = self.telemetry.due(now_ns)
        return self.telemetry.read(rows[self.faults.reachable[rows]], self.physics)

    def true_power_w(self) -> Floats:
        """Return what every device really does. [W]"""
        return self.physics.power_w

    def sum_w(self, rows: Ints | None = None) -> float:
        """Return the true power of all devices or of some. [W]"""
        power_w = self.physics.power_w if rows is None else self.physics.power_w[rows]
        return float(power_w.sum())
