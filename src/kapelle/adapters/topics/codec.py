"""What stands in payloads of other people's topics, and in the templates that point at it. Pure.

Whatever a payload holds, nothing here raises: what cannot be used is named, what is not said is
left out.
"""

import math
import re
from typing import Any, NamedTuple

import msgspec

from kapelle.adapters.cloud.mapping import Broken, decode, moment_at, number_at

_TEMPLATE_CHARS_MAX = 512
_TEXT_CHARS_MAX = 256
_SILENT = ("", "None", "null", "unknown", "unavailable", "nan")
"""Words for "nothing": Home Assistant's, and of what publishes for it."""
_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d{1,12}(?:\.\d{1,12})?)|(?P<name>[A-Za-z_]\w{0,63})"
    r"|(?P<key>'[^'\\]{1,64}'|\"[^\"\\]{1,64}\")|(?P<mark>[\[\]().|*/]))"
)
_OUTER = re.compile(r"\s*\{\{(?P<inner>[^{}]*)\}\}\s*")
_PLACE = re.compile(r"\{\{\s*value\s*\}\}")
_DEPTH_MAX = 8


class Spot(NamedTuple):
    """Where something stands in a payload, and what is done to it there."""

    steps: tuple[str, ...] | None = None
    """Keys and places in its JSON; None: the payload itself."""
    changes: tuple[tuple[str, float], ...] = ()
    """In order: `times` a factor, `round` to so many places, `int`."""

    @property
    def place(self) -> str:
        """Return how an operator finds it."""
        return "payload" if self.steps is None else ".".join(self.steps) or "document"


def at_path(path: str) -> Spot:
    """Return the spot of a dotted path; an empty one is the whole payload."""
    return Spot(tuple(path.split(".")) if path else None)


class Payload:
    """One payload, decoded as far as somebody asks."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._document: Any = None
        self._is_decoded = False

    def find(self, spot: Spot) -> Any:
        """Return what stands at a spot, None where nothing does, or `Broken`."""
        if not self.raw:
            return None
        if spot.steps is None:
            try:
                return self.raw.decode().strip()
            except UnicodeDecodeError:
                return Broken("text: payload: is no UTF-8; mend what the device sends")
        if not self._is_decoded:
            self._is_decoded = True
            self._document = decode(self.raw)
        found = self._document
        for step in spot.steps:
            if isinstance(found, dict):
                found = found.get(step)
            elif isinstance(found, list) and step.isdecimal() and int(step[:9]) < len(found):
                found = found[int(step[:9])]
            elif found is None or isinstance(found, Broken):
                break
            else:
                return Broken(f"shape: {spot.place}: is not in this payload; mend the path")
        return found

    def number(self, spot: Spot) -> float | Broken | None:
        """Return the number at a spot, None where it says nothing."""
        found = self.find(spot)
        if isinstance(found, Broken) or (isinstance(found, str) and found in _SILENT):
            return found if isinstance(found, Broken) else None
        value = number_at(found, spot.place)
        if not isinstance(value, float):
            return value
        for change, by in spot.changes:
            if change == "times":
                value *= by
            else:
                value = float(math.trunc(value)) if change == "int" else round(value, int(by))
        return value if math.isfinite(value) else None

    def text(self, spot: Spot) -> str | Broken | None:
        """Return the word at a spot, None where it says nothing; true and false are words."""
        found = self.find(spot)
        if found is None or isinstance(found, Broken):
            return found
        if isinstance(found, dict | list):
            return Broken(f"value-type: {spot.place}: is no word; mend the path")
        told = found if isinstance(found, str) else msgspec.json.encode(found).decode()
        return told[:_TEXT_CHARS_MAX]

    def moment(self, spot: Spot, form: str) -> int | Broken:
        """Return the time at a spot, in ns."""
        found = self.find(spot)
        return found if isinstance(found, Broken) else moment_at(found, spot.place, form)


def read_template(text: str) -> Spot | Broken:
    """Return the spot a `value_template` names, or why it is not followed.

    `value`, `value_json` with keys and places, the filters float, int and round, and a constant
    factor are followed. What is anything else could turn a sign or invent a number.
    """
    if not text.strip():
        return Spot()
    outer = _OUTER.fullmatch(text[:_TEMPLATE_CHARS_MAX])
    tokens = _tokens(outer["inner"]) if outer and len(text) <= _TEMPLATE_CHARS_MAX else None
    spot = _Reader(tokens).whole() if tokens else None
    if spot is None:
        return Broken(
            f"template: {text[:80]!r}: is no plain value; map the topic in [[topics.schemes]]"
        )
    return spot


def read_command_template(text: str) -> str | Broken:
    """Return a `command_template` with $value where `{{ value }}` stands, or why not."""
    told = _PLACE.sub("$value", text) if text.strip() else "$value"
    if "{{" in told or "{%" in told or "$value" not in told or len(told) > _TEMPLATE_CHARS_MAX:
        return Broken(
            f"template: {text[:80]!r}: is no plain value; map the topic in [[topics.schemes]]"
        )
    return told


def _tokens(inner: str) -> list[tuple[str, str]] | None:
    found: list[tuple[str, str]] = []
    at, inner = 0, inner.strip()
    while at < len(inner):
        match = _TOKEN.match(inner, at)
        if match is None:
            return None
        kind = str(match.lastgroup)
        found.append((kind, match[kind]))
        at = match.end()
    return found


class _Reader:
    """Reads one expression: `(value_json.a['b'] | float) * 1000 | round(1)` and the like."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0

    def whole(self) -> Spot | None:
        """Return the spot of everything, None where anything is not understood."""
        spot = self._product(0)
        return spot if self._at == len(self._tokens) else None

    def _product(self, depth: int) -> Spot | None:
        spot = self._filtered(depth)
        while spot is not None and (mark := self._next("mark", "*", "/")):
            # A filter binds to the number before it, in Jinja: `x * 10 | round` rounds the 10.
            factor = self._next("number")
            if not factor or float(factor) == 0 or self._peek() == ("mark", "|"):
                return None
            by = float(factor) if mark == "*" else 1 / float(factor)
            spot = spot._replace(changes=(*spot.changes, ("times", by)))
        return spot

    def _filtered(self, depth: int) -> Spot | None:
        if self._next("mark", "("):
            spot = self._product(depth + 1) if depth < _DEPTH_MAX else None
            if not self._next("mark", ")"):
                return None
        else:
            spot = self._named()
        while spot is not None and self._next("mark", "|"):
            spot = self._filter(spot)
        return spot

    def _named(self) -> Spot | None:
        name = self._next("name")
        if name == "value":
            return Spot()
        if name != "value_json":
            return None
        steps: list[str] = []
        while mark := self._next("mark", ".", "["):
            step = self._next("name") if mark == "." else self._key()
            if not step:
                return None
            steps.append(step)
        return Spot(tuple(steps))

    def _key(self) -> str:
        key = self._next("key")[1:-1] or self._next("number")
        return key if self._next("mark", "]") else ""

    def _filter(self, spot: Spot) -> Spot | None:
        name, given = self._next("name"), ""
        if self._next("mark", "("):
            # What to take instead of something unreadable, which is left out here, never 0.
            given = self._next("number")
            if not self._next("mark", ")"):
                return None
        if name == "float":
            return spot
        if name == "int":
            return spot._replace(changes=(*spot.changes, ("int", 0.0)))
        if name == "round" and 0 <= float(given or 0) <= 12:
            return spot._replace(changes=(*spot.changes, ("round", float(given or 0))))
        return None

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")

    def _next(self, kind: str, *wanted: str) -> str:
        found_kind, text = self._peek()
        if found_kind != kind or (wanted and text not in wanted):
            return ""
        self._at += 1
        return text
