"""What shapes cannot say of a request: its times, its URLs, and what no other party may order."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from msgspec import UNSET, UnsetType

from kapelle.adapters.destinations import is_bearer, place
from kapelle.adapters.http.problems import Fault
from kapelle.adapters.openadr.periods import is_moment
from kapelle.adapters.openadr.shapes import Body as Kept
from kapelle.adapters.openadr.shapes import (
    Event,
    Interval,
    IntervalPeriod,
    OwnResource,
    OwnVen,
    Program,
    Report,
    Subscription,
)

Asked = Kept | OwnVen | OwnResource
COMMANDING = ("SETPOINT", "DISPATCH_", "CONTROL_", "_LIMIT")
"""In the name of a payload that tells a device what to do, rather than what holds."""


def faults(body: Asked) -> list[Fault]:
    """Return what is wrong with a request of the right shape."""
    match body:
        case Program():
            found = list(_period(body.interval_period, "/intervalPeriod"))
            for row, one in enumerate(body.program_descriptions or ()):
                if not _is_url(one.url):
                    where = f"/programDescriptions/{row}/URL"
                    found.append(Fault(where, "is no absolute URL"))
            return found
        case Event():
            found = list(_period(body.interval_period, "/intervalPeriod"))
            if not isinstance(body.intervals, UnsetType):
                found += _intervals(body.intervals, "")
            return found
        case Report():
            return [
                fault
                for row, one in enumerate(body.resources)
                for fault in (
                    *_period(one.interval_period, f"/resources/{row}/intervalPeriod"),
                    *_intervals(one.intervals, f"/resources/{row}"),
                )
            ]
        case Subscription():
            return list(_subscription(body))
        case _:
            return []


def commands(event: Event) -> str:
    """Return the first payload type of an event that commands a device; empty: none does."""
    if isinstance(event.intervals, UnsetType):
        return ""
    for interval in event.intervals:
        for payload in interval.payloads:
            if any(part in payload.type.upper() for part in COMMANDING):
                return payload.type
    return ""


def _subscription(body: Subscription) -> Iterator[Fault]:
    for row, one in enumerate(body.object_operations):
        where = place(one.callback_url)
        if isinstance(where, str):
            yield Fault(f"/objectOperations/{row}/callbackUrl", where)
        if isinstance(one.bearer_token, str) and not is_bearer(one.bearer_token):
            yield Fault(f"/objectOperations/{row}/bearerToken", "cannot stand in a header")


def _intervals(intervals: list[Interval], place: str) -> Iterator[Fault]:
    for row, one in enumerate(intervals):
        yield from _period(one.interval_period, f"{place}/intervals/{row}/intervalPeriod")


def _period(period: IntervalPeriod | UnsetType, place: str) -> Iterator[Fault]:
    start = UNSET if isinstance(period, UnsetType) else period.start
    if not isinstance(start, UnsetType) and not is_moment(start):
        yield Fault(f"{place}/start", "is no time of RFC 3339 with a zone")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme) and text.isascii() and text.isprintable() and " " not in text
