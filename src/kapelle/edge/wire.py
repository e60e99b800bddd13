"""What an agent says and hears for its devices: the plant's own words (docs/adapters/mqtt.md)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from kapelle.model.enums import AckStatus, DeviceMode, Metric
from kapelle.model.ids import NS_PER_S

_ENCODER = msgspec.json.Encoder()


class _Wire(msgspec.Struct):
    revision: int
    epoch: int
    setpoint_w: float | None
    not_after_ns: int
    ttl_s: float | None = None
    revert_s: float | None = None


_DECODER = msgspec.json.Decoder(_Wire)


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it arrived."""

    revision: int
    epoch: int
    setpoint_w: float
    """NaN releases the device. [W]"""
    revert_s: float
    """NaN where the plant says none. [s]"""
    deadline_ns: int
    """Not to be begun later, by this machine's clock."""


def telemetry(values: Mapping[Metric, float], at_ns: int, boot: int, seq: int) -> bytes:
    """Encode a reading."""
    said: dict[str, object] = {"at_ns": at_ns, "boot": boot, "seq": seq}
    for metric, value in values.items():
        is_mode = metric is Metric.MODE
        said[metric.name.lower()] = DeviceMode(int(value)).name.lower() if is_mode else value
    return _ENCODER.encode(said)


def together(readings: Sequence[bytes]) -> bytes:
    """Encode several readings as one publication."""
    return b"[" + b",".join(readings) + b"]"


def acknowledgement(revision: int, epoch: int, status: AckStatus, reason: str, at_ns: int) -> bytes:
    """Encode an answer to a command."""
    said: dict[str, object] = {
        "revision": revision,
        "epoch": epoch,
        "status": status.name.lower(),
        "at_ns": at_ns,
    }
    if reason:
        said["reason"] = reason
    return _ENCODER.encode(said)


def command(payload: bytes, now_ns: int, *, trust_clock: bool) -> Command | None:
    """Decode a command that arrived just now; None where it is none.

    Args:
        payload: As it came.
        now_ns: By this machine's clock.
        trust_clock: Whether that clock is right enough to hold against `not_after_ns`.
    """
    try:
        wire = _DECODER.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    deadlines = []
    if wire.ttl_s is not None:
        # Bounded: so long a time as never.
        deadlines.append(now_ns + int(min(max(wire.ttl_s, -1.0), 1e9) * NS_PER_S))
    if trust_clock or not deadlines:
        deadlines.append(wire.not_after_ns)
    return Command(
        revision=wire.revision,
        epoch=wire.epoch,
        setpoint_w=math.nan if wire.setpoint_w is None else wire.setpoint_w,
        revert_s=math.nan if wire.revert_s is None else wire.revert_s,
        deadline_ns=min(deadlines),
    )
