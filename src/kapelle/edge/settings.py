"""What an edge agent may be told: `edge.toml`."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kapelle.adapters.sunspec.settings import DeviceSettings, SunSpecSettings
from kapelle.errors import Invalid, Problem
from kapelle.runtime.exposure import is_loopback

SECRET_OF = "KAPELLE_EDGE_SECRET_"  # noqa: S105  # the name of a variable
"""With a device's name, in capitals and with _ for what is no letter or digit: its secret."""


@dataclass(frozen=True, slots=True)
class UplinkSettings:
    """How the plant is reached: its MQTT endpoint, one session for each device."""

    host: str = "127.0.0.1"
    port: int = 1883
    tls: bool = False
    tls_authority: str = ""
    """PEM file of the authority that signed the plant's certificate; empty: the system's."""
    insecure: bool = False
    """Allow plaintext to a plant on another machine. Secrets then cross the network."""
    secrets: str = ""
    """CSV file with the columns id and secret, as `kapelle devices import --secrets` writes it."""
    keep_alive_s: int = 30
    answer_s: float = 10.0
    """A plant that takes longer to acknowledge is taken for gone. [s]"""
    trust_clock: bool = True
    """Whether this machine's clock decides that a command has expired. Without, only the time since
    its receipt does."""

    def __post_init__(self) -> None:
        if not self.tls and not self.insecure and not is_loopback(self.host):
            raise ValueError(
                f"secrets would cross the network to {self.host} in clear: "
                "set tls = true, or insecure = true on a network you trust"
            )
        if not 1 <= self.keep_alive_s <= 900 or self.answer_s <= 0:
            raise ValueError("keep_alive_s lies between 1 and 900, answer_s is more than 0")


@dataclass(frozen=True, slots=True)
class BufferSettings:
    """What is kept while the plant is away."""

    file: Path = Path("edge.db")
    """One agent at a time."""
    rows_max: int = 1_000_000
    """Readings that wait, of all devices; some 250 MB. Beyond it the older half is thinned: every
    second reading goes, so that what is oldest is the coarsest."""
    keep_days: float = 30.0
    """The plant refuses readings that are older than 45 days. [d]"""
    catch_up_per_s: float = 200.0
    """Old readings sent a second, of all devices, beside the new ones. [1/s]"""

    def __post_init__(self) -> None:
        if self.rows_max < 1_000 or self.keep_days <= 0 or self.catch_up_per_s <= 0:
            raise ValueError("rows_max is at least 1000, keep_days and catch_up_per_s more than 0")


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """All of `edge.toml`, by section."""

    plant: UplinkSettings = field(default_factory=UplinkSettings)
    buffer: BufferSettings = field(default_factory=BufferSettings)
    sunspec: SunSpecSettings = field(default_factory=SunSpecSettings)


def secrets_of(config: EdgeConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the secret of each device: its own file, else the environment, else the common file.

    Raises:
        Invalid: Some device has none, or the file cannot be read; the message names no secret.
    """
    common = _common(config.plant.secrets)
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for device in config.sunspec.devices:
        secret = device.secret or environment.get(_variable(device), "") or common.get(device.id)
        if secret:
            found[device.id] = secret
        else:
            remedy = f'write secret = "file:/path", set {_variable(device)}, or see plant.secrets'
            problems.append(Problem(f"sunspec.devices, {device.id}", "it has no secret", remedy))
    if problems:
        raise Invalid("the devices' secrets are incomplete", problems)
    return found


def _variable(device: DeviceSettings) -> str:
    return SECRET_OF + "".join(c if c.isalnum() else "_" for c in device.id.upper())


def _common(path: str) -> dict[str, str]:
    if not path:
        return {}
    remedy = "name a CSV file with the columns id and secret that this user can read"
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            return {row["id"]: row["secret"] for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        # A KeyError names the column; none of them a secret.
        problem = Problem("plant.secrets", f"{path}: {type(error).__name__}", remedy)
        raise Invalid("the devices' secrets cannot be read", [problem]) from error
