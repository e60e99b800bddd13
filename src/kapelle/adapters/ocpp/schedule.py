"""What charging schedules of every version have in common. Pure."""

import math
from collections.abc import Sequence

import msgspec

from kapelle.adapters.ocpp.dialect import Composite, Profile
from kapelle.adapters.ocpp.events import Misread
from kapelle.adapters.ocpp.meters import time_text
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S

_PLACE_MARK = " - at `$"


class _Status(msgspec.Struct):
    status: str


def tenths(value: float) -> float:
    """Return a limit as OCPP allows it: with one digit after the point (1.6, 7.14)."""
    return round(value, 1) + 0.0


def validity(profile: Profile) -> dict[str, object]:
    """Return when a schedule begins and, where it does, how long it lasts."""
    said: dict[str, object] = {"startSchedule": time_text(profile.from_ns)}
    if profile.until_ns:
        said["duration"] = math.ceil((profile.until_ns - profile.from_ns) / NS_PER_S)
    return said


def first(
    periods: Sequence[tuple[float, float]], unit: str, duration_s: float | None
) -> Composite | None:
    """Return what holds now of a composite schedule, which begins now, and until when.

    Args:
        periods: Start [s] and value of each.
        unit: Of the values: A or W.
        duration_s: Of the whole; None: not said.
    """
    if unit not in ("A", "W") or any(not math.isfinite(start) for start, _ in periods):
        return None
    ordered = sorted(periods)
    # A schedule whose first period begins later says that nothing limits the station until then.
    if not ordered or ordered[0][0] > 0:
        return Composite(math.nan, unit, ordered[0][0] if ordered else math.inf)
    begun = [value for start, value in ordered if start <= 0]
    ends = [start for start, value in ordered if start > 0 and value != begun[-1]]
    if duration_s is not None:
        ends.append(duration_s)
    return Composite(begun[-1], unit, min(ends, default=math.inf))


def read_status(payload: bytes) -> tuple[AckStatus, str]:
    """Return what a station answered to a profile: ACCEPTED or REJECTED, and its own word."""
    try:
        status = msgspec.json.decode(payload, type=_Status).status
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return AckStatus.REJECTED, "its answer cannot be read"
    accepted = status == "Accepted"
    return (AckStatus.ACCEPTED if accepted else AckStatus.REJECTED), status[:40]


def misread(action: str, error: Exception, malformed: str) -> Misread:
    """Return what is wrong with a call.

    Args:
        action: Of the call.
        error: What the reader of JSON said.
        malformed: What this version calls a payload that is no JSON of the right form: the
            specification of 1.6 itself misspelt some of its error codes.
    """
    if isinstance(error, RecursionError):
        return Misread(malformed, f"json: /3: {action} is nested too deeply; send flat objects")
    what, _, path = str(error).partition(_PLACE_MARK)
    place = "/3" + path.rstrip("`").replace(".", "/").replace("[", "/").replace("]", "")
    reason = f"field: {place}: {what.replace('`', '')[:120]}; send {action} as specified"
    if isinstance(error, msgspec.ValidationError):
        missing = "missing required field" in what
        return Misread("ProtocolError" if missing else "TypeConstraintViolation", reason)
    return Misread(malformed, reason)
