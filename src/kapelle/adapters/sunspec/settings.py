"""Settings of the devices an edge agent reaches over Modbus TCP."""

from dataclasses import dataclass
from typing import Literal

Measure = Literal["inverter", "meter import", "meter export", "storage"]
Control = Literal["auto", "704", "704 limit", "124", "123", "none"]


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """One device, or one unit behind a gateway."""

    id: str
    """Its name in the plant."""
    host: str
    port: int = 502
    unit: int = 1
    """Modbus unit id."""
    secret: str = ""
    """Its secret in the plant: `file:/path`. Empty: from `plant.secrets` or the environment."""
    poll_s: float = 5.0
    """How often it is read. [s]"""
    answer_s: float = 3.0
    """A device that takes longer has not answered, and its connection is dropped. [s]"""
    measure: Measure = "inverter"
    """Where its power is read: its inverter, a meter (whose vendors disagree on the sign: which
    direction this one counts as positive), or the storage behind a hybrid inverter."""
    control: Control = "auto"
    """Which model takes setpoints; `none`: it is only read."""
    serial: str = ""
    """Where given, a device that bears another serial number is neither read nor commanded."""
    agent_reverts: bool = False
    """Command a device that has no revert timer of its own: the agent takes its setpoints back,
    which a dead agent cannot."""

    def __post_init__(self) -> None:
        if not self.id or set(self.id) & set("/+#\0"):
            raise ValueError("id is not empty and holds neither / nor + nor #")
        if not 0 <= self.unit <= 255:
            raise ValueError("unit lies between 0 and 255")
        if not 0 < self.port < 65_536:
            raise ValueError("port lies between 1 and 65535")
        if self.poll_s < 0.1 or self.answer_s <= 0:
            raise ValueError("poll_s is at least 0.1, answer_s more than 0")


@dataclass(frozen=True, slots=True)
class SunSpecSettings:
    """The devices of an agent."""

    devices: tuple[DeviceSettings, ...] = ()

    def __post_init__(self) -> None:
        names = [device.id for device in self.devices]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"devices have names of their own; twice: {', '.join(sorted(twice))}")
