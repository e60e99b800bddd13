"""What a version of OCPP must be able to read and to say. `v16` and `v2` do."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from kapelle.adapters.ocpp.events import Event, Misread
from kapelle.model.enums import AckStatus


class Circumstances(NamedTuple):
    """What answers depend on."""

    now_ns: int
    heartbeat_s: int
    authorize: bool
    transaction: int
    """Number of the transaction that begins with this call (1.6: the plant gives it)."""


class Profile(NamedTuple):
    """A setpoint as a charging profile."""

    evse: int
    """0: the whole station."""
    transaction: str
    """Of a profile for one transaction; empty: the one of the station, or of all transactions."""
    is_default: bool
    """For whatever transaction runs, where a station takes no profile of its own (evse 0)."""
    value: float
    """Positive is consumption, in `unit`."""
    unit: str
    """A (per phase) or W."""
    unit_w: float
    """How many watts one of it is."""
    phases: int
    """Phases in use; 0: not known."""
    is_setpoint: bool
    """2.1: to be followed in both directions. False: a limit of consumption."""
    from_ns: int
    until_ns: int
    """It ends by itself; 0: never."""
    stack_level: int


class Composite(NamedTuple):
    """What a station says that it will do, from now on."""

    value: float
    """NaN: nothing limits it. Positive is consumption, in `unit`."""
    unit: str
    ends_s: float
    """When that value no longer holds; infinite: it is not said. [s]"""


class Habits(NamedTuple):
    """What a station says of itself when asked."""

    unit: str = ""
    """A or W; empty: it did not say."""
    evses: int = 0
    """How many connectors it has; 0: it did not say."""


class Ask(NamedTuple):
    """A call of ours."""

    action: str
    payload: Mapping[str, object]


class Dialect(Protocol):
    """One version of OCPP. Pure."""

    @property
    def name(self) -> str:
        """The WebSocket subprotocol."""

    @property
    def frame_error(self) -> str:
        """The error that answers what is no frame."""

    def decode(self, action: str, payload: bytes) -> Event | Misread:
        """Read a call of a station. Never raises."""

    def answer(self, action: str, given: Circumstances) -> Mapping[str, object]:
        """Return the payload of the result of a call that `decode` could read."""

    def set_profile(self, profile: Profile) -> Ask:
        """Return the call that sets a profile."""

    def clear_profile(self, evse: int) -> Ask:
        """Return the call that takes back what `set_profile` set."""

    def composite(self, evse: int, unit: str, duration_s: int) -> Ask:
        """Return the call that asks what a station will do."""

    def read_status(self, payload: bytes) -> tuple[AckStatus, str]:
        """Return what a station answered to a profile: ACCEPTED or REJECTED, and its own word."""

    def read_composite(self, payload: bytes) -> Composite | None:
        """Return what a station will do; None where it does not say."""

    def ask_habits(self) -> Ask:
        """Return the call that asks what a station is like."""

    def read_habits(self, payload: bytes) -> Habits:
        """Return what it is like, as far as it says."""

    def set_up(self, sample_s: int, heartbeat_s: int) -> Sequence[Ask]:
        """Return calls that make it report what the plant needs; any may be refused."""

    def ask_statuses(self) -> Ask:
        """Return the call that makes it say how each connector stands."""
