"""OCPP-J frames: calls, results and errors as JSON arrays, one per WebSocket message. Pure.

Source: OCPP 1.6 JSON 4.2 and 2.1 part 4, 4.2. OCPP 2.1 adds 5 (CALLRESULTERROR) and 6 (SEND).
"""

from typing import Final, NamedTuple

import msgspec

CALL: Final = 2
RESULT: Final = 3
ERROR: Final = 4
RESULT_ERROR: Final = 5
SEND: Final = 6

_ID_CHARS_MAX = 64
"""36 by the specification; some stations use longer ones."""
_ACTION_CHARS_MAX = 64
_BROKEN = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_frame = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode


class Call(NamedTuple):
    """A station asks something, or tells it."""

    id: str
    action: str
    payload: bytes
    expects_result: bool = True
    """False for SEND."""


class Result(NamedTuple):
    """A station's answer to a call of ours."""

    id: str
    payload: bytes


class Error(NamedTuple):
    """A station could not make anything of a call, or of a result, of ours."""

    id: str
    code: str
    description: str


class Broken(NamedTuple):
    """What is no frame."""

    reason: str
    """`code: place: what; remedy`."""
    id: str = "-1"
    """Of the call, where that much can be read; `-1` as 2.0.1 part 4, 4.2.3 has it."""


def decode(text: bytes) -> Call | Result | Error | Broken:
    """Read one WebSocket message. Its size was bounded before."""
    try:
        parts = _frame.decode(text)
        kind = msgspec.json.decode(parts[0], type=int)
        if len(parts) < 3:
            return Broken(f"frame: /: has {len(parts)} parts; send [2, id, action, {{…}}]")
        name = _text.decode(parts[1])
        if not 0 < len(name) <= _ID_CHARS_MAX:
            return Broken("frame: /1: is no id; send a UUID")
        if kind in (CALL, SEND):
            if len(parts) != 4:
                return Broken("frame: /: a call has 4 parts; send [2, id, action, {…}]", name)
            action = _text.decode(parts[2])
            if not 0 < len(action) <= _ACTION_CHARS_MAX:
                return Broken("frame: /2: is no action; send its name", name)
            return Call(name, action, bytes(parts[3]), kind == CALL)
        if kind == RESULT:
            return Result(name, bytes(parts[2]))
        if kind in (ERROR, RESULT_ERROR):
            description = _text.decode(parts[3])[:255] if len(parts) > 3 else ""
            return Error(name, _text.decode(parts[2])[:_ACTION_CHARS_MAX], description)
    except IndexError:
        return Broken("frame: /: is empty; send [2, id, action, {…}]")
    except _BROKEN as error:
        what = "is nested too deeply" if isinstance(error, RecursionError) else "is no JSON array"
        return Broken(f"frame: /: {what} of the usual form; send [2, id, action, {{…}}]")
    return Broken(f"frame: /0: there is no message type {kind}; send 2, 3 or 4")


def call(name: str, action: str, payload: object) -> str:
    """Write a call."""
    return _encode([CALL, name, action, payload]).decode()


def kept(asked: Call) -> bytes:
    """Return a call as the quarantine keeps it: a repeated one is the same row but for its id."""
    return b'[2,"-",%b,%b]' % (_encode(asked.action), asked.payload)


def result(name: str, payload: object) -> str:
    """Write the answer to a call."""
    return _encode([RESULT, name, payload]).decode()


def error(name: str, code: str, description: str) -> str:
    """Write that a call came to nothing, and why."""
    return _encode([ERROR, name, code, description[:255], {}]).decode()
