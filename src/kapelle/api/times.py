"""Times on the wire: RFC 3339 in UTC outside, ns inside."""

from datetime import UTC, datetime, timedelta

from kapelle.model.ids import NS_PER_S

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(at_ns: int) -> datetime:
    """Return a time in UTC, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=at_ns // 1_000)


def to_ns(at: datetime) -> int:
    """Return a time that knows its zone in ns."""
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1_000
