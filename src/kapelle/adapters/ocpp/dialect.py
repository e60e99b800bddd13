"""What every version of OCPP has in common; `v16` and `v2` are where they differ. Pure."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from kapelle.adapters.ocpp import schedule
from kapelle.adapters.ocpp.events import NOTHING, Event, Misread, Occupancy
from kapelle.adapters.ocpp.meters import moment_ns, time_text
from kapelle.adapters.ocpp.schedule import Composite, Profile
from kapelle.model.enums import AckStatus

BROKEN = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What JSON that cannot be used leaves a reader with."""
_ID_FIRST = 7_350
"""Ids of our profiles begin here; one per EVSE, so that each replaces the one before."""
_PLACE_MARK = " - at `$"


class Circumstances(NamedTuple):
    """What answers depend on."""

    now_ns: int
    heartbeat_s: int
    authorize: bool
    transaction: int
    """Number of the transaction that begins with this call (1.6: the plant gives it)."""


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


class Names(NamedTuple):
    """What one version calls what all of them have."""

    evse: str
    card: str
    """What an answer says of a card."""
    profile: str
    profile_id: str
    """In a profile that is set."""
    cleared_id: str
    """In the call that takes it back."""
    station_profile: str
    """Purpose of a profile for the station as a whole."""


class Dialect(ABC):
    """One version of OCPP."""

    name: str
    """The WebSocket subprotocol."""
    frame_error: str
    """The error that answers what is no frame."""
    malformed: str
    """The error that answers a payload that is no JSON of the right form: the specification of 1.6
    itself misspelt some of its codes."""
    names: Names
    readers: Mapping[str, Callable[[bytes], Event]]
    """Reads the payload of a call, by action."""
    others: Mapping[str, Event]
    """Calls whose payload concerns nobody here."""
    measurands: tuple[str, ...]
    """Lists of what a station is asked to sample, the longest first."""
    reporting: tuple[str, str, str]
    """Settings of a station: what it samples, how often, and how often its heart beats."""

    def decode(self, action: str, payload: bytes) -> Event | Misread:
        """Read a call of a station. Never raises."""
        try:
            if action in self.readers:
                return self.readers[action](payload)
            if action in self.others:
                _decode_object(payload)
                return self.others[action]
        except BROKEN as error:
            return self._misread(action, error)
        remedy = "use what docs/adapters/ocpp.md lists"
        return Misread("NotImplemented", f"action: /2: {action!r:.40} is not served; {remedy}")

    def answer(self, action: str, given: Circumstances) -> Mapping[str, object]:
        """Return the payload of the result of a call that `decode` could read."""
        now = time_text(given.now_ns)
        match action:
            case "BootNotification":
                return {"status": "Accepted", "currentTime": now, "interval": given.heartbeat_s}
            case "Heartbeat":
                return {"currentTime": now}
            case "Authorize":
                return self._verdict(given)
            case "DataTransfer":
                return {"status": "UnknownVendorId"}
        return self._answer(action, given)

    def set_profile(self, profile: Profile) -> Ask:
        """Return the call that sets a profile."""
        said: dict[str, object] = {
            self.names.profile_id: _ID_FIRST + profile.evse,
            "stackLevel": profile.stack_level,
            "chargingProfilePurpose": self._purpose(profile),
            "chargingProfileKind": "Absolute",
            "chargingSchedule": self._schedule(
                _ID_FIRST + profile.evse,
                {
                    **schedule.validity(profile),
                    "chargingRateUnit": profile.unit,
                    "chargingSchedulePeriod": [schedule.period(profile)],
                },
            ),
        }
        if profile.until_ns:
            said["validTo"] = time_text(profile.until_ns)
        if profile.transaction:
            said["transactionId"] = profile.transaction
        asked = {self.names.evse: profile.evse, self.names.profile: said}
        return Ask("SetChargingProfile", asked)

    def clear_profile(self, evse: int) -> Ask:
        """Return the call that takes back what `set_profile` set."""
        return Ask("ClearChargingProfile", {self.names.cleared_id: _ID_FIRST + evse})

    def composite(self, evse: int, unit: str, duration_s: int) -> Ask:
        """Return the call that asks what a station will do."""
        said = {self.names.evse: evse, "duration": duration_s, "chargingRateUnit": unit}
        return Ask("GetCompositeSchedule", said)

    def read_status(self, payload: bytes) -> tuple[AckStatus, str]:
        """Return what a station answered to a profile: ACCEPTED or REJECTED, and its own word."""
        try:
            status = _decode_answer(payload).status
        except BROKEN:
            return AckStatus.REJECTED, "its answer cannot be read"
        accepted = status == "Accepted"
        return (AckStatus.ACCEPTED if accepted else AckStatus.REJECTED), status[:40]

    def read_composite(self, payload: bytes) -> Composite | None:
        """Return what a station will do; None where it does not say."""
        try:
            said = _decode_composite(payload)
        except BROKEN:
            return None
        told = said.schedule or said.charging_schedule
        if said.status != "Accepted" or told is None:
            return None
        periods = [(one.start_period, one.value) for one in told.charging_schedule_period]
        return schedule.first(periods, told.charging_rate_unit, told.duration)

    def set_up(self, sample_s: int, heartbeat_s: int) -> Sequence[Ask]:
        """Return calls that make it report what the plant needs; any may be refused.

        The shorter list first: a station that knows every measurand ends with the longer one.
        """
        sampled, interval, heartbeat = self.reporting
        wanted = [(sampled, names) for names in reversed(self.measurands)]
        wanted += [(interval, str(sample_s)), (heartbeat, str(heartbeat_s))]
        return [self._change(name, value) for name, value in wanted]

    def ask_statuses(self) -> Ask:
        """Return the call that makes it say how each connector stands (1.6, 5.17; 2.x, F06)."""
        return Ask("TriggerMessage", {"requestedMessage": "StatusNotification"})

    @abstractmethod
    def ask_habits(self) -> Ask:
        """Return the call that asks what a station is like."""

    @abstractmethod
    def read_habits(self, payload: bytes) -> Habits:
        """Return what it is like, as far as it says."""

    @abstractmethod
    def _answer(self, action: str, given: Circumstances) -> Mapping[str, object]:
        """Return the payload of the result of a call that only this version has."""

    @abstractmethod
    def _schedule(self, number: int, told: Mapping[str, object]) -> object:
        """Return a schedule as it stands in a profile."""

    @abstractmethod
    def _change(self, name: str, value: str) -> Ask:
        """Return the call that changes one setting of a station."""

    def _verdict(self, given: Circumstances) -> Mapping[str, object]:
        return {self.names.card: {"status": "Accepted" if given.authorize else "Invalid"}}

    def _purpose(self, profile: Profile) -> str:
        if profile.transaction:
            return "TxProfile"
        is_whole = profile.evse == 0 and not profile.is_default
        return self.names.station_profile if is_whole else "TxDefaultProfile"

    def _misread(self, action: str, error: Exception) -> Misread:
        if isinstance(error, RecursionError):
            reason = f"json: /3: {action} is nested too deeply; send flat objects"
            return Misread(self.malformed, reason)
        what, _, path = str(error).partition(_PLACE_MARK)
        place = "/3" + path.rstrip("`").replace(".", "/").replace("[", "/").replace("]", "")
        reason = f"field: {place}: {what.replace('`', '')[:120]}; send {action} as specified"
        if isinstance(error, msgspec.ValidationError):
            missing = "missing required field" in what
            return Misread("ProtocolError" if missing else "TypeConstraintViolation", reason)
        return Misread(self.malformed, reason)


COMMON: Mapping[str, Event] = {
    "BootNotification": Event(booted=True),
    "Heartbeat": Event(alive=True),
    "Authorize": NOTHING,
    "DataTransfer": NOTHING,
}
"""Calls of every version that say nothing but that they were made."""


def standing(
    evse: int,
    word: str,
    at: str,
    known: Mapping[str, Occupancy],
    *,
    field: str,
    words: str,
    is_aside: bool,
) -> Event:
    """Return what StatusNotification says.

    Args:
        evse: EVSE, or connector.
        word: How it stands.
        at: When.
        known: What such words mean.
        field: Where the word stands.
        words: What the specification calls all such words.
        is_aside: See `Event`.
    """
    occupancy = known.get(word)
    problems: tuple[str, ...] = ()
    if occupancy is None:
        problems = (f"status: /{field}: there is no status {word!r:.30}; send one of {words}",)
    return Event(
        evse=evse, occupancy=occupancy, is_aside=is_aside, at_ns=moment_ns(at), problems=problems
    )


class _Object(msgspec.Struct):
    """Any object."""


class _Answer(msgspec.Struct):
    status: str


class _Period(msgspec.Struct, rename="camel"):
    start_period: float
    limit: float | None = None
    setpoint: float | None = None

    @property
    def value(self) -> float:
        """The setpoint where there is one; infinite where nothing limits it."""
        if self.setpoint is not None:
            return self.setpoint
        return self.limit if self.limit is not None else math.inf


class _Schedule(msgspec.Struct, rename="camel"):
    charging_rate_unit: str
    charging_schedule_period: list[_Period]
    duration: float | None = None


class _Composite(msgspec.Struct, rename="camel"):
    status: str
    charging_schedule: _Schedule | None = None
    """1.6"""
    schedule: _Schedule | None = None
    """2.0.1 and 2.1"""


_decode_object = msgspec.json.Decoder(_Object).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_composite = msgspec.json.Decoder(_Composite).decode
