"""Reads RFC 3339 times, many at once."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from kapelle.model.ids import NS_PER_S, Flags, Longs

_FORM = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9})\d*)?"
    r"(?:([Zz])|([+-])(\d\d):?(\d\d))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHORTEST, _LONGEST = len("2026-11-22T09:41:06Z"), len("2026-11-22T09:41:06.123456789Z")


def parse(texts: Sequence[str]) -> tuple[Longs, Flags]:
    """Return each time in ns, and which texts are no such time (0 there).

    Second 60 is the second after 59, as POSIX counts leap seconds. A time without zone is none:
    nobody can tell what it means.
    """
    at_ns = np.zeros(len(texts), np.int64)
    is_bad = np.zeros(len(texts), np.bool_)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        done = _parse_plain([texts[row] for row in rows.tolist()], length)
        if done is None:
            done = _parse_each([texts[row] for row in rows.tolist()])
        at_ns[rows], is_bad[rows] = done
    return at_ns, is_bad


def _parse_plain(texts: Sequence[str], length: int) -> tuple[Longs, Flags] | None:
    """Parse the usual form, `…T…Z`, as one matrix of digits; None where any text differs."""
    if not _SHORTEST <= length <= _LONGEST or length == _SHORTEST + 1:
        return None
    try:
        raw = "".join(texts).encode("ascii")
    except UnicodeEncodeError:
        return None
    glyph = np.frombuffer(raw, np.uint8).reshape(len(texts), length)
    marks = {4: "-", 7: "-", 10: "T", 13: ":", 16: ":", length - 1: "Z"}
    if length > _SHORTEST:
        marks[19] = "."
    if any(bool((glyph[:, place] != ord(mark)).any()) for place, mark in marks.items()):
        return None
    places = [place for place in range(length) if place not in marks]
    digits = glyph[:, places].astype(np.int64) - ord("0")
    if bool(((digits < 0) | (digits > 9)).any()):
        return None
    fraction = length - _SHORTEST - 1
    year, month, day = _number(digits, 0, 4), _number(digits, 4, 6), _number(digits, 6, 8)
    hour, minute, second = _number(digits, 8, 10), _number(digits, 10, 12), _number(digits, 12, 14)
    ns = _number(digits, 14, 14 + fraction) * 10 ** (9 - fraction) if fraction > 0 else 0
    if bool(((month < 1) | (month > 12) | (day < 1) | (year < 1970) | (year > 2261)).any()):
        return None
    first = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    date = first.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    # The 31st of a month of 30 days lands in the next month: no such day.
    is_bad = (date.astype("datetime64[M]") != first) | (hour > 23) | (minute > 59) | (second > 60)
    days = date.astype(np.int64)
    at_ns = (((days * 24 + hour) * 60 + minute) * 60 + second) * NS_PER_S + ns
    return np.where(is_bad, 0, at_ns), is_bad


def _number(digits: Longs, start: int, end: int) -> Longs:
    value = np.zeros(len(digits), np.int64)
    for place in range(start, end):
        value = value * 10 + digits[:, place]
    return value


def _parse_each(texts: Sequence[str]) -> tuple[Longs, Flags]:
    found = [parse_one(text) for text in texts]
    at_ns = np.fromiter((0 if ns is None else ns for ns in found), np.int64, len(found))
    return at_ns, np.fromiter((ns is None for ns in found), np.bool_, len(found))


def parse_one(text: str) -> int | None:
    """Return one time in ns, None where it is none; see `parse`."""
    form = _FORM.fullmatch(text)
    if form is None or not text.isascii():
        return None
    year, month, day, hour, minute, second = (int(form[place]) for place in range(1, 7))
    if second > 60 or not 1970 <= year <= 2261:
        return None
    try:
        whole = datetime(year, month, day, hour, minute, tzinfo=UTC) - _EPOCH
        if form[9]:
            offset = timedelta(hours=int(form[10]), minutes=int(form[11]))
            if offset >= timedelta(days=1):
                return None
            whole -= offset if form[9] == "+" else -offset
    except (ValueError, OverflowError):
        return None
    ns = int((form[7] or "0").ljust(9, "0"))
    return (whole.days * 86_400 + whole.seconds + second) * NS_PER_S + ns
