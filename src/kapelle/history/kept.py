"""A row in quarantine: what is kept of it, which are meant, and when two are the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

import msgspec

State = Literal["open", "replayed", "dropped"]


@dataclass(frozen=True, slots=True)
class QuarantineSettings:
    """How much of the unusable is kept; the newest stays."""

    rows_max: int = 200_000
    """Identical repeats are one row."""
    bytes_max: int = 256 * 1024 * 1024
    poll_s: float = 1.0
    """How often the journal is looked at for more. [s]"""
    action_rows_max: int = 10_000
    """Rows replayed or dropped by one request."""

    def __post_init__(self) -> None:
        if self.rows_max < 1 or self.bytes_max < 1:
            raise ValueError("rows_max and bytes_max are at least 1")


@dataclass(frozen=True, slots=True)
class Kept:
    """One row in quarantine, with its identical repeats."""

    seq: int
    """Rises with arrival here; what pages go by."""
    partition: int
    position: int
    place: int
    device_no: int
    source: str
    code: str
    reason: str
    raw: bytes
    received_at_ns: int
    first_ns: int
    last_ns: int
    count: int
    verdict: str
    decided_at_ns: int
    decided_by: str
    why: str
    fix: str
    state: State

    @property
    def id(self) -> str:
        """`partition:position:row` of its first occurrence in the journal."""
        return f"{self.partition}:{self.position}:{self.place}"


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows; what is not said does not restrict."""

    code: str = ""
    source: str = ""
    """The whole source, or its beginning up to a slash: `mqtt`, `mqtt/dev-7`."""
    device_no: int | None = None
    state: State | Literal["any"] = "open"
    since_ns: int = 0
    """Rows last seen at or after this, …"""
    until_ns: int = 2**63 - 1
    """… and first seen before that."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows there are, with repeats, and what was pushed out."""

    by_code: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Code -> state -> occurrences; `pushed-out` is one of the states."""
    by_source: Mapping[str, int] = field(default_factory=dict)
    """Open occurrences of the sources with most of them."""
    rows: int = 0
    size: int = 0
    """[bytes]"""

    @property
    def open(self) -> int:
        """Occurrences nobody has decided on."""
        return sum(states.get("open", 0) for states in self.by_code.values())


class _Stamped(msgspec.Struct):
    at: str = ""
    at_ns: int = 0


_decode_stamped = msgspec.json.Decoder(_Stamped).decode


def fingerprint(
    device_no: int, source: bytes, code: bytes, raw: bytes, received_at_ns: int
) -> bytes:
    """Return what identical repeats share.

    A report without a time of its own is another one each time it comes.
    """
    try:
        stamped = _decode_stamped(raw)
        arrival = b"" if stamped.at or stamped.at_ns else str(received_at_ns).encode()
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        arrival = b""
    parts = (str(device_no).encode(), source, code, arrival, raw)
    return blake2b(b"\0".join(parts), digest_size=16).digest()


def place_of(row_id: str) -> tuple[int, int, int] | None:
    """Return partition, position and row of an id; None where it is none."""
    words = row_id.split(":")
    if len(words) != 3 or not all(word.isascii() and word.isdigit() for word in words):
        return None
    partition, position, place = (int(word) for word in words)
    return (partition, position, place) if max(partition, position, place) < 2**63 else None
