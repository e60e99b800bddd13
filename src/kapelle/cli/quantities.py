"""Durations, moments and energy as people type them: `1h30m`, `+5m`, `14:30`, `12.3kWh`."""

import re
from datetime import UTC, datetime, timedelta

from kapelle.errors import Invalid, Problem

_PART = re.compile(r"(\d+(?:\.\d+)?)(d|h|m|s)")
_UNIT_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_ENERGY = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)(wh|kwh|mwh|gwh)", re.IGNORECASE)
_UNIT_WH = {"wh": 1.0, "kwh": 1e3, "mwh": 1e6, "gwh": 1e9}
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?Z?")


def duration_s(text: str, option: str = "--for") -> float:
    """Return a duration in seconds. Raises Invalid."""
    compact = text.replace(" ", "").lower()
    parts = _PART.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        remedy = "write it like 90s, 20m or 1h30m"
        raise Invalid("duration", [Problem(option, f"{text!r} is no duration", remedy)])
    total = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if total <= 0:
        raise Invalid("duration", [Problem(option, "is zero", "give at least 1s")])
    return total


def energy_wh(text: str, option: str = "--set") -> float:
    """Return an energy in Wh. Raises Invalid."""
    found = _ENERGY.fullmatch(text.replace(" ", "").replace(",", ""))
    if found is None:
        remedy = "write it like 850Wh, 12.3kWh or 1.5MWh"
        raise Invalid("energy", [Problem(option, f"{text!r} is no energy", remedy)])
    number, unit = found.groups()
    # Through whole mWh: 12.3 kWh are 12,300 Wh and not almost.
    return round(float(number) * _UNIT_WH[unit.lower()], 3)


def moment(text: str, now: datetime, option: str = "--at") -> str:
    """Return a moment as RFC 3339 in UTC; a time of day is the next one. Raises Invalid."""
    if text.startswith("+"):
        return _rfc3339(now + timedelta(seconds=duration_s(text[1:], option)))
    try:
        if clock := _CLOCK.fullmatch(text):
            hour, minute, second = (int(part or 0) for part in clock.groups())
            at = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
            return _rfc3339(at if at > now else at + timedelta(days=1))
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError("it has no time zone")
    except ValueError as error:
        remedy = "write +5m, 14:30 (UTC) or 2026-05-01T14:30:00Z"
        raise Invalid("moment", [Problem(option, f"{text!r}: {error}", remedy)]) from error
    return _rfc3339(at)


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
