"""Entries joined before they are applied: many small blocks of readings cost as much as one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from kapelle.model.blocks import Quarantined, Readings
from kapelle.model.entries import Entry
from kapelle.model.enums import Metric
from kapelle.model.ids import Floats

_ROWS_MAX = 16_384
"""More rows at once gain nothing, and would leave the processor's cache."""


def joined(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield entries of one topic, readings that follow each other as one at the last's position.

    Applying readings costs some tenths of a millisecond however few they are, and adapters send
    blocks of a hundred. No cut of a stream shows in the state (`apply_readings`), so neither does
    this: readings of a device that now counts its reports and now does not are left apart, for of
    those the counts of `received` and `duplicates` may show it. So are blocks that are large.
    """
    waiting: list[Entry] = []
    rows = 0
    for entry in entries:
        # Quarantined telemetry changes no state, so it stands in nobody's way.
        passes = isinstance(entry.body, Readings | Quarantined)
        more = len(entry.body) if isinstance(entry.body, Readings) else 0
        if waiting and (not passes or rows + more > _ROWS_MAX):
            yield from _join(waiting)
            waiting, rows = [], 0
        if passes:
            waiting.append(entry)
            rows += more
        else:
            yield entry
    if waiting:
        yield from _join(waiting)


def _join(entries: list[Entry]) -> list[Entry]:
    blocks = [entry.body for entry in entries if isinstance(entry.body, Readings)]
    if not blocks or len(entries) == 1:
        return entries[-1:]
    if len(blocks) == 1:
        return [replace(entries[-1], body=blocks[0])]
    metrics = sorted({metric for block in blocks for metric in block.values})

    def said(block: Readings, metric: Metric) -> Floats:
        value = block.values.get(metric)
        return np.full(len(block), np.nan) if value is None else value

    body = Readings(
        device_no=np.concatenate([block.device_no for block in blocks]),
        order=np.concatenate([block.order for block in blocks]),
        measured_at_ns=np.concatenate([block.measured_at_ns for block in blocks]),
        received_at_ns=np.concatenate([block.received_at_ns for block in blocks]),
        quality=np.concatenate([block.quality for block in blocks]),
        values={
            metric: np.concatenate([said(block, metric) for block in blocks]) for metric in metrics
        },
    )
    counted = body.order < 0
    if np.isin(body.device_no[counted], body.device_no[~counted]).any():
        # Where a device counts now and then and its clock errs, cuts may show.
        return entries
    return [replace(entries[-1], body=body)]
