"""Cuts blocks: rows out of a block, blocks into one, one block into its partitions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kapelle.model.blocks import Acks, Mutings, Quarantined, Readings, Sessions
from kapelle.model.enums import Metric
from kapelle.model.ids import Floats, Ints

Rows = NDArray[np.intp]
Block = TypeVar("Block", Readings, Quarantined, Sessions, Acks, Mutings)


def take(block: Block, rows: Rows) -> Block:
    """Return these rows of a block, in this order. Metrics that no row has are left out."""
    columns: dict[str, object] = {}
    for name, dtype in block.COLUMNS.items():
        column = getattr(block, name)
        if dtype is bytes:
            columns[name] = tuple(column[row] for row in rows.tolist())
        else:
            columns[name] = column[rows]
    if isinstance(block, Readings):
        columns["values"] = _present({m: column[rows] for m, column in block.values.items()})
    made: Block = type(block)(**columns)  # type: ignore[arg-type]  # columns by their own names
    return made


def join(blocks: Sequence[Block]) -> Block:
    """Return the rows of all blocks, in order. At least one block is given."""
    if len(blocks) == 1:
        return blocks[0]
    first = blocks[0]
    columns: dict[str, object] = {}
    for name, dtype in first.COLUMNS.items():
        parts = [getattr(block, name) for block in blocks]
        if dtype is bytes:
            columns[name] = tuple(value for part in parts for value in part)
        else:
            columns[name] = np.concatenate(parts)
    if isinstance(first, Readings):
        columns["values"] = _joined([(len(block), _values(block)) for block in blocks])
    made: Block = type(first)(**columns)  # type: ignore[arg-type]  # columns by their own names
    return made


def split(block: Block, partitions: int) -> Iterator[tuple[int, Block]]:
    """Yield each partition that has rows, ascending, with its rows in the order they had.

    Rows without a device (`device_no` -1) go to partition 0: they belong to nobody, and one place
    to look for them is enough.
    """
    if len(block) == 0:
        return
    owner = partition_of(block.device_no, partitions)
    lowest = int(owner[0])
    if partitions == 1 or bool((owner == lowest).all()):
        yield lowest, block
        return
    rows = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[rows], np.arange(partitions), side="right")
    start = 0
    for partition, end in enumerate(ends.tolist()):
        if end > start:
            yield partition, take(block, rows[start:end])
        start = end


def partition_of(device_no: Ints, partitions: int) -> NDArray[np.uint16]:
    """Return the partition of each device; 0 for rows without one."""
    # Sixteen bits: NumPy sorts those by radix, three times faster than longer ones.
    return (np.maximum(device_no, 0) % np.int32(partitions)).astype(np.uint16)


def _values(block: object) -> Mapping[Metric, Floats]:
    return block.values if isinstance(block, Readings) else {}


def _joined(parts: Sequence[tuple[int, Mapping[Metric, Floats]]]) -> dict[Metric, Floats]:
    metrics = sorted({metric for _, values in parts for metric in values})
    unsaid = {length: np.full(length, np.nan) for length, _ in parts}
    return {
        metric: np.concatenate([values.get(metric, unsaid[length]) for length, values in parts])
        for metric in metrics
    }


def _present(values: dict[Metric, Floats]) -> dict[Metric, Floats]:
    return {metric: column for metric, column in values.items() if not np.isnan(column).all()}
