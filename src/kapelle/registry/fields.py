"""Turns the cells of a row into a device, and says of each that fails how to mend it."""

import difflib
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from kapelle.errors import Problem
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import NS_PER_S
from kapelle.registry.device import (
    LABELS,
    NUMBERS,
    REVERT_S_IEEE2030,
    REVERT_S_MQTT,
    REVERT_S_OCPP,
    REVERT_S_OPENADR,
    Device,
    Flaw,
    flaws,
    id_flaws,
)
from kapelle.registry.documents import Cells
from kapelle.registry.selection import KINDS

_W = {"w": 1.0, "kw": 1e3, "mw": 1e6, "va": 1.0, "kva": 1e3}
_WH = {"wh": 1.0, "kwh": 1e3, "mwh": 1e6}
_S = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "m": 60.0, "min": 60.0, "h": 3600.0}
_UNITS: Mapping[str, Mapping[str, float]] = {
    "nameplate_up_w": _W,
    "nameplate_down_w": _W,
    "energy_wh": _WH,
    "reserve_soc": {"%": 0.01, "percent": 0.01},
    "ramp_w_per_s": {"w/s": 1.0, "kw/s": 1e3, "w/min": 1 / 60, "kw/min": 1e3 / 60},
    "revert_s": _S,
    "report_every_s": _S,
    "meter_rollover_wh": _WH,
    "meter_resolution_wh": _WH,
    "tier": {},
    "priority": {},
    "steps": {},
    "min_on_s": _S,
    "min_off_s": _S,
}
_SUSPICIOUS = {"nameplate_up_w": (20.0, "kW"), "nameplate_down_w": (20.0, "kW")}
"""Below this, a number was meant in the unit beside it: no plant enrols devices of 10 W."""
_SUSPICIOUS |= {"energy_wh": (200.0, "kWh")}
_OPTIONAL = (
    "energy_wh",
    "ramp_w_per_s",
    "revert_s",
    "report_every_s",
    "meter_rollover_wh",
    "meter_resolution_wh",
    "min_on_s",
    "min_off_s",
)
_WHOLE = ("tier", "steps")
_NONE = ("none", "-")
_SAID = {"": False, "false": False, "no": False, "0": False, "true": True, "yes": True, "1": True}
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WITH_UNIT = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*([A-Za-z%/]+)")
_WITH_COMMA = re.compile(r"[+-]?\d+(,\d+)+(\.\d+)?")

_KINDS_MEANT = {
    "solar": "pv",
    "photovoltaic": "pv",
    "inverter": "pv",
    "storage": "battery",
    "ess": "battery",
    "bess": "battery",
    "evse": "ev",
    "charger": "ev",
    "ev_charger": "ev",
    "wallbox": "ev",
    "car": "ev",
    "boiler": "water_heater",
    "chp": "generator",
    "genset": "generator",
    "hvac": "heat_pump",
}


class _Number(NamedTuple):
    value: float
    flaw: Flaw | None


class Reader:
    """Reads rows, remembering cells that were read before: fleets repeat themselves."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, object], _Number] = {}

    def device(self, where: str, cells: Cells) -> tuple[Device | None, list[Problem]]:
        """Return the device of a row, or None and everything wrong with it."""
        found: list[Flaw] = []
        texts = {name: _label(name, cells.get(name), found) for name in ("id", *LABELS)}
        kind = _kind(cells.get("kind"), found)
        given: dict[str, float] = {}
        for name in NUMBERS:
            cell = cells.get(name)
            if cell is None or cell == "":
                continue
            # True equals 1, and 1 equals 1.0: the type belongs to the key.
            key = (name, cell if isinstance(cell, str) else (type(cell), repr(cell)))
            number = self._numbers.get(key)
            if number is None:
                number = self._numbers[key] = _number(name, cell)
            if number.flaw:
                found.append(number.flaw)
            given[name] = number.value
        must_run = _switch("must_run", cells.get("must_run"), found)
        opted_out_until_ns = _moment("opted_out_until", cells.get("opted_out_until"), found)
        if found or kind is None:
            return None, _problems(where, found + id_flaws(texts["id"]))
        device = _device(kind, texts, given, must_run, opted_out_until_ns)
        found = flaws(device)
        return (None if found else device), _problems(where, found)


def _problems(where: str, found: list[Flaw]) -> list[Problem]:
    return [Problem(f"{where}, {flaw.field}", flaw.what, flaw.remedy) for flaw in found]


def _device(
    kind: DeviceKind,
    texts: Mapping[str, str],
    given: Mapping[str, float],
    must_run: bool,
    opted_out_until_ns: int | None,
) -> Device:
    adapter = texts["adapter"] or "mqtt"
    number = _defaults(kind, adapter, given)
    return Device(
        id=texts["id"],
        kind=kind,
        site=texts["site"],
        vendor=texts["vendor"],
        model=texts["model"],
        zone=texts["zone"],
        feeder=texts["feeder"],
        provider=texts["provider"],
        adapter=adapter,
        address=texts["address"],
        nameplate_up_w=number["nameplate_up_w"],
        nameplate_down_w=number["nameplate_down_w"],
        energy_wh=number["energy_wh"],
        reserve_soc=number["reserve_soc"],
        ramp_w_per_s=number["ramp_w_per_s"],
        revert_s=number["revert_s"],
        report_every_s=number["report_every_s"],
        meter_rollover_wh=number["meter_rollover_wh"],
        meter_resolution_wh=number["meter_resolution_wh"],
        tier=int(number["tier"]),
        priority=number["priority"],
        steps=int(number["steps"]),
        min_on_s=number["min_on_s"],
        min_off_s=number["min_off_s"],
        must_run=must_run,
        opted_out_until_ns=opted_out_until_ns,
    )


def _defaults(kind: DeviceKind, adapter: str, given: Mapping[str, float]) -> dict[str, float]:
    """Return every number of a device: as given, else its default."""
    number = dict.fromkeys(_OPTIONAL, math.nan)
    number |= {"nameplate_up_w": 0.0, "nameplate_down_w": 0.0, "reserve_soc": 0.0}
    number |= {"tier": 0.0, "priority": 1.0, "steps": 0.0}
    if kind == DeviceKind.BATTERY:
        up_w, down_w = given.get("nameplate_up_w", 0.0), given.get("nameplate_down_w", 0.0)
        number |= {"nameplate_up_w": down_w, "nameplate_down_w": up_w}
    if adapter == "mqtt":
        number["revert_s"] = REVERT_S_MQTT
    if adapter == "ocpp":
        number["revert_s"] = REVERT_S_OCPP
    if adapter == "openadr":
        number["revert_s"] = REVERT_S_OPENADR
    if adapter == "ieee2030":
        number["revert_s"] = REVERT_S_IEEE2030
    number.update(given)
    return number


def _label(name: str, cell: object, found: list[Flaw]) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, str):
        found.append(Flaw(name, f"{cell!r} is not text", f'write "{cell}"'))
        return ""
    return cell.strip()


def _kind(cell: object, found: list[Flaw]) -> DeviceKind | None:
    name = re.sub(r"[\s-]+", "_", str(cell or "").strip().lower())
    if name in KINDS:
        return KINDS[name]
    known = ", ".join(KINDS)
    if not name:
        found.append(Flaw("kind", "is empty", f"write one of {known}"))
        return None
    near = [_KINDS_MEANT[name]] if name in _KINDS_MEANT else []
    near = near or difflib.get_close_matches(name, KINDS, 1)
    remedy = f"did you mean `{near[0]}`?" if near else f"write one of {known}"
    found.append(Flaw("kind", f"there is no kind {str(cell).strip()!r}", remedy))
    return None


def _number(name: str, cell: object) -> _Number:
    if isinstance(cell, str):
        text = cell.strip()
        if not _PLAIN.fullmatch(text):
            if text.lower() in _NONE and name in _OPTIONAL:
                return _Number(math.nan, None)
            return _Number(math.nan, _not_plain(name, text))
        value = float(text)
    elif isinstance(cell, int | float) and not isinstance(cell, bool):
        value = _float(cell)
    else:
        return _Number(math.nan, Flaw(name, f"{cell!r} is not a number", "write a number"))
    if not math.isfinite(value):
        remedy = "leave it empty where it is not known"
        return _Number(value, Flaw(name, f"{cell} is not a finite number", remedy))
    if name in _WHOLE and value != math.floor(value):
        return _Number(value, Flaw(name, f"{value:g} is not a whole number", "write 0, 1, 2 …"))
    if name in _SUSPICIOUS:
        least, unit = _SUSPICIOUS[name]
        if 0 < value < least:
            what = f"{value:g} {unit[1:]} looks like {unit}"
            return _Number(value, Flaw(name, what, f"write {value * 1000:.15g}"))
    return _Number(value, None)


def _switch(name: str, cell: object, found: list[Flaw]) -> bool:
    text = str(cell if cell is not None else "").strip().lower()
    if text not in _SAID:
        found.append(Flaw(name, f"{cell!r} is neither yes nor no", "write true or false"))
    return _SAID.get(text, False)


def _moment(name: str, cell: object, found: list[Flaw]) -> int | None:
    """Return a moment [ns since 1970]; 0 for none, None where nothing is said."""
    text = str(cell if cell is not None else "").strip()
    if not text:
        return None
    if text.lower() in _NONE:
        return 0
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError("it has no time zone")
        return round(at.timestamp()) * NS_PER_S
    except (ValueError, OverflowError) as error:
        remedy = "write it like 2026-05-01T14:30:00Z, or none"
        found.append(Flaw(name, f"{text[:40]!r}: {error}", remedy))
        return None


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _not_plain(name: str, text: str) -> Flaw:
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    if _WITH_COMMA.fullmatch(text):
        without, decimal = text.replace(",", ""), text.replace(",", ".")
        remedy = f"write {without} without separators"
        if text.count(",") == 1 and "." not in text:
            few = len(text.rpartition(",")[2]) == 3
            remedy = f"write {without} or {decimal}" if few else f"write {decimal} with a point"
        return Flaw(name, f"{shown!r} contains a comma", remedy)
    united = _WITH_UNIT.fullmatch(text)
    if united:
        factor = _UNITS[name].get(united[2].lower())
        unit = next(iter(_UNITS[name]))
        if factor is None:
            return Flaw(
                name, f"{shown!r} has a unit that does not belong here", f"write it in {unit}"
            )
        value = float(united[1]) * factor
        if unit == "%":
            return Flaw(name, f"{shown!r} has a unit", f"write {value:.15g} as a fraction")
        return Flaw(name, f"{shown!r} has a unit", f"write {value:.15g} without it")
    return Flaw(name, f"{shown!r} is not a number", "write it with digits and a point")
