"""Which protocols simulated devices can speak, and who speaks which: `kapelle demo --mix`.

A protocol is one entry of `PROTOCOLS`: what speaks it, what the plant needs to hear it, and who
plays its devices. Libraries of a protocol are imported when it is asked for, not before.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator

from kapelle.errors import Invalid, Problem
from kapelle.model.enums import DeviceKind
from kapelle.sim.devices import Devices, FleetPlan, make_fleet

if TYPE_CHECKING:
    from kapelle.config import Config
    from kapelle.sim.peers.party import Ground, Party

COMMON = "mqtt"
"""What every device speaks unless it was dealt something else."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A protocol, as the simulation has to know it."""

    adapter: str
    """Of the plant: under which its devices are enrolled."""
    kinds: frozenset[DeviceKind]
    """Kinds of devices that speak it."""
    configured: "Callable[[Config], Config]"
    """Adds what the plant needs to hear it, on a free loopback port."""
    party: "Callable[[Ground], Party]"
    """Makes its devices, in their own process."""


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
    adapter = tuple(PROTOCOLS[name].adapter.encode() for name in spoken)
    return replace(devices, enrolled=replace(devices.enrolled, adapter=adapter)), spoken


def configured(config: "Config", mix: Mapping[str, float]) -> "Config":
    """Return a configuration that hears all protocols of a mix."""
    for name in mix:
        config = PROTOCOLS[name].configured(config)
    return config


def _known() -> str:
    return ", ".join(PROTOCOLS)


def _hears_mqtt(config: "Config") -> "Config":
    return config


def _hears_ocpp(config: "Config") -> "Config":
    from kapelle.adapters.ocpp.settings import OcppSettings

    # Simulated stations report at the fleet's cadence, and take watts.
    settings = OcppSettings(port=0, heartbeat_s=10, sample_s=0, charging_rate_unit="W")
    return replace(config, ocpp=settings)


def _clients(ground: "Ground") -> "Party":
    from kapelle.sim.peers.clients import Clients

    return Clients(ground)


def _stations(ground: "Ground") -> "Party":
    from kapelle.sim.peers.stations import Stations

    return Stations(ground)


def _inverters(ground: "Ground") -> "Party":
    from kapelle.sim.peers.inverters import Inverters

    return Inverters(ground)


PROTOCOLS: Mapping[str, Spoken] = {
    "mqtt": Spoken("mqtt", frozenset(DeviceKind), _hears_mqtt, _clients),
    "ocpp": Spoken("ocpp", frozenset({DeviceKind.EV}), _hears_ocpp, _stations),
    # Their edge agents speak to the plant by MQTT.
    "sunspec": Spoken(
        "mqtt", frozenset({DeviceKind.BATTERY, DeviceKind.PV}), _hears_mqtt, _inverters
    ),
}
