"""Which protocols simulated devices can speak, and who speaks which: `kapelle demo --mix`.

A protocol is one entry of `PROTOCOLS`: what speaks it, what the plant needs to hear it, and who
plays its devices. Libraries of a protocol are imported when it is asked for, not before.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np
from numpy.random import Generator

from kapelle.config import Config
from kapelle.errors import Invalid, Problem
from kapelle.model.enums import DeviceKind
from kapelle.sim.devices import Devices, FleetPlan, make_fleet
from kapelle.sim.peers.party import Meeting, Side
from kapelle.sim.ports import free_port

COMMON = "mqtt"
"""What every device speaks unless it was dealt something else."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A protocol, as the simulation has to know it."""

    adapter: str
    """Of the plant: under which its devices are enrolled."""
    kinds: frozenset[DeviceKind]
    """Kinds of devices that speak it."""
    module: str
    """Of `kapelle.sim.peers`: a `Side`, which plays the devices."""
    reverts: bool = True
    """Whether a setpoint that is not renewed ends by itself, in the device."""

    def side(self) -> Side:
        """Return what plays its devices."""
        return cast("Side", import_module(f"kapelle.sim.peers.{self.module}"))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plant that will hear a fleet of several protocols."""

    config: Config
    devices: Devices
    """As they are to be enrolled."""
    ports: Mapping[str, int]
    """Protocol -> free loopback port, for those whose devices are called by the plant."""


def read_mix(text: str) -> dict[str, float]:
    """Read `mqtt=0.8,ocpp=0.1,sunspec=0.1`; nothing for an empty text.

    Raises:
        Invalid: An entry cannot be read, its protocol is unknown, or the shares are not a whole.
    """
    mix: dict[str, float] = {}
    problems: list[Problem] = []
    for entry in filter(None, text.split(",")):
        name, _, share_text = (part.strip() for part in entry.partition("="))
        try:
            share = float(share_text)
        except ValueError:
            share = math.nan
        if name not in PROTOCOLS:
            problems.append(Problem(name or entry, "no device here speaks it", f"use {_known()}"))
        elif name in mix:
            problems.append(Problem(name, "is named twice", "name each protocol once"))
        elif not 0 < share <= 1:
            problems.append(Problem(name, "has no share", f"write {name}=0.1, for a tenth"))
        mix[name] = share
    if mix and not problems and abs(sum(mix.values()) - 1) > 1e-6:
        problems.append(Problem(text, f"sums to {sum(mix.values()):g}", "let shares sum to 1"))
    if problems:
        raise Invalid("--mix cannot be followed", problems)
    return mix


def deal(devices: Devices, mix: Mapping[str, float], rng: Generator) -> tuple[str, ...]:
    """Return the protocol of each device, in exact shares of the whole fleet, drawn by kind.

    Raises:
        Invalid: A protocol has a larger share than there are devices of its kinds.
    """
    n = len(devices)
    spoken = np.full(n, COMMON, object)
    free = np.ones(n, np.bool_)
    problems: list[Problem] = []
    for name in sorted(mix.keys() - {COMMON}):
        wanted = max(1, round(mix[name] * n))
        kinds = PROTOCOLS[name].kinds
        able = np.flatnonzero(free & np.isin(devices.kind, [int(kind) for kind in kinds]))
        if len(able) < wanted:
            words = " or ".join(sorted(kind.name.lower() for kind in kinds))
            what = f"is to be spoken by {wanted:,} of {n:,} devices, and {len(able):,} are {words}"
            problems.append(Problem(name, what, f"at most {name}={len(able) / n:.2g}"))
            continue
        rows = rng.choice(able, size=wanted, replace=False)
        spoken[rows], free[rows] = name, False
    if not problems and mix and COMMON not in mix and free.any():
        what = f"{int(free.sum()):,} devices are left over"
        problems.append(Problem(COMMON, what, f"give {COMMON} the rest"))
    if problems:
        raise Invalid("--mix cannot be followed", problems)
    return tuple(spoken.tolist())


def speaking(
    plan: FleetPlan, seed: int, mix: Mapping[str, float]
) -> tuple[Devices, tuple[str, ...]]:
    """Return a fleet, enrolled under the adapters of its protocols, and the protocol of each.

    Who is who does not depend on the mix. Raises Invalid as `deal` does.
    """
    rng = np.random.default_rng(seed)
    devices = make_fleet(plan, rng)
    spoken = deal(devices, mix, rng)
    told = [PROTOCOLS[name] for name in spoken]
    enrolled = replace(
        devices.enrolled,
        adapter=tuple(protocol.adapter.encode() for protocol in told),
        revert_s=np.where(
            [protocol.reverts for protocol in told], devices.enrolled.revert_s, np.nan
        ),
    )
    return replace(devices, enrolled=enrolled), spoken


def prepare(config: Config, devices: Devices, spoken: tuple[str, ...], directory: Path) -> Prepared:
    """Return what a plant needs to hear the protocols of a fleet.

    Args:
        config: Of a plant that hears MQTT.
        devices: The fleet.
        spoken: The protocol of each device.
        directory: Where files may be kept that both sides need.
    """
    words, ports = np.array(spoken), {}
    address = list(devices.enrolled.address)
    for name in sorted(set(spoken)):
        rows = np.flatnonzero(words == name).tolist()
        names = tuple(devices.enrolled.device_id[row].decode() for row in rows)
        meeting = Meeting(directory, free_port(), names)
        hearing = PROTOCOLS[name].side().configured(config, meeting)
        config, ports[name] = hearing.config, meeting.port
        for row, told in zip(rows, hearing.addresses, strict=bool(hearing.addresses)):
            address[row] = told.encode()
    enrolled = replace(devices.enrolled, address=tuple(address))
    return Prepared(config, replace(devices, enrolled=enrolled), ports)


def _known() -> str:
    return ", ".join(PROTOCOLS)


PROTOCOLS: Mapping[str, Spoken] = {
    "mqtt": Spoken("mqtt", frozenset(DeviceKind), "clients"),
    "ocpp": Spoken("ocpp", frozenset({DeviceKind.EV}), "stations"),
    # Their edge agents speak to the plant by MQTT.
    "sunspec": Spoken("mqtt", frozenset({DeviceKind.BATTERY, DeviceKind.PV}), "inverters"),
    "openadr": Spoken("openadr", frozenset(DeviceKind), "gateways"),
    "ieee2030": Spoken("ieee2030", frozenset({DeviceKind.BATTERY, DeviceKind.PV}), "der_clients"),
    "cloud": Spoken("cloud", frozenset({DeviceKind.BATTERY}), "clouds"),
    "sparkplug": Spoken("sparkplug", frozenset(DeviceKind), "edge_nodes", reverts=False),
    "topics": Spoken("topics", frozenset(DeviceKind), "topics", reverts=False),
}
