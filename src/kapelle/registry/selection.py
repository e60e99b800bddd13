"""Queries that name the devices of a resource: `kind:battery,ev zone:north`.

A selection is `all`, or terms `key:value[,value…]` divided by spaces. A device belongs if every
term holds, and a term holds if any of its values does. Values are compared exactly (kinds without
regard to case); one with spaces, commas or colons stands in double quotes: `vendor:"Sun, Inc."`.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from sqlalchemy import ColumnElement, and_, true

from kapelle.errors import Invalid, Problem
from kapelle.model.enums import DeviceKind
from kapelle.registry.tables import devices

EVERYTHING = "all"
COLUMN_OF: Mapping[str, str] = {
    "kind": "kind",
    "vendor": "vendor",
    "model": "model",
    "zone": "zone",
    "feeder": "feeder",
    "provider": "provider",
    "adapter": "adapter",
    "site": "site",
    "id": "device_id",
}
"""Column of `tables.devices` behind each key."""
KINDS: Mapping[str, DeviceKind] = {kind.name.lower(): kind for kind in DeviceKind}
_TOKEN = re.compile(r'\s*(?:(?P<word>[^\s:,"]+)|"(?P<quoted>(?:[^"]|"")*)"|(?P<mark>[:,]))')
Value = str | int


@dataclass(frozen=True, slots=True)
class Selection:
    """A parsed query."""

    terms: tuple[tuple[str, frozenset[Value]], ...]
    """Column and accepted values of each term; none: everything."""

    def matches(self, row: Mapping[str, object]) -> bool:
        """Return whether a device's columns fulfil every term."""
        return all(row[column] in values for column, values in self.terms)

    def clause(self) -> ColumnElement[bool]:
        """Return the same question in SQL, about `tables.devices`."""
        terms = [devices.c[column].in_(sorted(values)) for column, values in self.terms]
        return and_(true(), *terms)


def parse(text: str) -> Selection:
    """Read a selection. Raises Invalid, naming the place and the remedy."""
    if text.strip() == EVERYTHING:
        return Selection(())
    tokens = _tokens(text)
    if not tokens:
        _refuse(text, 0, "says nothing", f"write `{EVERYTHING}` for every device")
    terms: dict[str, frozenset[Value]] = {}
    at = 0
    while at < len(tokens):
        column = _key(text, tokens, at)
        if column in terms:
            remedy = "put its values into one term, divided by commas: any of them will do"
            _refuse(text, tokens[at].start, f"`{tokens[at].text}` stands twice", remedy)
        values, at = _values(text, tokens, at + 2, column)
        terms[column] = frozenset(values)
    return Selection(tuple(terms.items()))


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    end: int
    mark: bool


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        token = _TOKEN.match(text, at)
        if token is None:
            at = text.index('"', at)
            _refuse(text, at, "a quotation mark that nothing closes", 'close it with another "')
        which = token.lastgroup
        assert which is not None
        said = token[which].replace('""', '"') if which == "quoted" else token[which]
        start = token.start(which) - (which == "quoted")
        found.append(_Token(said, start, token.end(), which == "mark"))
        at = token.end()
    return found


def _key(text: str, tokens: list[_Token], at: int) -> str:
    key = tokens[at]
    if key.mark:
        _refuse(text, key.start, f"`{key.text}` where a key should stand", _KEYS)
    if at + 1 == len(tokens) or tokens[at + 1].text != ":" or not tokens[at + 1].mark:
        remedy = f"write it as key:value; {_KEYS}"
        if key.text == EVERYTHING:
            remedy = f"`{EVERYTHING}` stands alone; leave it out, terms narrow everything down"
        _refuse(text, key.start, f"`{key.text}` is not a term", remedy)
    if key.text.lower() not in COLUMN_OF:
        near = difflib.get_close_matches(key.text.lower(), COLUMN_OF, 1)
        remedy = f"did you mean `{near[0]}`?" if near else _KEYS
        _refuse(text, key.start, f"there is no key `{key.text}`", remedy)
    return COLUMN_OF[key.text.lower()]


_KEYS = f"keys are {', '.join(COLUMN_OF)}"


def _values(text: str, tokens: list[_Token], at: int, column: str) -> tuple[list[Value], int]:
    values: list[Value] = []
    while True:
        if at == len(tokens) or tokens[at].mark:
            place = tokens[at - 1].end
            _refuse(text, place, f"a value is missing after `{tokens[at - 1].text}`", _MISSING)
        values.append(_value(text, tokens[at], column))
        at += 1
        if at == len(tokens) or not (tokens[at].mark and tokens[at].text == ","):
            return values, at
        at += 1


_MISSING = "write one, or several divided by commas"


def _value(text: str, token: _Token, column: str) -> Value:
    if column != "kind":
        return token.text
    name = token.text.lower().replace("-", "_")
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, 1)
        remedy = f"did you mean `{near[0]}`?" if near else f"kinds are {', '.join(KINDS)}"
        _refuse(text, token.start, f"there is no kind `{token.text}`", remedy)
    return int(KINDS[name])


def _refuse(text: str, at: int, what: str, remedy: str) -> NoReturn:
    raise Invalid(f"selection {text!r}", [Problem(f"character {at + 1}", what, remedy)])
