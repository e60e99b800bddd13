"""What the devices do: all of them at once, one array per quantity. Positive is export."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from kapelle.model.enums import DeviceKind
from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints, Longs
from kapelle.sim.devices import Devices
from kapelle.sim.weather import Driver, Weather

EFFICIENCY = 0.95
"""Of a battery, each way."""
_COMFORT_K = 2.0
"""Half the width of the band a thermostat keeps by itself. [K]"""
_OVERRIDE_K = 3.0
"""Beyond this the thermostat overrides any order. [K]"""
_LOAD_MIN = 0.2
"""Share of a curtailable load that cannot be curtailed."""


class Physics:
    """State of every device. `setpoint_w` is the only thing others write; NaN: own schedule."""

    def __init__(
        self, devices: Devices, rng: Generator, now_ns: int, driver: Driver | None = None
    ) -> None:
        block, n = devices.enrolled, len(devices)
        kind = block.kind
        self._driver: Driver = driver or Weather(
            devices.feeder_codes(), block.nameplate_down_w, rng
        )
        self._rng = rng
        self.now_ns = now_ns
        self._up_w = block.nameplate_up_w
        self._down_w = block.nameplate_down_w
        self._floor_w = devices.floor_w
        self._tau_s = rng.uniform(0.3, 1.5, size=n)
        self._ramp_w_per_s = np.where(np.isnan(block.ramp_w_per_s), np.inf, block.ramp_w_per_s)

        self._battery = _rows(kind, DeviceKind.BATTERY)
        self._pv = _rows(kind, DeviceKind.PV)
        self._ev = _rows(kind, DeviceKind.EV)
        self._heat = _rows(kind, DeviceKind.HEAT_PUMP, DeviceKind.WATER_HEATER)
        self._load = _rows(kind, DeviceKind.LOAD)
        self._generator = _rows(kind, DeviceKind.GENERATOR)

        self._energy_wh = block.energy_wh
        self._reserve = block.reserve_soc
        self.soc = np.full(n, np.nan)
        self.soc[self._battery] = rng.uniform(0.45, 0.9, size=len(self._battery))
        self._self_consuming = rng.random(n) < 0.5

        self.need_wh = np.zeros(n)
        """What the car that is plugged in still wants. [Wh]"""
        self._arrives_ns = np.zeros(n, np.int64)
        self._departs_ns = np.zeros(n, np.int64)
        self._plug_in_at_start()

        self.warmth_k = np.zeros(n)
        """Distance of a heated room or tank from the middle of its band. [K]"""
        self.warmth_k[self._heat] = rng.uniform(-_COMFORT_K, _COMFORT_K, size=len(self._heat))
        self._on = rng.random(n) < 0.4
        self._cooling_k_per_s = rng.uniform(1.5, 3.0, size=n) / 3600
        self._heating_k_per_s = self._cooling_k_per_s * rng.uniform(2.2, 3.5, size=n)

        self.setpoint_w = np.full(n, np.nan)
        self.own_w = np.zeros(n)
        """What each device would do now without orders. [W]"""
        self.max_w = np.zeros(n)
        self.min_w = np.zeros(n)
        self.export_wh = rng.uniform(0, 5e6, size=n)
        self.import_wh = rng.uniform(0, 5e6, size=n)
        self._driver.step(now_ns, 0.0)
        self._decide()
        self.power_w = np.clip(self.own_w, self.min_w, self.max_w)

    def step(self, now_ns: int) -> None:
        """Advance to a later moment; a second at most keeps ramps and bounds exact enough."""
        dt_s = (now_ns - self.now_ns) / NS_PER_S
        if dt_s <= 0:
            return
        self.now_ns = now_ns
        self._driver.step(now_ns, dt_s)
        self._come_and_go()
        self._decide()
        self._move(dt_s)
        self._store(dt_s)

    def _move(self, dt_s: float) -> None:
        """Approach what is wanted: first-order lag, within the ramp; switches switch at once."""
        wanted_w = self.wanted_w()
        step_w = (wanted_w - self.power_w) * -np.expm1(-dt_s / self._tau_s)
        limit_w = self._ramp_w_per_s * dt_s
        np.clip(step_w, -limit_w, limit_w, out=step_w)
        step_w[self._heat] = (wanted_w - self.power_w)[self._heat]
        self.power_w += step_w
        # Sun, cars and full batteries do not wait for a ramp.
        np.clip(self.power_w, self.min_w, self.max_w, out=self.power_w)

    def wanted_w(self, setpoint_w: Floats | None = None) -> Floats:
        """Return where each device is heading: its setpoint within what is possible, or its own.

        With other setpoints than those in force: where it would be heading then.
        """
        setpoint_w = self.setpoint_w if setpoint_w is None else setpoint_w
        wanted_w = np.where(np.isnan(setpoint_w), self.own_w, setpoint_w)
        heat = self._heat
        half_w = -0.5 * self._down_w[heat]
        wanted_w[heat] = np.where(wanted_w[heat] < half_w, -self._down_w[heat], 0.0)
        # A charger cannot hold less than its floor: it pauses instead.
        wanted_w[(wanted_w < 0) & (wanted_w > -self._floor_w)] = 0.0
        return np.clip(wanted_w, self.min_w, self.max_w)

    def _store(self, dt_s: float) -> None:
        """Book energy: registers, batteries, cars and warmth."""
        energy_wh = self.power_w * (dt_s / 3600)
        self.export_wh += np.maximum(energy_wh, 0.0)
        self.import_wh += np.maximum(-energy_wh, 0.0)

        rows = self._battery
        flow_wh = energy_wh[rows]
        inside_wh = np.where(flow_wh > 0, flow_wh / EFFICIENCY, flow_wh * EFFICIENCY)
        self.soc[rows] = np.clip(self.soc[rows] - inside_wh / self._energy_wh[rows], 0.0, 1.0)

        rows = self._ev
        self.need_wh[rows] = np.maximum(self.need_wh[rows] + energy_wh[rows], 0.0)

        rows = self._heat
        heating = self.power_w[rows] < -0.5 * self._down_w[rows]
        rate = np.where(heating, self._heating_k_per_s[rows], 0.0) - self._cooling_k_per_s[rows]
        self.warmth_k[rows] += rate * dt_s

    def _plug_in_at_start(self) -> None:
        """Let some six in ten cars be in the middle of a session."""
        rows = self._ev
        cars = self._driver.next_car(rows, self.now_ns)
        early = self._rng.random(len(rows)) < 0.6
        stay_ns = cars.departs_ns - cars.arrives_ns
        gone = (stay_ns * self._rng.uniform(0.0, 0.5, size=len(rows))).astype(np.int64)
        arrives_ns = np.where(early, self.now_ns - gone, cars.arrives_ns)
        self._arrives_ns[rows] = arrives_ns
        self._departs_ns[rows] = arrives_ns + stay_ns
        self._next_need_wh = np.zeros(len(self.need_wh))
        self._next_need_wh[rows] = cars.need_wh
        self.need_wh[rows] = np.where(early, cars.need_wh, 0.0)

    def _come_and_go(self) -> None:
        rows = self._ev
        plugged = self._arrives_ns[rows] <= self.now_ns
        arrived = rows[plugged & (self._next_need_wh[rows] > 0)]
        self.need_wh[arrived] = self._next_need_wh[arrived]
        self._next_need_wh[arrived] = 0.0
        left = rows[plugged & (self._departs_ns[rows] <= self.now_ns)]
        if len(left):
            cars = self._driver.next_car(left, self.now_ns)
            self.need_wh[left] = 0.0
            self._arrives_ns[left] = cars.arrives_ns
            self._departs_ns[left] = cars.departs_ns
            self._next_need_wh[left] = cars.need_wh

    def _decide(self) -> None:
        """Set what each device would do by itself, and how far it could go now."""
        sun, load = self._driver.sun(), self._driver.load()
        up_w, down_w = self._up_w, self._down_w

        rows = self._battery
        self.max_w[rows] = np.where(self.soc[rows] > self._reserve[rows], up_w[rows], 0.0)
        self.min_w[rows] = np.where(self.soc[rows] < 1.0, -down_w[rows], 0.0)
        house_w = np.where(self._self_consuming[rows], 0.35 * load[rows] * up_w[rows], 0.0)
        self.own_w[rows] = np.where(self.soc[rows] > self._reserve[rows] + 0.02, house_w, 0.0)

        rows = self._pv
        self.max_w[rows] = self.own_w[rows] = up_w[rows] * sun[rows]

        rows = self._ev
        charging = (self._arrives_ns[rows] <= self.now_ns) & (self.need_wh[rows] > 0)
        self.min_w[rows] = self.own_w[rows] = np.where(charging, -down_w[rows], 0.0)

        self._thermostats()

        rows = self._load
        self.own_w[rows] = self.min_w[rows] = -down_w[rows] * load[rows]
        self.max_w[rows] = _LOAD_MIN * self.own_w[rows]

        rows = self._generator
        self.max_w[rows] = up_w[rows]

    def _thermostats(self) -> None:
        """Switch at the edges of the band; beyond it comfort goes before any order."""
        rows = self._heat
        warmth, down_w = self.warmth_k[rows], self._down_w[rows]
        self._on[rows] = (warmth < -_COMFORT_K) | (self._on[rows] & (warmth < _COMFORT_K))
        self.own_w[rows] = np.where(self._on[rows], -down_w, 0.0)
        self.max_w[rows] = np.where(warmth < -_OVERRIDE_K, -down_w, 0.0)
        self.min_w[rows] = np.where(warmth > _OVERRIDE_K, 0.0, -down_w)

    def plugged(self) -> Flags:
        """Return which chargers have a car that wants energy."""
        here: Flags = (self._arrives_ns <= self.now_ns) & (self.need_wh > 0)
        return here

    def sessions(self) -> tuple[Longs, Longs]:
        """Return arrival and departure of each charger's present or next car. [ns]"""
        return self._arrives_ns, self._departs_ns


def _rows(kind: NDArray[np.uint8], *kinds: DeviceKind) -> Ints:
    return np.flatnonzero(np.isin(kind, kinds)).astype(np.int32)
