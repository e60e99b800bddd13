"""Bodies survive the codec bit for bit, and no bytes on earth break it."""

import contextlib
import struct
import tracemalloc
from dataclasses import fields
from types import UnionType
from typing import Literal, Union, get_origin

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from kapelle.errors import JournalDamaged
from kapelle.journal import codec
from kapelle.journal.codec import JournalNewer, decode, encode
from kapelle.model.blocks import Enrolled
from kapelle.model.entries import BODY_OF, KIND_OF, Kind
from kapelle.model.enums import Metric
from kapelle.model.plant import Tick
from kapelle.model.signals import Signal

BLOCKS = [kind for kind, body in BODY_OF.items() if hasattr(body, "COLUMNS")]
SMALL = [kind for kind in Kind if kind not in BLOCKS]


@st.composite
def blocks(draw, kind=None):
    body = BODY_OF[kind or draw(st.sampled_from(BLOCKS))]
    rows = draw(st.integers(0, 5))
    columns = {}
    for name, dtype in body.COLUMNS.items():
        if dtype is bytes:
            values = st.lists(st.binary(max_size=9), min_size=rows, max_size=rows)
            columns[name] = tuple(draw(values))
        else:
            columns[name] = draw(hnp.arrays(dtype, rows))
    if body is BODY_OF[Kind.READINGS]:
        metrics = draw(st.sets(st.sampled_from(Metric)))
        columns["values"] = {m: draw(hnp.arrays(np.float64, rows)) for m in sorted(metrics)}
    return body(**columns)


def small_bodies():
    def fill(kind):
        body = BODY_OF[kind]
        values = {}
        for field in msgspec.structs.fields(body):
            values[field.name] = _strategy(field.type)
        return st.builds(body, **values)

    return st.sampled_from(SMALL).flatmap(fill)


def _strategy(kind):
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.builds(kind, **{f.name: _strategy(f.type) for f in msgspec.structs.fields(kind)})
    origin, arguments = get_origin(kind), getattr(kind, "__args__", ())
    if origin is list:
        return st.lists(_strategy(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(_strategy(arguments[0]), _strategy(arguments[1]), max_size=3)
    if origin in (Union, UnionType):
        return st.one_of([st.none() if a is type(None) else _strategy(a) for a in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(_strategy(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(_strategy(a) for a in arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    return {
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False),
        str: st.text(max_size=8),
        bytes: st.binary(max_size=8),
        bool: st.booleans(),
    }[kind]


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, msgspec.Struct):
        assert one == other
        return
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "values":
            assert list(a) == list(b)
            for metric in a:
                assert a[metric].tobytes() == b[metric].tobytes()
        elif isinstance(a, tuple):
            assert a == b
        else:
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())


@given(blocks())
def test_a_block_comes_back_bit_for_bit(block):
    again = decode(KIND_OF[type(block)], encode(block))
    assert_same(block, again)
    assert encode(again) == encode(block)


@given(small_bodies())
def test_a_small_body_comes_back(body):
    assert_same(body, decode(KIND_OF[type(body)], encode(body)))


def test_arrays_are_looked_at_where_they_lie_and_cannot_be_written(block_maker):
    encoded = encode(block_maker(100))
    block = decode(Kind.READINGS, encoded)
    for array in (block.device_no, block.order, block.quality, *block.values.values()):
        assert not array.flags.owndata
        assert not array.flags.writeable
        assert array.flags.aligned


@settings(max_examples=300)
@given(st.sampled_from(Kind), st.binary(max_size=200))
def test_arbitrary_bytes_are_at_most_damaged(kind, encoded):
    check_harmless(kind, encoded)


@settings(max_examples=300)
@given(st.one_of(blocks(), small_bodies()), st.data())
def test_mutated_bytes_are_at_most_damaged(body, data):
    kind, encoded = KIND_OF[type(body)], bytearray(encode(body))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(encoded) - 1))
        encoded[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(encoded)))
    check_harmless(kind, bytes(encoded))
    check_harmless(kind, bytes(encoded[:cut]))


def check_harmless(kind, encoded):
    with contextlib.suppress(JournalDamaged):
        decode(kind, encoded)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("rows", [1 << 16, (1 << 32) - 1])
def test_a_header_cannot_promise_more_than_there_is(kind, rows):
    encoded = bytearray(encode(BODY_OF[kind](**_empty(kind))))
    encoded[4:8] = rows.to_bytes(4, "little")
    encoded += bytes(4096)
    tracemalloc.start()
    try:
        with pytest.raises(JournalDamaged):
            decode(kind, bytes(encoded))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def _empty(kind):
    columns = BODY_OF[kind].COLUMNS.items()
    made = {name: () if dtype is bytes else np.empty(0, dtype) for name, dtype in columns}
    return made | ({"values": {}} if kind is Kind.READINGS else {})


@pytest.mark.parametrize(
    "deep",
    [
        b"\x82\xa4type\xa4Tick\xa1z" + b"\x91" * 100_000,
        b"\x81\xa1z" * 50_000,
        b"\xdd\xff\xff\xff\xff",
    ],
)
def test_hostile_messagepack_is_damage(deep):
    with pytest.raises(JournalDamaged):
        decode(Kind.TICK, encode(Tick(1))[:8] + deep)


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("body", [Tick(1), None])
def test_a_newer_version_is_named(place, body, block_maker):
    body = body or block_maker(3)
    encoded = bytearray(encode(body))
    encoded[place] += 1
    with pytest.raises(JournalNewer, match="install the version that wrote it"):
        decode(KIND_OF[type(body)], bytes(encoded))


FUTURE_METRIC = max(Metric) + 1


@pytest.mark.parametrize(
    ("place", "bit", "named"),
    [(8, len(codec._COLUMNS[Kind.READINGS]), "column 5"), (12, FUTURE_METRIC, "metric 10")],
)
def test_what_only_a_newer_kapelle_knows_is_newer_and_no_damage(place, bit, named, block_maker):
    encoded = bytearray(encode(block_maker(3)))
    bits = int.from_bytes(encoded[place : place + 4], "little") | 1 << bit
    encoded[place : place + 4] = bits.to_bytes(4, "little")
    encoded += bytes(3 * 8)
    with pytest.raises(JournalNewer, match=f"{named}, .* install the version that wrote it"):
        decode(Kind.READINGS, bytes(encoded))


def test_a_block_without_a_new_metric_is_read_by_who_does_not_know_it(monkeypatch, block_maker):
    without = block_maker(3)
    newer = encode(without)
    monkeypatch.setattr(codec, "_METRIC_BITS", sum(1 << metric for metric in without.values))
    assert_same(without, decode(Kind.READINGS, newer))


def test_columns_an_older_writer_did_not_know_are_filled_in(monkeypatch, block_maker):
    known = codec._COLUMNS[Kind.READINGS]
    block = block_maker(3)
    monkeypatch.setitem(codec._COLUMNS, Kind.READINGS, known[:4])
    old = encode(block)
    monkeypatch.setitem(codec._COLUMNS, Kind.READINGS, known)
    again = decode(Kind.READINGS, old)
    assert again.quality.tolist() == [0, 0, 0]
    assert again.order.tolist() == block.order.tolist()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"order": np.zeros(2, np.int64)}, "column order has shape"),
        ({"device_no": np.zeros(3)}, "column device_no is float64"),
        ({"values": {Metric.SOC: np.zeros(4)}}, "column SOC"),
    ],
)
def test_a_block_that_would_lose_values_is_refused(changed, message, block_maker):
    block = block_maker(3)
    columns = {f.name: getattr(block, f.name) for f in fields(block)} | changed
    with pytest.raises(ValueError, match=message):
        encode(type(block)(**columns))


def test_the_checksum_covers_every_part_of_an_entry():
    parts = ("p/0", 1, 20, "owner", 3, 4, 5)
    others = ("p/1", 2, 21, "owneR", 4, 5, 6)
    seals = {codec.checksum(*parts)}
    for place, other in enumerate(others):
        seals.add(codec.checksum(*parts[:place], other, *parts[place + 1 :]))
    assert len(seals) == len(parts) + 1


def test_nan_survives_in_small_bodies():
    body = Signal("all", 1, float("nan"), -0.0, 1, 2)
    again = decode(Kind.SIGNAL, encode(body))
    assert np.isnan(again.level)
    assert np.signbit(again.block_level)


@pytest.mark.parametrize("known", [19, 21])
def test_a_reader_fills_in_what_an_older_writer_did_not_know(known: int) -> None:
    names = (b"a", b"b")
    plain = {name: names for name, dtype in Enrolled.COLUMNS.items() if dtype is bytes}
    plain |= {
        name: np.ones(2, dtype) for name, dtype in Enrolled.COLUMNS.items() if dtype is not bytes
    }
    older = bytearray(encode(Enrolled(**plain)))
    younger = list(Enrolled.COLUMNS.items())[known:]
    struct.pack_into("<H", older, 2, 1)
    struct.pack_into("<I", older, 8, (1 << known) - 1)
    # Two rows of any plain column fill up to a multiple of 8 bytes.
    unknown = sum(-(-2 * np.dtype(dtype).itemsize // 8) * 8 for _, dtype in younger)
    found = decode(Kind.ENROLLED, bytes(older[:-unknown]))
    assert isinstance(found, Enrolled)
    assert found.report_every_s.tolist() == [1.0, 1.0]
    for name, dtype in younger:
        column = getattr(found, name)
        assert np.isnan(column).all() if dtype == np.float64 else not column.any()
