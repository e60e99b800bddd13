"""What a device says and hears, as JSON (docs/adapters/mqtt.md), for whole blocks at once."""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from kapelle.model.blocks import Commands
from kapelle.model.enums import AckStatus, DeviceMode, Metric
from kapelle.model.ids import Ints
from kapelle.sim.agents import Answers
from kapelle.sim.telemetry import Reports

_MODES: dict[float, str] = {float(mode): mode.name.lower() for mode in DeviceMode}
_STATUS = {status.value: status.name.lower() for status in AckStatus}


class Command(msgspec.Struct):
    """A command as it arrives."""

    order: int
    revision: int
    epoch: int
    attempt: int
    setpoint_w: float | None
    issued_at_ns: int
    not_after_ns: int
    ttl_s: float
    revert_s: float


_COMMAND = msgspec.json.Decoder(Command)
_ENCODER = msgspec.json.Encoder()


def telemetry(reports: Reports) -> Iterator[tuple[int, bytes]]:
    """Yield row and payload of each report; what a device has no value for is left out."""
    names = [metric.name.lower() for metric in reports.values]
    columns: list[list[object]] = [
        [_MODES.get(value, value) for value in values.tolist()]
        if metric is Metric.MODE
        else values.tolist()
        for metric, values in reports.values.items()
    ]
    head = (reports.rows, reports.boot, reports.seq, reports.at_ns)
    for row, boot, seq, at_ns, *values in zip(*(c.tolist() for c in head), *columns, strict=True):
        said = {"at_ns": at_ns, "boot": boot, "seq": seq}
        # NaN is the only value that differs from itself.
        said |= {name: v for name, v in zip(names, values, strict=True) if v == v}
        yield row, _ENCODER.encode(said)


def answers(block: Answers, at_ns: int) -> Iterator[tuple[int, bytes]]:
    """Yield row and payload of each answer."""
    columns = (block.rows, block.revision, block.epoch, block.status)
    rows = zip(*(column.tolist() for column in columns), block.reason, strict=True)
    for row, revision, epoch, status, reason in rows:
        said = {"revision": revision, "epoch": epoch, "status": _STATUS[status], "at_ns": at_ns}
        if reason:
            said["reason"] = reason.decode()
        yield row, _ENCODER.encode(said)


def commands(arrived: Sequence[tuple[int, bytes]]) -> tuple[Ints, Commands, int]:
    """Read commands in order of arrival; return rows, block, and how many were unreadable."""
    read: list[tuple[int, Command]] = []
    for row, payload in arrived:
        try:
            read.append((row, _COMMAND.decode(payload)))
        except msgspec.MsgspecError:
            continue
    rows = np.array([row for row, _ in read], np.int32)
    given = [command for _, command in read]
    setpoint = [np.nan if c.setpoint_w is None else c.setpoint_w for c in given]
    block = Commands(
        device_no=rows,
        order_no=np.array([c.order for c in given], np.int32),
        revision=np.array([c.revision for c in given], np.int64),
        epoch=np.array([c.epoch for c in given], np.int64),
        attempt=np.array([c.attempt for c in given], np.int32),
        setpoint_w=np.array(setpoint, np.float64),
        issued_at_ns=np.array([c.issued_at_ns for c in given], np.int64),
        not_after_ns=np.array([c.not_after_ns for c in given], np.int64),
        ttl_s=np.array([c.ttl_s for c in given], np.float64),
        revert_s=np.array([c.revert_s for c in given], np.float64),
    )
    return rows, block, len(arrived) - len(read)
