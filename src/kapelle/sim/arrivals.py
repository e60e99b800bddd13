"""What has arrived through the air, joined into one block by time of arrival."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from kapelle.model.blocks import Acks, Commands, Readings
from kapelle.model.ids import Flags, Ints, Longs
from kapelle.sim.agents import Answers
from kapelle.sim.telemetry import Reports


@dataclass(frozen=True, slots=True, eq=False)
class Orders:
    """Commands under way; `rows` are places in the fleet."""

    rows: Ints
    commands: Commands

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, keep: Flags) -> "Orders":
        return Orders(self.rows[keep], cut(self.commands, keep))


def cut(commands: Commands, keep: Flags) -> Commands:
    """Return some rows of a block of commands."""
    return Commands(**{name: getattr(commands, name)[keep] for name in Commands.COLUMNS})


def in_order(arrived: list[tuple[Orders, Longs]]) -> Orders:
    """Return all commands that arrived, in the order of arrival."""
    by_time = np.argsort(np.concatenate([at_ns for _, at_ns in arrived]), kind="stable")
    rows = np.concatenate([orders.rows for orders, _ in arrived])[by_time]
    columns = {
        name: np.concatenate([getattr(orders.commands, name) for orders, _ in arrived])[by_time]
        for name in Commands.COLUMNS
    }
    return Orders(rows, Commands(**columns))


def readings_of(arrived: Sequence[tuple[Reports, Longs]], device_no: Ints, now_ns: int) -> Readings:
    """Return all reports that arrived, in the order of arrival.

    Args:
        arrived: Blocks of reports with their times of arrival; one at least.
        device_no: Of each place in the fleet.
        now_ns: Nothing is received later than that.
    """
    arrives_ns = np.concatenate([at_ns for _, at_ns in arrived])
    by_time = np.argsort(arrives_ns, kind="stable")
    rows = np.concatenate([reports.rows for reports, _ in arrived])[by_time]
    metrics = arrived[0][0].values
    return Readings(
        device_no=device_no[rows],
        order=np.concatenate([reports.order for reports, _ in arrived])[by_time],
        measured_at_ns=np.concatenate([reports.at_ns for reports, _ in arrived])[by_time],
        received_at_ns=np.minimum(arrives_ns[by_time], now_ns),
        quality=np.zeros(len(rows), np.uint8),
        values={
            metric: np.concatenate([reports.values[metric] for reports, _ in arrived])[by_time]
            for metric in metrics
        },
    )


def acks_of(arrived: Sequence[tuple[Answers, Longs]], device_no: Ints, now_ns: int) -> Acks:
    """Return all answers that arrived, in the order of arrival; arguments as of `readings_of`."""
    arrives_ns = np.concatenate([at_ns for _, at_ns in arrived])
    reasons = [word for answers, _ in arrived for word in answers.reason]
    by_time = np.argsort(arrives_ns, kind="stable")
    rows = np.concatenate([answers.rows for answers, _ in arrived])[by_time]
    return Acks(
        device_no=device_no[rows],
        revision=np.concatenate([answers.revision for answers, _ in arrived])[by_time],
        epoch=np.concatenate([answers.epoch for answers, _ in arrived])[by_time],
        status=np.concatenate([answers.status for answers, _ in arrived])[by_time],
        at_ns=np.minimum(arrives_ns[by_time], now_ns),
        reason=tuple(reasons[place] for place in by_time.tolist()),
    )


def raw_of(readings: Readings) -> Callable[[int], bytes]:
    """Return what shows the bytes of a row as its device would have sent them."""

    def sent(row: int) -> bytes:
        values = {
            metric.name.lower(): float(value[row]) for metric, value in readings.values.items()
        }
        at_ns = int(readings.measured_at_ns[row])
        return msgspec.json.encode({"at_ns": at_ns, "order": int(readings.order[row])} | values)

    return sent
