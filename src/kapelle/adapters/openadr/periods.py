"""Moments and durations as OpenADR writes them: RFC 3339, and ISO 8601 durations."""

import math
import re
from datetime import UTC, datetime, timedelta

from kapelle.model.ids import NS_PER_S

NOW = ("0001-01-01", "0001-01-01T00:00:00", "0001-01-01T00:00:00Z")
"""A start that means now (User Guide; `intervalPeriod` of the document)."""
FOREVER = "P9999Y"
_FORM = re.compile(
    r"(-?)P(?=\d|T\d)(?:(\d{1,9})Y)?(?:(\d{1,9})M)?(?:(\d{1,9})([DW]))?"
    r"(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,12}(?:\.\d{1,9})?)S)?)?"
)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 86_400.0
_YEAR_S, _MONTH_S = 365.0 * _DAY_S, 30.0 * _DAY_S


def duration_s(text: str) -> float:
    """Return a duration in seconds; NaN where it is none, infinity from 1,000 years on.

    Years and months have no fixed length; nothing here is so long that it matters: 365 and 30 days.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        return math.nan
    sign, years, months, days, unit, hours, minutes, seconds = found.groups()
    if float(years or 0) >= 1_000:
        return math.inf
    total_s = float(years or 0) * _YEAR_S + float(months or 0) * _MONTH_S
    total_s += float(days or 0) * _DAY_S * (7 if unit == "W" else 1)
    total_s += float(hours or 0) * 3_600 + float(minutes or 0) * 60 + float(seconds or 0)
    return -total_s if sign else total_s


def duration(seconds: float) -> str:
    """Return seconds as a duration, to the millisecond; NaN and infinity are forever."""
    if not math.isfinite(seconds):
        return FOREVER
    whole = f"{max(0.0, seconds):.3f}".rstrip("0").rstrip(".")
    return f"PT{whole}S"


def moment_ns(text: str) -> int | None:
    """Return a moment in UTC ns, to the microsecond; 0 for one that means now.

    None where it is no moment, or one before 1970 or after 2262.
    """
    if text in NOW:
        return 0
    at = _read(text)
    if at is None:
        return None
    since = at - _EPOCH
    at_ns = (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1_000
    return at_ns if 0 <= at_ns < 2**63 else None


def is_moment(text: str) -> bool:
    """Tell whether this is a moment, or means now; one before 1970 is one too."""
    return text in NOW or _read(text) is not None


def _read(text: str) -> datetime | None:
    if _MOMENT.fullmatch(text) is None:
        return None
    is_leap = text[17:19] == "60"
    plain = f"{text[:17]}59{text[19:]}" if is_leap else text
    try:
        at = datetime.fromisoformat(plain.upper())
        # Second 60 is the second after 59, as POSIX counts leap seconds.
        return at + timedelta(seconds=1) if is_leap else at
    except (ValueError, OverflowError):
        return None


def moment(at_ns: int) -> str:
    """Return a moment as RFC 3339, to the millisecond."""
    seconds, rest_ns = divmod(at_ns, NS_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"
