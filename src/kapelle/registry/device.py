"""A device as an operator describes it, and what makes such a description usable."""

import math
import re
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from kapelle.model.enums import DeviceKind

ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")
LABEL_CHARS_MAX = 128
REVERT_S_MQTT = 300.0
"""Our MQTT wire carries the revert timer in each command, so every device on it has one."""

REVERT_S_OCPP = 300.0
"""Each setpoint is a charging profile whose validity ends by itself."""

REVERT_S_IEEE2030 = 300.0
"""Each setpoint is a DERControl of this duration, after which the DefaultDERControl holds."""

REVERT_S_OPENADR = 300.0
"""Each setpoint is an event whose interval ends by itself."""

LOAD_LIKE = (DeviceKind.EV, DeviceKind.HEAT_PUMP, DeviceKind.WATER_HEATER, DeviceKind.LOAD)
"""Kinds that only consume unless their nameplate says otherwise."""
SOURCES = (DeviceKind.PV, DeviceKind.GENERATOR)
"""Kinds that only produce unless their nameplate says otherwise."""

LABELS = ("site", "vendor", "model", "zone", "feeder", "provider", "adapter", "address")
NUMBERS = (
    "nameplate_up_w",
    "nameplate_down_w",
    "energy_wh",
    "reserve_soc",
    "ramp_w_per_s",
    "revert_s",
    "report_every_s",
    "meter_rollover_wh",
    "meter_resolution_wh",
    "tier",
    "priority",
    "steps",
    "min_on_s",
    "min_off_s",
)
TIER_MAX = 15
STEPS_MAX = 255
PRIORITY_LEAST, PRIORITY_MOST = 0.01, 100.0
DWELL_S_MAX = 65_535.0
"""Eighteen hours."""
_labels_of = attrgetter(*LABELS)
_POSITIVE = (
    "energy_wh",
    "ramp_w_per_s",
    "revert_s",
    "report_every_s",
    "meter_rollover_wh",
    "meter_resolution_wh",
)


@dataclass(frozen=True, slots=True)
class Device:
    """What an operator enrols; the meaning of each field is that of `model.blocks.Enrolled`."""

    id: str
    kind: DeviceKind
    site: str = ""
    """Empty: a site of its own that bears the device's name."""
    vendor: str = ""
    model: str = ""
    zone: str = ""
    feeder: str = ""
    provider: str = ""
    adapter: str = "mqtt"
    address: str = ""
    nameplate_up_w: float = 0.0
    nameplate_down_w: float = 0.0
    energy_wh: float = math.nan
    reserve_soc: float = 0.0
    ramp_w_per_s: float = math.nan
    revert_s: float = math.nan
    report_every_s: float = math.nan
    meter_rollover_wh: float = math.nan
    meter_resolution_wh: float = math.nan
    tier: int = 0
    priority: float = 1.0
    steps: int = 0
    min_on_s: float = math.nan
    min_off_s: float = math.nan
    must_run: bool = False
    opted_out_until_ns: int | None = None
    """None: as it was. His owner's word outlasts a file that does not speak of it."""


class Flaw(NamedTuple):
    """One thing wrong with one field of a device."""

    field: str
    what: str
    remedy: str


def flaws(device: Device) -> list[Flaw]:
    """Return everything that keeps a device from being enrolled; empty when it can be."""
    found = id_flaws(device.id)
    labels = _labels_of(device)
    # A hundred thousand devices pass here; one question for all labels is answered quickly.
    if len(max(labels, key=len)) > LABEL_CHARS_MAX or not "".join(labels).isprintable():
        for field, text in zip(LABELS, labels, strict=True):
            found += label_flaws(field, text)
    found += _number_flaws(device)
    found += _part_flaws(device)
    return found


def id_flaws(device_id: str) -> list[Flaw]:
    """Return what is wrong with a device's name: it must be usable as an MQTT topic level."""
    if not device_id:
        return [Flaw("id", "is empty", "give every device a unique name")]
    if ID_PATTERN.fullmatch(device_id) and device_id.strip("."):
        return []
    if len(device_id) > 64:
        what = f"has {len(device_id)} characters, {device_id[:20]!r}…"
    elif not device_id.strip("."):
        what = f"{device_id!r} is a path step, not a name"
    else:
        strange = sorted(set(re.findall(r"[^A-Za-z0-9._-]", device_id)))
        what = f"{device_id!r} contains {' '.join(repr(one) for one in strange)}"
    remedy = "use 1 to 64 of A-Z a-z 0-9 . _ - (the id is a level of MQTT topics and of URLs)"
    return [Flaw("id", what, remedy)]


def label_flaws(field: str, text: str) -> list[Flaw]:
    """Return what is wrong with a site, vendor or other label."""
    if len(text) > LABEL_CHARS_MAX:
        what = f"has {len(text)} characters, {text[:20]!r}…"
        return [Flaw(field, what, f"use at most {LABEL_CHARS_MAX}")]
    if not text.isprintable():
        return [Flaw(field, f"{text!r} contains control characters", "remove them")]
    return []


def _number_flaws(device: Device) -> list[Flaw]:
    found: list[Flaw] = []
    for field in ("nameplate_up_w", "nameplate_down_w"):
        value = getattr(device, field)
        if not math.isfinite(value):
            found.append(Flaw(field, f"is {value}", "write its rating in W, 0 if it has none"))
        elif value < 0:
            remedy = f"write {-value:g}: both nameplates are magnitudes, in W"
            found.append(Flaw(field, f"{value:g} is negative", remedy))
    if device.nameplate_up_w == 0 and device.nameplate_down_w == 0:
        field = "nameplate_down_w" if device.kind in LOAD_LIKE else "nameplate_up_w"
        found.append(Flaw(field, "the device has no power in either direction", "write it in W"))
    for field in _POSITIVE:
        value = getattr(device, field)
        if not math.isnan(value) and not 0 < value < math.inf:
            remedy = "write a number above 0, or leave it empty where it is not known"
            found.append(Flaw(field, f"is {value:g}", remedy))
    if device.kind == DeviceKind.BATTERY and math.isnan(device.energy_wh):
        remedy = "write the usable energy in Wh; without it the plant would promise too much"
        found.append(Flaw("energy_wh", "is missing for a battery", remedy))
    # Comparisons with NaN are false: what is not declared contradicts nothing.
    if device.meter_rollover_wh < 1000 * device.meter_resolution_wh:
        what = f"{device.meter_rollover_wh:g} is less than a thousand steps of the register"
        remedy = "write where it begins anew, for example 1e6 for six digits of Wh"
        found.append(Flaw("meter_rollover_wh", what, remedy))
    if not 0 <= device.reserve_soc <= 1:
        what = f"{device.reserve_soc:g} is not within 0 to 1"
        found.append(Flaw("reserve_soc", what, _soc_remedy(device.reserve_soc)))
    return found


def _part_flaws(device: Device) -> list[Flaw]:
    """Return what is wrong with its part in an allocation."""
    found: list[Flaw] = []
    if not 0 <= device.tier <= TIER_MAX:
        remedy = f"write 0 to {TIER_MAX}: lower tiers are used up before the next begins"
        found.append(Flaw("tier", f"is {device.tier}", remedy))
    if not PRIORITY_LEAST <= device.priority <= PRIORITY_MOST:
        remedy = f"write {PRIORITY_LEAST:g} to {PRIORITY_MOST:g}; 1 is usual, 2 takes twice as much"
        found.append(Flaw("priority", f"is {device.priority:g}", remedy))
    if not 0 <= device.steps <= STEPS_MAX:
        remedy = f"write 1 for on or off, up to {STEPS_MAX} for equal steps, or leave it empty"
        found.append(Flaw("steps", f"is {device.steps}", remedy))
    for field in ("min_on_s", "min_off_s"):
        value = getattr(device, field)
        if not math.isnan(value) and not 0 <= value <= DWELL_S_MAX:
            remedy = f"write seconds up to {DWELL_S_MAX:g}, or leave it empty"
            found.append(Flaw(field, f"is {value:g}", remedy))
    return found


def _soc_remedy(soc: float) -> str:
    if 1 < soc <= 100:
        return f"looks like percent, write {soc / 100:g}"
    return "write a fraction, for example 0.2 for 20 %"
