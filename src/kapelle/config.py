"""One TOML file and the environment become the frozen settings of every room.

`KAPELLE_SECTION__KEY=value` overrides `[section] key = value`. Every mistake is reported at once,
with its place and a remedy; nothing is ignored silently. Secrets come from the environment or from
a file (`password = "file:/run/secrets/x"`), never from the TOML file itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from kapelle.adapters.cloud.settings import CloudsSettings
from kapelle.adapters.http.settings import HttpSettings
from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.adapters.mqtt.settings import BrokerSettings, MqttSettings
from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.adapters.openadr.settings import OpenAdrSettings, UpstreamSettings
from kapelle.adapters.sparkplug.settings import SparkplugSettings
from kapelle.adapters.topics.settings import TopicsSettings
from kapelle.api.settings import ApiSettings
from kapelle.dispatch.settings import DispatchSettings
from kapelle.errors import Invalid, Problem
from kapelle.fleet.settings import FleetSettings
from kapelle.history.kept import QuarantineSettings
from kapelle.history.settings import HistorySettings
from kapelle.ingest.settings import IngestSettings
from kapelle.journal.settings import JournalSettings
from kapelle.registry.settings import RegistrySettings
from kapelle.runtime.sections import Given, is_secret, read, sections_of
from kapelle.runtime.typed import field_types, to_toml
from kapelle.safety.settings import SafetySettings

DEFAULT_FILE = Path("kapelle.toml")
HIDDEN = "(hidden)"

API_TOKEN = "api.token"  # noqa: S105  # the name of a file
"""Name of the API's token in a data directory, and in a backup."""


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
    topics: TopicsSettings | None = None
    """A broker with devices on topics of their own; none unless there is a `[topics]`."""
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
        return HIDDEN if is_secret(self.key) and self.value else to_toml(self.value)


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


def _settings(config: Config, given: Given) -> list[Setting]:
    listed: list[Setting] = []
    for section, settings_type in sections_of(Config).items():
        room = getattr(config, section)
        for key in field_types(settings_type) if room is not None else ():
            origin = given.get((section, key), (None, "default"))[1]
            listed.append(Setting(section, key, getattr(room, key), origin))
    return listed


def _rooted(config: Config, given: Given) -> Config:
    """Keep the journal in the data directory, unless somebody says otherwise."""
    if ("journal", "directory") in given:
        return config
    directory = _journal_in(config.plant)
    given["journal", "directory"] = directory, "plant.data_dir"
    return replace(config, journal=replace(config.journal, directory=directory))
