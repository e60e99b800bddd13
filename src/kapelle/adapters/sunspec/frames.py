"""Modbus TCP in the two functions SunSpec needs: read holding registers, write several registers.

Source: MODBUS Application Protocol Specification V1.1b3, 6.3, 6.12 and 7; MODBUS Messaging on
TCP/IP Implementation Guide V1.0b, 3.1.3 (header).
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

READ, WRITE = 3, 16
_FAILED = 0x80
Request = Callable[[int], bytes]
"""Makes a request of a transaction number."""
HEADER_SIZE = 7
_HEADER = struct.Struct(">HHHB")
_PDU_MAX = 253
WRITE_MAX = 123
"""Registers one request may write."""


class Header(NamedTuple):
    """What stands before every answer."""

    transaction: int
    size: int
    """Bytes that follow."""
    unit: int


class Exceptional(IntEnum):
    """Why a device declines a request."""

    ILLEGAL_FUNCTION = 1
    ILLEGAL_ADDRESS = 2
    ILLEGAL_VALUE = 3
    DEVICE_FAILURE = 4
    ACKNOWLEDGE = 5
    BUSY = 6
    MEMORY_PARITY = 8
    GATEWAY_PATH = 10
    GATEWAY_TARGET = 11


class Mismatch(ValueError):
    """Bytes that are no answer to the question: nothing on this connection can be trusted now."""


class Answer(NamedTuple):
    """What a device answered."""

    raw: bytes
    """The registers that were read."""
    exception: int = 0
    """Why it declined; 0 where it did not."""


def read(transaction: int, unit: int, address: int, count: int) -> bytes:
    """Encode a request to read registers."""
    return _framed(transaction, unit, struct.pack(">BHH", READ, address, count))


def write(transaction: int, unit: int, address: int, raw: bytes) -> bytes:
    """Encode a request to write registers."""
    count = len(raw) // 2
    assert 0 < count <= WRITE_MAX
    return _framed(transaction, unit, struct.pack(">BHHB", WRITE, address, count, len(raw)) + raw)


def header(raw: bytes) -> Header:
    """Decode the seven bytes before an answer. Raises Mismatch."""
    transaction, protocol, size, unit = _HEADER.unpack(raw)
    # The size counts the unit as well.
    if protocol != 0 or not 2 <= size - 1 <= _PDU_MAX:
        raise Mismatch("the answer is not Modbus TCP")
    return Header(transaction, size - 1, unit)


def answer(asked: bytes, head: Header, pdu: bytes) -> Answer:
    """Decode an answer to a request of ours. Raises Mismatch where it is none."""
    transaction, _, _, unit = _HEADER.unpack(asked[:HEADER_SIZE])
    if (head.transaction, head.unit) != (transaction, unit):
        raise Mismatch(
            f"asked unit {unit} (transaction {transaction}), "
            f"answered unit {head.unit} (transaction {head.transaction})"
        )
    function = asked[HEADER_SIZE]
    if pdu[0] == function | _FAILED and len(pdu) == 2 and pdu[1]:
        return Answer(b"", pdu[1])
    if function == READ:
        size = 2 * int.from_bytes(asked[HEADER_SIZE + 3 : HEADER_SIZE + 5], "big")
        if pdu[:2] == bytes([READ, size]) and len(pdu) == 2 + size:
            return Answer(pdu[2:])
    elif pdu == asked[HEADER_SIZE : HEADER_SIZE + 5]:
        return Answer(b"")
    raise Mismatch(f"function {function} was answered by {pdu[:8].hex()}")


def why(exception: int) -> str:
    """Return an exception code in words."""
    known = {code.value: code.name.lower().replace("_", " ") for code in Exceptional}
    return f"Modbus exception {exception} ({known.get(exception, 'unknown')})"


def _framed(transaction: int, unit: int, pdu: bytes) -> bytes:
    return _HEADER.pack(transaction, 0, len(pdu) + 1, unit) + pdu
