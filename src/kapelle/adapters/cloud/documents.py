"""What a vendor's documents and requests mean, as an operator writes it down."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from kapelle.adapters import quantities


@dataclass(frozen=True, slots=True)
class CloudValue:
    """One value of a device: where it stands in a document, its unit, and what its sign means."""

    metric: str
    """power_w, soc, export_wh, import_wh, max_w, min_w, voltage_v, frequency_hz or setpoint_w."""
    paths: tuple[str, ...]
    """Where it stands: keys and places joined by dots, `chargeState.chargeRate` or `phases.0.w`.
    Several are added up, as phases are; where one is missing, so is the sum."""
    unit: str
    """W, kW, MW, Wh, kWh, MWh, fraction, percent, V or Hz."""
    positive: str = ""
    """`export` or `import`: the direction in which the vendor counts upwards. Only for powers, and
    there it must be said."""
    zero_where: str = ""
    """Path of a flag that is false where the value is 0 though the vendor leaves it out."""

    def __post_init__(self) -> None:
        quantities.check(self.metric, self.unit, self.positive)
        if not self.paths:
            raise ValueError("paths names at least one place")


@dataclass(frozen=True, slots=True)
class CloudShape:
    """What one device looks like in the vendor's documents."""

    name: str
    values: tuple[CloudValue, ...]
    id: str = ""
    """Path of the vendor's id; empty where documents are asked for by device."""
    time: str = ""
    """Path of the moment it was measured. Without one readings count as measured on arrival, and
    what the vendor repeats from a cache looks fresh."""
    time_form: Literal["rfc3339", "unix", "unix-ms", "utc"] = "rfc3339"
    """utc: as RFC 3339 without a zone, which is UTC."""
    reachable: str = ""
    """Path of a flag that is false while the vendor cannot reach the device."""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a shape has at least one value")

    @property
    def paths(self) -> tuple[str, ...]:
        """Return every place that is looked at, as it is written in the mapping."""
        told = [self.id, self.time, self.reachable]
        for value in self.values:
            told += [*value.paths, value.zero_where]
        return tuple(path for path in dict.fromkeys(told) if path)


@dataclass(frozen=True, slots=True)
class CloudPoll:
    """One document that is asked for again and again."""

    path: str
    """Below `base_url`. With `{address}` in it: once for each device."""
    shape: str
    items: str = ""
    """Path of the list of devices in it; empty where the document is the list, or the device."""
    every_s: float = 60.0
    """Cadence. [s]"""
    next: str = ""
    """Path of the cursor of the next page; empty: there is one page."""
    next_parameter: str = "after"
    """Query parameter that takes the cursor."""

    def __post_init__(self) -> None:
        if self.every_s < 0.1:
            raise ValueError("every_s is at least 0.1")
        if not self.path.startswith("/"):
            raise ValueError("path begins with /")

    @property
    def is_by_device(self) -> bool:
        """Tell whether each device has a document of its own."""
        return "{address}" in self.path


@dataclass(frozen=True, slots=True)
class CloudCommand:
    """How to tell a device something. The first that fits is used."""

    path: str
    """Below `base_url`, with `{address}`."""
    body: str = ""
    """JSON in which the texts "$value", "$address", "$duration_s" and "$revision" stand for what
    they say; empty: no body."""
    when: Literal["set", "import", "export", "idle", "release"] = "set"
    """set: any setpoint; import, export, idle: one that consumes, feeds in, is 0; release: back to
    its own schedule."""
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"
    unit: Literal["W", "kW"] = "W"
    positive: Literal["", "export", "import"] = ""
    """Direction in which "$value" counts upwards; must be said where "$value" is used."""
    shapes: tuple[str, ...] = ()
    """Only for devices last seen in one of these shapes; empty: for all."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise ValueError("path begins with /")
        try:
            msgspec.json.decode(self.body or "{}")
        except msgspec.DecodeError as error:
            raise ValueError(f"body is not JSON: {error}") from None
        if ('"$value"' in self.body) != bool(self.positive):
            raise ValueError('positive is "export" or "import" where body has "$value"')


@dataclass(frozen=True, slots=True)
class CloudActions:
    """How the vendor says what became of a command it has accepted; ids empty: it does not."""

    id: str = ""
    """Path of the action's id, in the answer to a command and in documents about the action."""
    state: str = "state"
    path: str = ""
    """Asked for what became of it, with `{action}`; empty: webhooks alone tell."""
    every_s: float = 10.0
    lasts_s: float = 600.0
    """An action that says nothing for so long is not asked about any more. [s]"""
    confirmed: tuple[str, ...] = ("CONFIRMED",)
    failed: tuple[str, ...] = ("FAILED", "CANCELLED")
