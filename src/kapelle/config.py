"""One TOML file and the environment become the frozen settings of every room.

`KAPELLE_SECTION__KEY=value` overrides `[section] key = value`. Every mistake is reported at once,
with its place and a remedy; nothing is ignored silently. Secrets come from the environment or from
a file (`password = "file:/run/secrets/x"`), never from the TOML file itself.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import TypeVar, cast, get_args, get_origin

from kapelle.adapters.cloud.settings import CloudsSettings
from kapelle.adapters.http.settings import HttpSettings
from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.adapters.mqtt.settings import BrokerSettings, MqttSettings
from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.adapters.openadr.settings import OpenAdrSettings, UpstreamSettings
from kapelle.adapters.sparkplug.settings import SparkplugSettings
from kapelle.api.settings import ApiSettings
from kapelle.dispatch.settings import DispatchSettings
from kapelle.errors import Invalid, Problem
from kapelle.fleet.settings import FleetSettings
from kapelle.history.kept import QuarantineSettings
from kapelle.history.settings import HistorySettings
from kapelle.ingest.settings import IngestSettings
from kapelle.journal.settings import JournalSettings
from kapelle.registry.settings import RegistrySettings
from kapelle.runtime.typed import (
    NOTHING,
    as_type,
    field_types,
    from_text,
    has_password,
    redact,
    to_toml,
    type_name,
    type_remedy,
)
from kapelle.safety.settings import SafetySettings

PREFIX = "KAPELLE_"
DEFAULT_FILE = Path("kapelle.toml")
HIDDEN = "(hidden)"

API_TOKEN = "api.token"  # noqa: S105  # the name of a file
"""Name of the API's token in a data directory, and in a backup."""
_SECRET_NAME = re.compile(r"(^|_)(password|secret|token|passphrase)$")
T = TypeVar("T")
_Given = dict[tuple[str, str], tuple[object, str]]
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

    backup_age_s_max: float = 0.0
    """`kapelle status` reminds of a backup that is older, or was never made; 0: nobody asks. [s]"""

    def __post_init__(self) -> None:
        if not 1 <= self.partitions <= 1024:
            raise ValueError("partitions lies between 1 and 1024")


def _journal_in(plant: PlantSettings) -> Path:
    return plant.data_dir / "journal"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator can set, by room."""

    plant: PlantSettings = field(default_factory=PlantSettings)
    journal: JournalSettings = field(
        default_factory=lambda: JournalSettings(directory=_journal_in(PlantSettings()))
    )
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    broker: BrokerSettings | None = None
    """A broker the user already runs; not used unless there is a `[broker]`."""
    ocpp: OcppSettings | None = None
    """Charging stations connect here; not served unless there is an `[ocpp]`."""
    openadr: OpenAdrSettings | None = None
    """Gateways that are OpenADR 3.1 VENs call here; not served unless there is an `[openadr]`."""
    openadr_upstream: UpstreamSettings | None = None
    """A utility whose OpenADR 3.1 program is followed; nobody's unless there is such a section."""
    ieee2030: Ieee2030Settings | None = None
    """IEEE 2030.5 clients connect here; not served unless there is an `[ieee2030]`."""
    sparkplug: SparkplugSettings | None = None
    """A broker on which Kapelle is a Sparkplug B host; none unless there is a `[sparkplug]`."""
    clouds: CloudsSettings | None = None
    """Vendors' clouds: an adapter for each `[[clouds.cloud]]`."""
    http: HttpSettings = field(default_factory=HttpSettings)
    ingest: IngestSettings = field(default_factory=IngestSettings)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    dispatch: DispatchSettings = field(default_factory=DispatchSettings)
    safety: SafetySettings = field(default_factory=SafetySettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    quarantine: QuarantineSettings = field(default_factory=QuarantineSettings)
    api: ApiSettings = field(default_factory=ApiSettings)

    @property
    def journal_directory(self) -> Path:
        """Where the journal lies: as somebody set it, else in the data directory."""
        unset = self.journal.directory == _journal_in(PlantSettings())
        return _journal_in(self.plant) if unset else self.journal.directory

    @property
    def history_directory(self) -> Path:
        """Where the long record lies: as somebody set it, else in the data directory."""
        return Path(self.history.directory or self.plant.data_dir / "history")

    @property
    def token_file(self) -> Path:
        """Where the API's token lies: as somebody set it, else in the data directory."""
        return Path(self.api.token_file or self.plant.data_dir / API_TOKEN)


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
        return HIDDEN if _is_secret(self.key) and self.value else to_toml(self.value)


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
    config, given = read(Config, text, environment, name)
    config = _rooted(config, given)
    return Loaded(config, tuple(_settings(config, given)))


def read(root: type[T], text: str, environment: Mapping[str, str], name: str) -> tuple[T, _Given]:
    """Return the settings of a TOML text: a dataclass with one field for each section.

    Also what was given, and where. Raises `Invalid` like `load`.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = Problem(name, str(error), "mend the syntax at this place (see toml.io)")
        raise Invalid("the configuration is not TOML", [problem]) from error
    reader = _Reader(name, _lines_of_keys(text), _sections(root))
    given = reader.from_file(tables) | reader.from_environment(environment)
    made: dict[str, object] = {}
    for section, settings_type in _sections(root).items():
        values = {key: value for (where, key), (value, _) in given.items() if where == section}
        if values or section in tables or section not in _optional(root):
            made[section] = reader.build(settings_type, values, section)
    if reader.problems:
        raise Invalid("the configuration cannot be used", reader.problems)
    return _new(root, made), given


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


class _Reader:
    """Turns raw values into typed settings and collects what is wrong on the way."""

    def __init__(self, name: str, lines: Mapping[str, int], sections: Mapping[str, type]) -> None:
        self.problems: list[Problem] = []
        self._name = name
        self._lines = lines
        self._sections = sections
        self._place: dict[str, str] = {}
        """Dotted key -> where a person finds it."""

    def from_file(self, tables: Mapping[str, object]) -> _Given:
        given: _Given = {}
        for section, table in tables.items():
            settings_type = self._sections.get(section)
            if settings_type is None:
                self._unknown(self._at(section), f"[{section}]", section, list(self._sections))
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
        try:
            return settings_type(**ready)
        except (ValueError, TypeError) as error:
            place = self._place.get(dotted, self._at(dotted))
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
        if (inline and _is_secret(dotted.rpartition(".")[2])) or bare:
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
        # What could not be built has been said.
        return tuple(one for one in made if one is not None)

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


def _sections(root: type) -> dict[str, type]:
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


def _settings(config: Config, given: _Given) -> list[Setting]:
    listed: list[Setting] = []
    for section, settings_type in _sections(Config).items():
        room = getattr(config, section)
        for key in field_types(settings_type) if room is not None else ():
            origin = given.get((section, key), (None, "default"))[1]
            listed.append(Setting(section, key, getattr(room, key), origin))
    return listed


def _rooted(config: Config, given: _Given) -> Config:
    """Keep the journal in the data directory, unless somebody says otherwise."""
    if ("journal", "directory") in given:
        return config
    directory = _journal_in(config.plant)
    given["journal", "directory"] = directory, "plant.data_dir"
    return replace(config, journal=replace(config.journal, directory=directory))


def _is_secret(key: str) -> bool:
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
