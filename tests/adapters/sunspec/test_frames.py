"""Modbus TCP frames: the standard's own examples, and everything that is none."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.sunspec import frames
from kapelle.adapters.sunspec.frames import HEADER_SIZE, Answer, Header, Mismatch

# MODBUS Application Protocol Specification V1.1b3, the examples of 6.3 and 6.12.
READ_ASKED = bytes.fromhex("03006b0003")
READ_ANSWERED = bytes.fromhex("0306022b00000064")
WRITE_ASKED = bytes.fromhex("100001000204000a0102")
WRITE_ANSWERED = bytes.fromhex("1000010002")


def test_the_examples_of_the_standard() -> None:
    read = frames.read(0x1501, 17, 0x6B, 3)
    assert read == bytes.fromhex("150100000006 11") + READ_ASKED
    write = frames.write(2, 17, 1, bytes.fromhex("000a0102"))
    assert write == bytes.fromhex("00020000000b 11") + WRITE_ASKED
    head = frames.header(bytes.fromhex("150100000009 11"))
    assert head == Header(0x1501, 8, 17)
    assert frames.answer(read, head, READ_ANSWERED) == Answer(bytes.fromhex("022b00000064"))
    assert frames.answer(write, Header(2, 5, 17), WRITE_ANSWERED) == Answer(b"")


@pytest.mark.parametrize(
    ("head", "pdu"),
    [
        (Header(8, 8, 17), READ_ANSWERED),  # an answer to somebody else, or too late
        (Header(7, 8, 18), READ_ANSWERED),  # another unit
        (Header(7, 8, 17), READ_ANSWERED[:-1]),  # short
        (Header(7, 8, 17), b"\x03\x04\x00\x00\x00\x00"),  # fewer registers than asked
        (Header(7, 8, 17), WRITE_ANSWERED),
        (Header(7, 2, 17), b"\x83\x00"),
        (Header(7, 2, 17), b"\x90\x02"),
    ],
)
def test_what_is_no_answer_is_refused(head: Header, pdu: bytes) -> None:
    with pytest.raises(Mismatch):
        frames.answer(frames.read(7, 17, 0x6B, 3), head, pdu)


@pytest.mark.parametrize("raw", ["150100010009 11", "1501000000ff 11", "150100000001 11"])
def test_another_protocol_and_impossible_sizes_are_refused(raw: str) -> None:
    with pytest.raises(Mismatch):
        frames.header(bytes.fromhex(raw))


def test_an_exception_is_an_answer() -> None:
    asked = frames.read(7, 17, 0x6B, 3)
    assert frames.answer(asked, Header(7, 2, 17), b"\x83\x06") == Answer(b"", 6)
    assert frames.why(6) == "Modbus exception 6 (busy)"
    assert "99" in frames.why(99)


@given(st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE), st.binary(min_size=1, max_size=300))
def test_whatever_comes_is_an_answer_or_a_mismatch(raw: bytes, pdu: bytes) -> None:
    asked = frames.read(7, 17, 0x6B, 3)
    with contextlib.suppress(Mismatch):
        head = frames.header(raw)
        assert 1 <= head.size <= 253
    with contextlib.suppress(Mismatch):
        answer = frames.answer(asked, Header(7, len(pdu), 17), pdu)
        assert len(answer.raw) == 6 or answer.exception
