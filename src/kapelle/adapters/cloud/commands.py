"""What a vendor's cloud is asked for so that a device does what it should. Pure."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from kapelle.adapters import quantities
from kapelle.adapters.cloud.documents import CloudCommand

_IDLE_W = 1.0
"""A setpoint below this asks for nothing either way."""
_DOTS = re.compile(r"\.*")


class Request(NamedTuple):
    """One request of a vendor's API."""

    method: str
    path: str
    content: bytes = b""


def fill(path: str, **given: str) -> str:
    """Return a path with what stands in braces put in, so that it stays one step of the path.

    Raises:
        ValueError: What was given would be another place: nothing, or dots alone.
    """
    for name, value in given.items():
        if _DOTS.fullmatch(value):
            raise ValueError(f"{value!r} is no {name}")
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return path


def request(
    commands: Sequence[CloudCommand],
    *,
    setpoint_w: float,
    revert_s: float,
    revision: int,
    address: str,
    shape: str,
) -> Request | str:
    """Return how to tell a device a setpoint, or why that cannot be said.

    Args:
        commands: The mapping; the first that fits is used.
        setpoint_w: Positive towards the grid, NaN releases the device. [W]
        revert_s: How long it holds without a further command; NaN: for ever. [s]
        revision: Of the command.
        address: The vendor's id of the device.
        shape: What the device was last seen as; empty: not yet.
    """
    fitting = meant(setpoint_w)
    command = next(
        (c for c in commands if c.when in fitting and (not c.shapes or shape in c.shapes)), None
    )
    if command is None:
        which = f'when = "{fitting[0]}"' + (f' and shapes = ["{shape}"]' if shape else "")
        return f"the mapping has no command for it: add [[clouds.cloud.commands]] with {which}"
    given: dict[str, object] = {"$address": address, "$revision": revision}
    if command.positive:
        given["$value"] = quantities.theirs(setpoint_w, command.unit, command.positive)
    if '"$duration_s"' in command.body:
        if math.isnan(revert_s):
            return "its command carries a duration; enrol it with revert_s"
        given["$duration_s"] = round(revert_s)
    content = msgspec.json.encode(_put(_template(command.body), given)) if command.body else b""
    try:
        return Request(command.method, fill(command.path, address=address), content)
    except ValueError as error:
        return str(error)


def meant(setpoint_w: float) -> tuple[str, ...]:
    """Return the `when` of commands that fit a setpoint, the narrowest first."""
    if math.isnan(setpoint_w):
        return ("release",)
    if abs(setpoint_w) < _IDLE_W:
        return ("idle", "set")
    return ("export" if setpoint_w > 0 else "import", "set")


@lru_cache(maxsize=1_000)
def _template(body: str) -> Any:
    return msgspec.json.decode(body)


def _put(template: Any, given: dict[str, object]) -> Any:
    if isinstance(template, str):
        return given.get(template, template)
    if isinstance(template, list):
        return [_put(one, given) for one in template]
    if isinstance(template, dict):
        return {key: _put(one, given) for key, one in template.items()}
    return template
