"""Cutting blocks loses nothing and keeps the order within a device."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.ingest.partition import join, split, take
from kapelle.model.blocks import Acks, Quarantined, Readings, Sessions
from kapelle.model.enums import Metric

devices = st.lists(st.integers(-1, 9), max_size=12)


def readings(device_no: list[int], metric: Metric = Metric.POWER_W) -> Readings:
    count = len(device_no)
    rank = np.arange(count, dtype=np.int64)
    return Readings(
        np.array(device_no, np.int32), rank, rank, rank, np.zeros(count, np.uint8),
        {metric: np.arange(count, dtype=np.float64)},
    )  # fmt: skip


def acks(device_no: list[int]) -> Acks:
    rank = np.arange(len(device_no), dtype=np.int64)
    reasons = tuple(f"r{n}".encode() for n in range(len(device_no)))
    nos = np.array(device_no, np.int32)
    return Acks(nos, rank, rank, np.ones(len(rank), np.uint8), rank, reasons)


def quarantined(device_no: list[int]) -> Quarantined:
    rank = np.arange(len(device_no), dtype=np.int64)
    texts = tuple(str(n).encode() for n in range(len(device_no)))
    return Quarantined(np.array(device_no, np.int32), rank, texts, texts, texts)


def sessions(device_no: list[int]) -> Sessions:
    rank = np.arange(len(device_no), dtype=np.int64)
    return Sessions(np.array(device_no, np.int32), np.ones(len(rank), np.uint8), rank, rank)


@pytest.mark.parametrize("make", [readings, acks, quarantined, sessions])
@given(device_no=devices, partitions=st.integers(1, 4))
def test_split_is_a_partition_in_order(make: Any, device_no: list[int], partitions: int) -> None:
    block = make(device_no)
    parts = list(split(block, partitions))
    assert [k for k, _ in parts] == sorted({max(n, 0) % partitions for n in device_no})
    for partition, part in parts:
        mine = [row for row, n in enumerate(device_no) if max(n, 0) % partitions == partition]
        for name, dtype in type(block).COLUMNS.items():
            whole, got = getattr(block, name), getattr(part, name)
            expected = [whole[row] for row in mine]
            assert list(got) == expected, name
            if dtype is not bytes:
                assert got.dtype == dtype
        if isinstance(part, Readings):
            np.testing.assert_array_equal(
                part.values[Metric.POWER_W], block.values[Metric.POWER_W][mine]
            )


@pytest.mark.parametrize("make", [readings, acks, quarantined, sessions])
@given(cut=st.integers(0, 5), device_no=st.lists(st.integers(0, 9), min_size=5, max_size=9))
def test_joining_the_pieces_is_the_whole(make: Any, device_no: list[int], cut: int) -> None:
    block = make(device_no)
    rows = np.arange(len(device_no))
    again = join([take(block, rows[:cut]), take(block, rows[cut:])])
    for name in type(block).COLUMNS:
        assert list(getattr(again, name)) == list(getattr(block, name))
    if isinstance(block, Readings):
        np.testing.assert_array_equal(again.values[Metric.POWER_W], block.values[Metric.POWER_W])


def test_what_one_block_did_not_say_stays_unsaid() -> None:
    joined = join([readings([1, 2]), readings([3], Metric.SOC)])
    np.testing.assert_array_equal(joined.values[Metric.POWER_W], [0, 1, np.nan])
    np.testing.assert_array_equal(joined.values[Metric.SOC], [np.nan, np.nan, 0])
    assert set(take(joined, np.array([2])).values) == {Metric.SOC}


def test_long_blocks_keep_the_order_within_a_device_too() -> None:
    device_no = np.random.default_rng(1).integers(0, 7, 5_000).tolist()
    for partition, part in split(readings(device_no), 4):
        mine = [row for row, n in enumerate(device_no) if n % 4 == partition]
        assert part.order.tolist() == mine
