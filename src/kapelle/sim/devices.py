"""Making a simulated fleet: who is there, where, from which maker, and how big."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from kapelle.model.blocks import Enrolled
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import Bytes, Floats, Ints

Name = TypeVar("Name", int, str)

MIX: Mapping[str, float] = {"battery": 0.5, "pv": 0.2, "ev": 0.2, "load": 0.1}
VENDORS: Mapping[str, float] = {
    "acme": 0.40,
    "bolt": 0.25,
    "core": 0.15,
    "dyna": 0.12,
    "eon": 0.08,
}
PROVIDERS: Mapping[str, float] = {"nordnet": 0.45, "telko": 0.35, "rural": 0.20}


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What kind of fleet to make. Shares need not sum to one; they are scaled."""

    devices: int = 2000
    partitions: int = 4
    telemetry_period_s: float = 4.0
    mix: Mapping[str, float] = field(default_factory=lambda: dict(MIX))
    vendors: Mapping[str, float] = field(default_factory=lambda: dict(VENDORS))
    providers: Mapping[str, float] = field(default_factory=lambda: dict(PROVIDERS))
    devices_per_feeder: int = 40
    devices_per_gateway: int = 100
    revert_s: float = 120.0
    no_revert_fraction: float = 0.0
    """Share of devices without a revert timer: they follow until they are told something else."""
    battery_h: Sequence[float] = (2.0, 2.7)
    """Hours a full battery can give all its power: of each size equally many. [h]"""
    ev_min_w: float = 0.0
    """Least power an EV charger can hold above zero; 0 for those that follow any setpoint."""


@dataclass(frozen=True, slots=True, eq=False)
class Devices:
    """A fleet as its makers built it: one entry per device in every column."""

    enrolled: Enrolled
    gateway: tuple[str, ...]
    """Which of the plant's gateways each device connects to."""
    floor_w: Floats
    """Least consumption above zero a device can hold; between it and zero it pauses. [W]"""

    def __len__(self) -> int:
        return len(self.enrolled)

    @property
    def kind(self) -> Bytes:
        """Return the kind of each device, as `DeviceKind` numbers."""
        return self.enrolled.kind

    def feeder_codes(self) -> Ints:
        """Return the feeder of each device as a number from 0."""
        _, codes = np.unique(np.array(self.enrolled.feeder), return_inverse=True)
        return codes.astype(np.int32)

    def groups(self, by: str) -> tuple[str, ...]:
        """Return the name each device bears in one grouping (vendor, provider, feeder, gateway)."""
        if by == "gateway":
            return self.gateway
        named: tuple[bytes, ...] = {
            "vendor": self.enrolled.vendor,
            "provider": self.enrolled.provider,
            "feeder": self.enrolled.feeder,
        }[by]
        return tuple(name.decode() for name in named)

    def rolling(self, rollover_wh: float) -> "Devices":
        """Return the same devices, registered with registers of whole Wh that end there. [Wh]"""
        if not rollover_wh > 0:
            return self
        declared = replace(
            self.enrolled,
            meter_rollover_wh=np.full(len(self), rollover_wh),
            meter_resolution_wh=np.ones(len(self)),
        )
        return replace(self, enrolled=declared)

    def part(self, partition: int, partitions: int) -> Enrolled:
        """Return the devices of one partition, as the registry would enrol them."""
        block = self.enrolled
        rows = np.flatnonzero(block.device_no % partitions == partition)
        columns = Enrolled.COLUMNS
        return Enrolled(**{name: _picked(getattr(block, name), rows) for name in columns})

    def rows(self) -> list[dict[str, str | float | None]]:
        """Return the fleet as rows of an import file; None where a device has no such value."""
        block = self.enrolled
        text = ("site", "vendor", "model", "zone", "feeder", "provider", "adapter", "address")
        numbers = (
            "nameplate_up_w",
            "nameplate_down_w",
            "energy_wh",
            "reserve_soc",
            "ramp_w_per_s",
            "revert_s",
            "report_every_s",
            "meter_rollover_wh",
            "meter_resolution_wh",
        )
        made: list[dict[str, str | float | None]] = []
        for i in range(len(block)):
            row: dict[str, str | float | None] = {
                "id": block.device_id[i].decode(),
                "kind": DeviceKind(int(block.kind[i])).name.lower(),
            }
            row |= {name: getattr(block, name)[i].decode() for name in text}
            values = {name: float(getattr(block, name)[i]) for name in numbers}
            row |= {name: None if math.isnan(value) else value for name, value in values.items()}
            made.append(row)
        return made


def make_fleet(plan: FleetPlan, rng: Generator) -> Devices:
    """Draw a fleet. The same plan and generator state give the same fleet.

    The shares of kinds and vendors are met exactly, to one device; who is what is shuffled. A site
    has one to three devices, all in one partition.
    """
    n = plan.devices
    kind = _dealt({_number(name): share for name, share in plan.mix.items()}, n, rng)
    vendor = _dealt(plan.vendors, n, rng)
    provider = _dealt(plan.providers, n, rng)
    site = _sites(n, rng)
    # Neighbours share a feeder and, on other boundaries, a gateway.
    feeder = [f"feeder-{place // plan.devices_per_feeder:03d}" for place in range(n)]
    gateway = tuple(f"gateway-{place // plan.devices_per_gateway:02d}" for place in range(n))
    up_w, down_w, energy_wh, ramp = _ratings(np.array(kind, np.uint8), plan.battery_h, rng)
    zones = max(1, n // 1000)
    names = [f"dev-{place:0{max(4, len(str(n)))}d}" for place in range(n)]
    kinds = [DeviceKind(number).name.lower() for number in kind]

    def encoded(words: list[str]) -> tuple[bytes, ...]:
        return tuple(word.encode() for word in words)

    revert_s = np.full(n, plan.revert_s)
    if plan.no_revert_fraction:
        revert_s[rng.random(n) < plan.no_revert_fraction] = np.nan
    enrolled = Enrolled(
        device_no=_numbered(site, plan.partitions),
        active=np.ones(n, np.uint8),
        kind=np.array(kind, np.uint8),
        device_id=encoded(names),
        site=encoded([f"site-{number:05d}" for number in site]),
        vendor=encoded(vendor),
        model=encoded([f"{v}-{k}" for v, k in zip(vendor, kinds, strict=True)]),
        zone=encoded([f"zone-{place * zones // n}" for place in range(n)]),
        feeder=encoded(feeder),
        provider=encoded(provider),
        adapter=(b"mqtt",) * n,
        address=encoded(names),
        nameplate_up_w=up_w,
        nameplate_down_w=down_w,
        energy_wh=energy_wh,
        reserve_soc=np.where(np.isnan(energy_wh), 0.0, 0.1),
        ramp_w_per_s=ramp,
        revert_s=revert_s,
        report_every_s=np.full(n, plan.telemetry_period_s),
    )
    is_ev = enrolled.kind == DeviceKind.EV
    return Devices(enrolled, gateway, np.where(is_ev, plan.ev_min_w, 0.0))


def _picked(column: Any, rows: NDArray[np.intp]) -> Any:
    """Return some rows of an array or of a ragged column."""
    return tuple(column[row] for row in rows) if isinstance(column, tuple) else column[rows]


def _number(kind: str) -> int:
    return int(DeviceKind[kind.upper()])


def _dealt(shares: Mapping[Name, float], n: int, rng: Generator) -> list[Name]:
    """Give each of n places a name, in exact shares (largest remainder), shuffled."""
    names = list(shares)
    weights = np.array([shares[name] for name in names], np.float64)
    exact = weights / weights.sum() * n
    counts = np.floor(exact).astype(int)
    for place in np.argsort(counts - exact, kind="stable")[: n - int(counts.sum())]:
        counts[place] += 1
    dealt = np.repeat(np.arange(len(names)), counts)
    rng.shuffle(dealt)
    return [names[place] for place in dealt]


def _sites(n: int, rng: Generator) -> list[int]:
    """Give neighbouring places the same site, one to three devices each."""
    sizes = rng.choice(np.array([1, 2, 3]), size=n, p=[0.6, 0.3, 0.1])
    places: list[int] = np.repeat(np.arange(n), sizes)[:n].tolist()
    return places


def _numbered(site: list[int], partitions: int) -> Ints:
    """Number the devices so that a site stays within one partition (`number % partitions`)."""
    partition = np.array(site, np.int64) % partitions
    row = np.zeros(len(site), np.int64)
    for each in range(partitions):
        mine = partition == each
        row[mine] = np.arange(int(mine.sum()))
    return (row * partitions + partition).astype(np.int32)


def _ratings(
    kind: Bytes, battery_h: Sequence[float], rng: Generator
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return nameplate up and down [W], energy [Wh] and ramp [W/s] in the sizes one can buy."""
    n = len(kind)
    up_w, down_w, ramp = np.zeros(n), np.zeros(n), np.full(n, np.nan)
    energy_wh = np.full(n, np.nan)
    sizes: dict[DeviceKind, tuple[list[float], list[float]]] = {
        DeviceKind.BATTERY: ([3000.0, 5000.0, 10_000.0], [3000.0, 5000.0, 10_000.0]),
        DeviceKind.PV: ([4000.0, 5000.0, 10_000.0], [0.0, 0.0, 0.0]),
        DeviceKind.EV: ([0.0, 0.0, 0.0], [3700.0, 7400.0, 11_000.0]),
        DeviceKind.HEAT_PUMP: ([0.0, 0.0, 0.0], [1500.0, 2500.0, 4000.0]),
        DeviceKind.WATER_HEATER: ([0.0, 0.0, 0.0], [1200.0, 2000.0, 3000.0]),
        DeviceKind.LOAD: ([0.0, 0.0, 0.0], [2000.0, 4000.0, 8000.0]),
        DeviceKind.GENERATOR: ([5000.0, 10_000.0, 20_000.0], [0.0, 0.0, 0.0]),
    }
    for number, (ups, downs) in sizes.items():
        mine = kind == number
        size = rng.choice(3, size=int(mine.sum()), p=[0.25, 0.5, 0.25])
        up_w[mine], down_w[mine] = np.array(ups)[size], np.array(downs)[size]
    battery = kind == DeviceKind.BATTERY
    energy_wh[battery] = up_w[battery] * rng.choice(np.array(battery_h), size=int(battery.sum()))
    fast = np.isin(kind, (DeviceKind.BATTERY, DeviceKind.EV, DeviceKind.GENERATOR))
    ramp[fast] = np.maximum(up_w, down_w)[fast] * rng.uniform(0.2, 0.5, size=int(fast.sum()))
    return up_w, down_w, energy_wh, ramp
