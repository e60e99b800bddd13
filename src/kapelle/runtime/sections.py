"""Sections of a TOML file, and of the environment, as frozen dataclasses.

Every mistake is collected, with its place and a remedy.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import TypeVar, cast, get_args, get_origin

from kapelle.errors import Invalid, Problem
from kapelle.runtime.typed import (
    NOTHING,
    as_type,
    field_types,
    from_text,
    has_password,
    redact,
    required_fields,
    to_toml,
    type_name,
    type_remedy,
)

PREFIX = "KAPELLE_"
T = TypeVar("T")
Given = dict[tuple[str, str], tuple[object, str]]
"""Section and key -> the value as it was given, and where."""
_SECRET_NAME = re.compile(r"(^|_)(password|secret|token|passphrase)$")
_KEY = re.compile(r"^\s*(?P<key>[A-Za-z0-9_.\-\"']+)\s*=")
_TABLE = re.compile(r"^\s*\[+\s*(?P<table>[^\]]+?)\s*\]+")


def read(root: type[T], text: str, environment: Mapping[str, str], name: str) -> tuple[T, Given]:
    """Return the settings of a TOML text: a dataclass with one field for each section.

    Also what was given, and where. Raises `Invalid` like `load`.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = Problem(name, str(error), "mend the syntax at this place (see toml.io)")
        raise Invalid("the configuration is not TOML", [problem]) from error
    reader = _Reader(name, _lines_of_keys(text), sections_of(root))
    given = reader.from_file(tables) | reader.from_environment(environment)
    made: dict[str, object] = {}
    for section, settings_type in sections_of(root).items():
        values = {key: value for (where, key), (value, _) in given.items() if where == section}
        if values or section in tables or section not in _optional(root):
            made[section] = reader.build(settings_type, values, section)
    if reader.problems:
        raise Invalid("the configuration cannot be used", reader.problems)
    return _new(root, made), given


class _Reader:
    """Turns raw values into typed settings and collects what is wrong on the way."""

    def __init__(self, name: str, lines: Mapping[str, int], sections: Mapping[str, type]) -> None:
        self.problems: list[Problem] = []
        self._name = name
        self._lines = lines
        self._sections = sections
        self._place: dict[str, str] = {}
        """Dotted key -> where a person finds it."""

    def from_file(self, tables: Mapping[str, object]) -> Given:
        given: Given = {}
        for section, table in tables.items():
            settings_type = self._sections.get(section)
            if settings_type is None:
                self._unknown(self._at(section), f"[{section}]", section, list(self._sections))
            elif not isinstance(table, dict):
                inner = list(field_types(settings_type))
                only = len(inner) == 1 and isinstance(table, list)
                meant = f"[[{section}.{inner[0]}]]" if only else f"[{section}]"
                self._say(self._at(section), f"{section} is not a table", f"write {meant}")
            else:
                for key, value in table.items():
                    dotted = f"{section}.{key}"
                    self._place[dotted] = self._at(dotted)
                    if self._known(settings_type, section, key):
                        self._refuse_secret(dotted, value)
                        given[section, key] = value, self._at(dotted)
        return given

    def from_environment(self, environment: Mapping[str, str]) -> Given:
        given: Given = {}
        for variable, raw in sorted(environment.items()):
            if not variable.startswith(PREFIX) or "__" not in variable:
                continue
            section, _, key = variable.removeprefix(PREFIX).lower().partition("__")
            settings_type = self._sections.get(section)
            self._place[f"{section}.{key}"] = variable
            if settings_type is None:
                self._unknown(variable, f"section {section}", section, list(self._sections))
            elif self._known(settings_type, section, key):
                given[section, key] = from_text(raw, field_types(settings_type)[key]), variable
        return given

    def build(self, settings_type: type, values: Mapping[str, object], dotted: str) -> object:
        """Return settings with these values; None where some cannot be used."""
        ready: dict[str, object] = {}
        for key, value in values.items():
            made = self._convert(value, field_types(settings_type)[key], f"{dotted}.{key}")
            if made is not NOTHING:
                ready[key] = made
        if any(made is None for made in ready.values()):
            return None  # What is wrong within it has been said.
        place = self._place.get(dotted, self._at(dotted))
        if missing := [name for name in required_fields(settings_type) if name not in values]:
            self._say(
                place, f"[{dotted}] lacks {' and '.join(missing)}", "it has no default: add it"
            )
            return None
        try:
            return settings_type(**ready)
        except (ValueError, TypeError) as error:
            self._say(place, f"[{dotted}] {error}", "change it to what the sentence allows")
            return None

    def _known(self, settings_type: type, dotted: str, key: str) -> bool:
        known = field_types(settings_type)
        if key not in known:
            place = self._place.get(f"{dotted}.{key}", self._at(f"{dotted}.{key}"))
            self._unknown(place, f"{key} in [{dotted}]", key, list(known))
        return key in known

    def _refuse_secret(self, dotted: str, value: object) -> None:
        inline = isinstance(value, str) and not value.startswith(("env:", "file:")) and value
        bare = isinstance(value, str) and has_password(value)
        if (inline and is_secret(dotted.rpartition(".")[2])) or bare:
            variable = PREFIX + dotted.upper().replace(".", "__", 1)
            remedy = 'write "file:/path" here'
            if dotted.count(".") == 1:
                remedy += f", or set {variable} in the environment"
            self._say(self._place[dotted], f"{dotted} is a secret in plain text", remedy)

    def _convert(self, value: object, wanted: object, dotted: str) -> object:
        place = self._place.get(dotted, dotted)
        if isinstance(value, str) and value.startswith(("env:", "file:")):
            value = self._resolve(value, dotted)
            if value is NOTHING:
                return value
        if isinstance(wanted, type) and is_dataclass(wanted) and isinstance(value, dict):
            for key, item in value.items():
                self._place.setdefault(f"{dotted}.{key}", place)
                self._refuse_secret(f"{dotted}.{key}", item)
            known = {k: v for k, v in value.items() if self._known(wanted, dotted, k)}
            return self.build(wanted, known, dotted)
        if (row_type := _row_type(wanted)) is not None and isinstance(value, list | tuple):
            return self._rows(value, row_type, dotted)
        made = as_type(value, wanted)
        if made is NOTHING:
            what = f"{dotted} = {to_toml(value)} is not {type_name(wanted)}"
            self._say(place, what, type_remedy(value, wanted))
        return made

    def _rows(self, rows: Sequence[object], row_type: type, dotted: str) -> object:
        """Return an array of tables, each as settings; mistakes name the table by its number."""
        made: list[object] = []
        for number, row in enumerate(rows, start=1):
            which = f"{dotted}.{number}"
            place = f"{self._place.get(dotted, dotted)}, table {number}"
            if isinstance(row, Mapping):
                self._place |= {which: place} | {f"{which}.{key}": place for key in row}
                made.append(self._convert(dict(row), row_type, which))
            else:
                self._say(place, f"{to_toml(row)} is not a table", f"write [[{dotted}]]")
        return None if None in made else tuple(made)

    def _resolve(self, reference: str, dotted: str) -> object:
        scheme, _, target = reference.partition(":")
        if scheme == "env":
            remedy = "use KAPELLE_SECTION__KEY instead, or file:/path"
            self._say(self._place.get(dotted, dotted), f"{reference} is not supported", remedy)
            return NOTHING
        try:
            return Path(target).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            remedy = "make the file readable for this user"
            self._say(self._place.get(dotted, dotted), str(error), remedy)
            return NOTHING

    def _unknown(self, place: str, what: str, word: str, known: list[str]) -> None:
        near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
        remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        self._say(place, f"nothing is called {what}", remedy)

    def _say(self, where: str, what: str, remedy: str) -> None:
        self.problems.append(Problem(where, redact(what), remedy))

    def _at(self, dotted: str) -> str:
        line = self._lines.get(dotted)
        return f"{self._name} line {line}" if line else self._name


def sections_of(root: type) -> dict[str, type]:
    """Return the settings of each section of a dataclass, optional ones too."""
    return {
        section: cast(type, next(arm for arm in (*get_args(wanted), wanted) if arm is not None))
        for section, wanted in field_types(root).items()
    }


def _optional(root: type) -> frozenset[str]:
    """Return the sections that are None unless given."""
    return frozenset(section for section, wanted in field_types(root).items() if get_args(wanted))


def _row_type(wanted: object) -> type | None:
    """Return the settings of one row, where an array of tables is wanted."""
    arms = get_args(wanted)
    rows = get_origin(wanted) is tuple and isinstance(arms[0], type) and is_dataclass(arms[0])
    return cast(type, arms[0]) if rows else None


def _new(made_type: type[T], values: Mapping[str, object]) -> T:
    return made_type(**values)


def is_secret(key: str) -> bool:
    """Tell whether a key holds what nobody may read."""
    return bool(_SECRET_NAME.search(key))


def _lines_of_keys(text: str) -> dict[str, int]:
    """Return the line of each dotted key, as far as a plain reading of the lines finds it."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            table = header["table"]
            found.setdefault(table, number)
        elif entry := _KEY.match(line):
            key = entry["key"].replace('"', "").replace("'", "")
            found.setdefault(f"{table}.{key}" if table else key, number)
    return found
