"""The tables of the record: their columns, what they are sorted by and how long they are kept.

Inside the plant a table has the columns of its block class. In its files the column of its time is
a timestamp called `time`, so that a query's bounds on it leave out whole files and row groups.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from kapelle.model import blocks
from kapelle.model.blocks import ColumnType
from kapelle.model.enums import Freshness, Metric
from kapelle.model.ids import NS_PER_S

MINUTE_NS = 60 * NS_PER_S
QUARTER_NS = 15 * MINUTE_NS
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS

PARTITIONS = "partitions"
"""Name under which the catalog knows how many partitions the plant has."""
WHOLE_PLANT = -1
"""Partition of tables that belong to the plant as a whole."""
TIME = "time"
DELAY = "delay_ns"
"""In files: when a row came, since its time. As a time of its own it would take far more."""

Keep = Literal["raw", "minute", "quarter", "evidence", "always"]


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the record."""

    name: str
    schema: pa.Schema
    time: str
    """Its column of time [UTC ns]: in files a timestamp, `time`."""
    sort: tuple[str, ...]
    """A file's rows ascend by these; rows that are equal stay in the order they arrived in."""
    key: tuple[str, ...] = ()
    """Of rows equal in these the first to arrive stays; none: every row stays."""
    span_ns: int = HOUR_NS
    """What a file covers at most while its day still runs."""
    keep: Keep = "evidence"
    came: str = ""
    """Its column that files hold as a delay. [UTC ns]"""

    @property
    def file_schema(self) -> pa.Schema:
        """Return the schema of its files."""
        return pa.schema(
            [
                pa.field(TIME, pa.timestamp("ns"))
                if field.name == self.time
                else field.with_name(self.in_files(field.name))
                for field in self.schema
            ]
        )

    def in_files(self, name: str) -> str:
        """Return what a column is called in files."""
        return {self.time: TIME, self.came: DELAY}.get(name, name)


def metric_column(metric: Metric) -> str:
    """Name the column of a metric."""
    return metric.name.lower()


METRICS: Mapping[str, Metric] = {metric_column(metric): metric for metric in Metric}


def _schema(columns: Mapping[str, ColumnType], **more: pa.DataType) -> pa.Schema:
    fields = [
        (name, pa.from_numpy_dtype(dtype) if isinstance(dtype, np.dtype) else pa.string())
        for name, dtype in columns.items()
    ]
    return pa.schema([*fields, *more.items()])


_i4, _i8, _u1, _f8, _text = pa.int32(), pa.int64(), pa.uint8(), pa.float64(), pa.string()

_TIER = pa.schema(
    [
        ("device_no", _i4),
        ("starts_at_ns", _i8),
        ("readings", _i4),
        ("power_w", _f8),
        ("power_w_min", _f8),
        ("power_w_max", _f8),
        ("powers", _i4),
        ("soc", _f8),
        ("export_wh", _f8),
        ("import_wh", _f8),
    ]
)

_ALL = (
    Table(
        "readings",
        _schema(blocks.Readings.COLUMNS, **dict.fromkeys(METRICS, _f8)),
        time="measured_at_ns",
        # The first to arrive is the first of those equal in the key.
        sort=("device_no", "measured_at_ns", "order", "received_at_ns"),
        key=("device_no", "measured_at_ns", "order"),
        keep="raw",
        came="received_at_ns",
    ),
    Table(
        "commands",
        _schema(blocks.Commands.COLUMNS),
        time="issued_at_ns",
        sort=("device_no", "issued_at_ns"),
    ),
    Table("acks", _schema(blocks.Acks.COLUMNS), time="at_ns", sort=("device_no", "at_ns")),
    Table("phases", _schema(blocks.Phases.COLUMNS), time="at_ns", sort=("device_no", "at_ns")),
    Table("sessions", _schema(blocks.Sessions.COLUMNS), time="at_ns", sort=("device_no", "at_ns")),
    Table(
        "devices",
        _schema(blocks.Enrolled.COLUMNS, at_ns=_i8, position=_i8),
        time="at_ns",
        sort=("device_no", "at_ns", "position"),
        span_ns=DAY_NS,
        keep="always",
    ),
    Table(
        "members",
        pa.schema(
            [("resource", _text), ("device_no", _i4), ("at_ns", _i8), ("position", _i8)],
        ),
        time="at_ns",
        sort=("resource", "at_ns", "position", "device_no"),
        span_ns=DAY_NS,
        keep="always",
    ),
    Table(
        "aggregates",
        pa.schema(
            [
                ("resource", _text),
                ("at_ns", _i8),
                ("computed_at_ns", _i8),
                ("complete", pa.bool_()),
                ("devices", _i4),
                *((name, _f8) for name in ("power_w", "std_w", "low_w", "high_w")),
                *((name, _f8) for name in ("measured_w", "measured_share", "oldest_age_s")),
                *((freshness.name.lower(), _i4) for freshness in Freshness),
                *((name, _f8) for name in ("nameplate_w", "uncontrolled_w")),
                *((name, _f8) for name in ("headroom_up_w", "headroom_down_w")),
                *((name, _f8) for name in ("commanded_w", "target_w")),
                ("others_w", _f8),
            ]
        ),
        time="at_ns",
        sort=("resource", "at_ns"),
    ),
    Table(
        "events",
        pa.schema(
            [
                ("at_ns", _i8),
                ("written_at_ns", _i8),
                ("position", _i8),
                ("kind", _text),
                ("code", _text),
                ("resource", _text),
                ("order_no", _i4),
                ("device_no", _i4),
                ("body", _text),
            ]
        ),
        time="at_ns",
        sort=("at_ns", "position"),
        span_ns=DAY_NS,
        keep="always",
    ),
    Table(
        "minutes",
        _TIER,
        time="starts_at_ns",
        sort=("device_no", "starts_at_ns"),
        keep="minute",
    ),
    Table(
        "quarters",
        _TIER,
        time="starts_at_ns",
        sort=("device_no", "starts_at_ns"),
        keep="quarter",
    ),
    Table(
        "energy",
        pa.schema(
            [
                ("device_no", _i4),
                ("starts_at_ns", _i8),
                ("register", _u1),
                ("mwh", _i8),
                ("quality", _u1),
                ("revision", _i4),
                ("computed_at_ns", _i8),
                ("author", _text),
                ("reason", _text),
                ("measured_mwh", _i8),
                ("measured_quality", _u1),
                ("correction_no", _i4),
            ]
        ),
        time="starts_at_ns",
        sort=("device_no", "starts_at_ns", "register", "revision"),
        # By the hour: whoever closes a quarter-hour reads what was said of the one before.
        keep="always",
    ),
)

TABLES: Mapping[str, Table] = {table.name: table for table in _ALL}
