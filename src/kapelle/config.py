"""One TOML file and the environment become the frozen settings of every room.

`KAPELLE_SECTION__KEY=value` overrides `[section] key = value`. Every mistake is reported at once,
with its place and a remedy; nothing is ignored silently. Secrets come from the environment or from
a file (`password = "file:/run/secrets/x"`), never from the TOML file itself.
"""

import difflib
import re
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from kapelle.errors import Invalid, Problem

PREFIX = "KAPELLE_"
DEFAULT_FILE = Path("kapelle.toml")
HIDDEN = "(hidden)"

_SECRET_NAME = re.compile(r"(^|_)(password|secret|token|passphrase)$")
_URL_PASSWORD = re.compile(r"(?<=://)([^/:@\s]*):([^/@\s]+)@")
_KEY = re.compile(r"^\s*(?P<key>[A-Za-z0-9_.\-\"']+)\s*=")
_TABLE = re.compile(r"^\s*\[+\s*(?P<table>[^\]]+?)\s*\]+")


@dataclass(frozen=True, slots=True)
class PlantSettings:
    """What holds for the whole plant."""

    name: str = "kapelle"
    partitions: int = 4
    """Into how many topics the devices are divided. Fixed once the data directory exists."""
    data_dir: Path = Path("kapelle-data")
    """Journal and registry live here; relative to where the plant is started. One process at a
    time."""

    def __post_init__(self) -> None:
        if not 1 <= self.partitions <= 1024:
            raise ValueError("partitions lies between 1 and 1024")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator can set, by room."""

    plant: PlantSettings = field(default_factory=PlantSettings)


@dataclass(frozen=True, slots=True)
class Setting:
    """One value in force and where it came from."""

    section: str
    key: str
    value: object
    origin: str
    """`default`, `kapelle.toml line 12` or the name of an environment variable."""

    @property
    def shown(self) -> str:
        """Return the value as TOML; secrets are hidden."""
        return HIDDEN if _is_secret(self.key) and self.value else _toml(self.value)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked configuration and the origin of each of its values."""

    config: Config
    settings: tuple[Setting, ...]


def load(path: Path | None, environment: Mapping[str, str]) -> Loaded:
    """Return the configuration of a file (None: `kapelle.toml` here, if there is one).

    Raises:
        Invalid: With every unknown key, wrong type and unreadable reference found.
    """
    file = path if path is not None else DEFAULT_FILE
    text = ""
    if path is not None or file.exists():
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            remedy = "name a readable TOML file with --config"
            raise Invalid("no configuration", [Problem(str(file), str(error), remedy)]) from error
    return parse(text, environment, str(file))


def parse(text: str, environment: Mapping[str, str], name: str = "kapelle.toml") -> Loaded:
    """Return the configuration of a TOML text and an environment; raises `Invalid` like `load`."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = Problem(name, str(error), "mend the syntax at this place (see toml.io)")
        raise Invalid("the configuration is not TOML", [problem]) from error
    reader = _Reader(name, _lines_of_keys(text))
    given = reader.from_file(tables) | reader.from_environment(environment)
    made: dict[str, object] = {}
    for section, settings_type in _sections().items():
        values = {key: value for (where, key), (value, _) in given.items() if where == section}
        made[section] = reader.build(settings_type, values, section)
    if reader.problems:
        raise Invalid("the configuration cannot be used", reader.problems)
    config = _new(Config, made)
    return Loaded(config, tuple(_settings(config, given)))


def redact(text: str) -> str:
    """Return a text with passwords inside URLs hidden."""
    return _URL_PASSWORD.sub(r"\1:***@", text)


def as_toml(loaded: Loaded, *, origin: bool = False) -> str:
    """Return every value in force as a TOML file, each with its origin if asked for."""
    lines: list[str] = []
    section = ""
    for setting in loaded.settings:
        if setting.section != section:
            section = setting.section
            lines += [*([""] if lines else []), f"[{section}]"]
        line = f"{setting.key} = {setting.shown}"
        if setting.value is None:
            line = f"# {setting.key} is not set"
        lines.append(f"{line:<44} # {setting.origin}" if origin else line)
    return "\n".join(lines)


T = TypeVar("T")
_Given = dict[tuple[str, str], tuple[object, str]]
_NOTHING = object()


class _Reader:
    """Turns raw values into typed settings and collects what is wrong on the way."""

    def __init__(self, name: str, lines: Mapping[str, int]) -> None:
        self.problems: list[Problem] = []
        self._name = name
        self._lines = lines
        self._place: dict[str, str] = {}
        """Dotted key -> where a person finds it."""

    def from_file(self, tables: Mapping[str, object]) -> _Given:
        given: _Given = {}
        for section, table in tables.items():
            settings_type = _sections().get(section)
            if settings_type is None:
                self._unknown(self._at(section), f"[{section}]", section, list(_sections()))
            elif not isinstance(table, dict):
                self._say(self._at(section), f"{section} is not a table", f"write [{section}]")
            else:
                for key, value in table.items():
                    dotted = f"{section}.{key}"
                    self._place[dotted] = self._at(dotted)
                    if self._known(settings_type, section, key):
                        self._refuse_secret(dotted, value)
                        given[section, key] = value, self._at(dotted)
        return given

    def from_environment(self, environment: Mapping[str, str]) -> _Given:
        given: _Given = {}
        for variable, raw in sorted(environment.items()):
            if not variable.startswith(PREFIX) or "__" not in variable:
                continue
            section, _, key = variable.removeprefix(PREFIX).lower().partition("__")
            settings_type = _sections().get(section)
            self._place[f"{section}.{key}"] = variable
            if settings_type is None:
                self._unknown(variable, f"section {section}", section, list(_sections()))
            elif self._known(settings_type, section, key):
                given[section, key] = _from_text(raw, _types(settings_type)[key]), variable
        return given

    def build(self, settings_type: type, values: Mapping[str, object], dotted: str) -> object:
        """Return settings with these values; None where some cannot be used."""
        ready: dict[str, object] = {}
        for key, value in values.items():
            made = self._convert(value, _types(settings_type)[key], f"{dotted}.{key}")
            if made is not _NOTHING:
                ready[key] = made
        try:
            return settings_type(**ready)
        except (ValueError, TypeError) as error:
            place = self._place.get(dotted, self._at(dotted))
            self._say(place, f"[{dotted}] {error}", "change it to what the sentence allows")
            return None

    def _known(self, settings_type: type, dotted: str, key: str) -> bool:
        known = _types(settings_type)
        if key not in known:
            place = self._place.get(f"{dotted}.{key}", self._at(f"{dotted}.{key}"))
            self._unknown(place, f"{key} in [{dotted}]", key, list(known))
        return key in known

    def _refuse_secret(self, dotted: str, value: object) -> None:
        inline = isinstance(value, str) and not value.startswith(("env:", "file:")) and value
        bare = isinstance(value, str) and _URL_PASSWORD.search(value)
        if (inline and _is_secret(dotted.rpartition(".")[2])) or bare:
            variable = PREFIX + dotted.upper().replace(".", "__", 1)
            remedy = f'write "file:/path" here, or set {variable} in the environment'
            self._say(self._place[dotted], f"{dotted} is a secret in plain text", remedy)

    def _convert(self, value: object, wanted: object, dotted: str) -> object:
        place = self._place.get(dotted, dotted)
        if isinstance(value, str) and value.startswith(("env:", "file:")):
            value = self._resolve(value, dotted)
            if value is _NOTHING:
                return value
        if isinstance(wanted, type) and is_dataclass(wanted) and isinstance(value, dict):
            known = {k: v for k, v in value.items() if self._known(wanted, dotted, k)}
            return self.build(wanted, known, dotted)
        made = _as_type(value, wanted)
        if made is _NOTHING:
            what = f"{dotted} = {_toml(value)} is not {_type_name(wanted)}"
            self._say(place, what, _type_remedy(value, wanted))
        return made

    def _resolve(self, reference: str, dotted: str) -> object:
        scheme, _, target = reference.partition(":")
        if scheme == "env":
            remedy = "use KAPELLE_SECTION__KEY instead, or file:/path"
            self._say(self._place.get(dotted, dotted), f"{reference} is not supported", remedy)
            return _NOTHING
        try:
            return Path(target).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            remedy = "make the file readable for this user"
            self._say(self._place.get(dotted, dotted), str(error), remedy)
            return _NOTHING

    def _unknown(self, place: str, what: str, word: str, known: list[str]) -> None:
        near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
        remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        self._say(place, f"nothing is called {what}", remedy)

    def _say(self, where: str, what: str, remedy: str) -> None:
        self.problems.append(Problem(where, redact(what), remedy))

    def _at(self, dotted: str) -> str:
        line = self._lines.get(dotted)
        return f"{self._name} line {line}" if line else self._name


@cache
def _sections() -> dict[str, type]:
    return {section: cast(type, wanted) for section, wanted in _types(Config).items()}


@cache
def _types(settings_type: type) -> dict[str, object]:
    hints = get_type_hints(settings_type)
    return {f.name: hints[f.name] for f in fields(settings_type) if f.init}


def _new(made_type: type[T], values: Mapping[str, object]) -> T:
    return made_type(**values)


def _settings(config: Config, given: _Given) -> list[Setting]:
    listed: list[Setting] = []
    for section, settings_type in _sections().items():
        room = getattr(config, section)
        for key in _types(settings_type):
            origin = given.get((section, key), (None, "default"))[1]
            listed.append(Setting(section, key, getattr(room, key), origin))
    return listed


def _is_secret(key: str) -> bool:
    return bool(_SECRET_NAME.search(key))


def _from_text(raw: str, wanted: object) -> object:
    """Read an environment variable: text where text is wanted, else as TOML would read it."""
    if _as_type(raw, wanted) is not _NOTHING:
        return raw
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return [part.strip() for part in raw.split(",")] if get_origin(wanted) is tuple else raw


def _as_type(value: object, wanted: object) -> object:
    """Return a TOML value as the type a field declares; `_NOTHING` where it does not fit."""
    origin, arms = get_origin(wanted), get_args(wanted)
    made: object = _NOTHING
    if origin in (Union, types.UnionType):
        fitting = (_as_type(value, arm) for arm in arms)
        made = next((one for one in fitting if one is not _NOTHING), _NOTHING)
    elif origin is Literal:
        made = value if value in arms else _NOTHING
    elif origin is tuple and isinstance(value, list):
        every = [_as_type(item, arms[0]) for item in value]
        made = _NOTHING if _NOTHING in every else tuple(every)
    elif origin is not None and isinstance(value, dict):
        each = {key: _as_type(item, arms[1]) for key, item in value.items()}
        made = _NOTHING if _NOTHING in each.values() else each
    elif is_dataclass(wanted) and isinstance(wanted, type) and isinstance(value, dict):
        known = _types(wanted)
        parts = {key: _as_type(item, known.get(key)) for key, item in value.items()}
        made = _NOTHING if _NOTHING in parts.values() else wanted(**parts)
    elif isinstance(wanted, type):
        made = _as_plain(value, wanted)
    return made


def _as_plain(value: object, wanted: type) -> object:
    made: object = _NOTHING
    if isinstance(value, bool):
        made = value if wanted is bool else _NOTHING
    elif wanted is float and isinstance(value, int | float):
        made = float(value)
    elif wanted is Path and isinstance(value, str):
        made = Path(value).expanduser()
    elif issubclass(wanted, Enum) and isinstance(value, str):
        by_name = {member.name.lower(): member for member in wanted}
        made = by_name.get(value.lower(), _NOTHING)
    elif (wanted in (str, int) or is_dataclass(wanted)) and isinstance(value, wanted):
        made = value
    return made


_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _type_name(wanted: object) -> str:
    arms = get_args(wanted)
    if get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(str, arms))
    if get_origin(wanted) in (Union, types.UnionType):
        return " or ".join(_type_name(arm) for arm in arms if arm is not type(None))
    if get_origin(wanted) is tuple:
        return f"a list ({_type_name(arms[0])} each)"
    if get_origin(wanted) is not None:
        return "a table"
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return "one of " + ", ".join(member.name.lower() for member in wanted)
    return _TYPE_NAMES.get(cast(type, wanted), "a path" if wanted is Path else "a table")


def _type_remedy(value: object, wanted: object) -> str:
    if isinstance(value, str) and wanted in (int, float, bool):
        return "write it without quotes"
    if isinstance(value, str) and get_origin(wanted) is Literal:
        near = difflib.get_close_matches(value, list(map(str, get_args(wanted))), n=1)
        return f"did you mean {near[0]}?" if near else "choose one of these"
    return "write it in this form"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return f'"{value.name.lower()}"'
    if isinstance(value, str | Path):
        return '"' + redact(str(value)).replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if is_dataclass(value):
        shown = ((f.name, getattr(value, f.name)) for f in fields(value))
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in shown) + " }"
    return str(value)


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
