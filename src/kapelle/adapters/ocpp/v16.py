"""OCPP 1.6J: calls of charge points to events, setpoints to calls. Pure.

Source: OCPP 1.6 edition 2 and its JSON specification.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from kapelle.adapters.ocpp import schedule
from kapelle.adapters.ocpp.dialect import Ask, Circumstances, Composite, Habits, Profile
from kapelle.adapters.ocpp.events import NOTHING, Event, Misread, Occupancy, Sample
from kapelle.adapters.ocpp.meters import Sampled, measure, moment_ns, time_text
from kapelle.model.enums import AckStatus, Metric

_BROKEN = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_OCCUPANCY = {
    "Available": Occupancy.FREE,
    "Preparing": Occupancy.PLUGGED,
    "Charging": Occupancy.CHARGING,
    "SuspendedEVSE": Occupancy.PAUSED,
    "SuspendedEV": Occupancy.SATISFIED,
    "Finishing": Occupancy.PLUGGED,
    "Reserved": Occupancy.FREE,
    "Unavailable": Occupancy.UNAVAILABLE,
    "Faulted": Occupancy.FAULTED,
    # 1.5, which some stations kept.
    "Occupied": Occupancy.PLUGGED,
}
_ACKNOWLEDGED = (
    "DiagnosticsStatusNotification",
    "FirmwareStatusNotification",
    "LogStatusNotification",
    "SecurityEventNotification",
    "SignedFirmwareStatusNotification",
)
_ID_FIRST = 7_350
"""Ids of our profiles begin here; one per connector, so that each replaces the one before."""
_UNIT_OF = {"Current": "A", "Power": "W"}
_MEASURANDS = (
    "Power.Active.Import,Energy.Active.Import.Register,Voltage,Current.Import,SoC",
    "Power.Active.Import,Energy.Active.Import.Register",
)


class _Value(msgspec.Struct, rename="camel"):
    value: str | float
    context: str = ""
    format: str = ""
    measurand: str = "Energy.Active.Import.Register"
    phase: str = ""
    location: str = ""
    unit: str = ""


class _Meter(msgspec.Struct, rename="camel"):
    sampled_value: list[_Value]
    timestamp: str = ""


class _MeterValues(msgspec.Struct, rename="camel"):
    connector_id: int
    meter_value: list[_Meter]
    transaction_id: int | None = None


class _Start(msgspec.Struct, rename="camel"):
    connector_id: int
    meter_start: float
    timestamp: str = ""


class _Stop(msgspec.Struct, rename="camel"):
    transaction_id: int
    meter_stop: float
    timestamp: str = ""
    transaction_data: list[_Meter] | None = None


class _Status(msgspec.Struct, rename="camel"):
    connector_id: int
    status: str
    timestamp: str = ""


class _Object(msgspec.Struct):
    """Any object."""


def _samples(meters: Sequence[_Meter], where: str) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    samples, problems = [], []
    for place, meter in enumerate(meters):
        sampled = [
            Sampled(
                one.value, one.measurand, one.phase, one.location, one.unit, context=one.context
            )
            for one in meter.sampled_value
            if one.format != "SignedData"
        ]
        measured = measure(sampled, f"/{where}/{place}/sampledValue")
        problems += measured.problems
        if measured.values:
            samples.append(Sample(moment_ns(meter.timestamp), measured.values, measured.phases))
    return tuple(samples), tuple(problems)


def _meter_values(payload: bytes) -> Event:
    said = _decode_meter_values(payload)
    samples, problems = _samples(said.meter_value, "meterValue")
    transaction = str(said.transaction_id) if said.transaction_id else ""
    return Event(
        evse=said.connector_id, transaction=transaction, samples=samples, problems=problems
    )


def _start(payload: bytes) -> Event:
    said = _decode_start(payload)
    at_ns = moment_ns(said.timestamp)
    samples = (Sample(at_ns, {Metric.IMPORT_WH: said.meter_start}),)
    return Event(evse=said.connector_id, began=True, at_ns=at_ns, samples=samples)


def _stop(payload: bytes) -> Event:
    said = _decode_stop(payload)
    at_ns = moment_ns(said.timestamp)
    samples, problems = _samples(said.transaction_data or (), "transactionData")
    samples += (Sample(at_ns, {Metric.IMPORT_WH: said.meter_stop}),)
    name = str(said.transaction_id)
    return Event(transaction=name, ended=True, at_ns=at_ns, samples=samples, problems=problems)


def _status(payload: bytes) -> Event:
    said = _decode_status(payload)
    occupancy = _OCCUPANCY.get(said.status)
    problems: tuple[str, ...] = ()
    if occupancy is None:
        what = f"there is no status {said.status!r:.30}"
        problems = (f"status: /status: {what}; send one of OCPP 1.6, 7.7",)
    at_ns = moment_ns(said.timestamp)
    return Event(evse=said.connector_id, occupancy=occupancy, at_ns=at_ns, problems=problems)


_decode_meter_values = msgspec.json.Decoder(_MeterValues).decode
_decode_start = msgspec.json.Decoder(_Start).decode
_decode_stop = msgspec.json.Decoder(_Stop).decode
_decode_status = msgspec.json.Decoder(_Status).decode
_decode_object = msgspec.json.Decoder(_Object).decode
_READERS = {
    "MeterValues": _meter_values,
    "StartTransaction": _start,
    "StopTransaction": _stop,
    "StatusNotification": _status,
}
_OTHERS = {
    "BootNotification": Event(booted=True),
    "Heartbeat": Event(alive=True),
    "Authorize": NOTHING,
    "DataTransfer": NOTHING,
    **dict.fromkeys(_ACKNOWLEDGED, NOTHING),
}


class _Period(msgspec.Struct, rename="camel"):
    start_period: float
    limit: float


class _Schedule(msgspec.Struct, rename="camel"):
    charging_rate_unit: str
    charging_schedule_period: list[_Period]
    duration: float | None = None


class _Composite(msgspec.Struct, rename="camel"):
    status: str
    charging_schedule: _Schedule | None = None


class _StatusOnly(msgspec.Struct):
    status: str


class _Key(msgspec.Struct):
    key: str
    value: str = ""


class _Configuration(msgspec.Struct, rename="camel"):
    configuration_key: list[_Key] = []


class V16:
    """OCPP 1.6J."""

    name: Final = "ocpp1.6"
    frame_error: Final = "ProtocolError"

    def decode(self, action: str, payload: bytes) -> Event | Misread:
        """Read a call of a charge point. Never raises."""
        try:
            if action in _READERS:
                return _READERS[action](payload)
            if action in _OTHERS:
                _decode_object(payload)
                return _OTHERS[action]
        except _BROKEN as error:
            return schedule.misread(action, error, "FormationViolation")
        remedy = "use what docs/adapters/ocpp.md lists"
        return Misread("NotImplemented", f"action: /2: {action!r:.40} is not served; {remedy}")

    def answer(self, action: str, given: Circumstances) -> Mapping[str, object]:
        """Return the payload of the result of a call that `decode` could read."""
        now, verdict = time_text(given.now_ns), "Accepted" if given.authorize else "Invalid"
        match action:
            case "BootNotification":
                return {"status": "Accepted", "currentTime": now, "interval": given.heartbeat_s}
            case "Heartbeat":
                return {"currentTime": now}
            case "Authorize":
                return {"idTagInfo": {"status": verdict}}
            case "StartTransaction":
                return {"transactionId": given.transaction, "idTagInfo": {"status": verdict}}
            case "DataTransfer":
                return {"status": "UnknownVendorId"}
        return {}

    def set_profile(self, profile: Profile) -> Ask:
        """Return the call that sets a profile (5.16, 7.8)."""
        period: dict[str, object] = {"startPeriod": 0, "limit": schedule.tenths(profile.value)}
        if profile.phases:
            period["numberPhases"] = profile.phases
        purpose = "ChargePointMaxProfile" if profile.evse == 0 else "TxDefaultProfile"
        if profile.is_default:
            purpose = "TxDefaultProfile"
        said: dict[str, object] = {
            "chargingProfileId": _ID_FIRST + profile.evse,
            "stackLevel": profile.stack_level,
            "chargingProfilePurpose": purpose,
            "chargingProfileKind": "Absolute",
            "chargingSchedule": {
                **schedule.validity(profile),
                "chargingRateUnit": profile.unit,
                "chargingSchedulePeriod": [period],
            },
        }
        if profile.until_ns:
            said["validTo"] = time_text(profile.until_ns)
        return Ask("SetChargingProfile", {"connectorId": profile.evse, "csChargingProfiles": said})

    def clear_profile(self, evse: int) -> Ask:
        """Return the call that takes back what `set_profile` set (5.5)."""
        return Ask("ClearChargingProfile", {"id": _ID_FIRST + evse})

    def composite(self, evse: int, unit: str, duration_s: int) -> Ask:
        """Return the call that asks what a station will do (5.7)."""
        said = {"connectorId": evse, "duration": duration_s, "chargingRateUnit": unit}
        return Ask("GetCompositeSchedule", said)

    def read_status(self, payload: bytes) -> tuple[AckStatus, str]:
        """Return what a station answered to a profile."""
        return schedule.read_status(payload)

    def read_composite(self, payload: bytes) -> Composite | None:
        """Return what a station will do; None where it does not say."""
        try:
            said = msgspec.json.decode(payload, type=_Composite)
        except _BROKEN:
            return None
        if said.status != "Accepted" or said.charging_schedule is None:
            return None
        periods = [
            (one.start_period, one.limit) for one in said.charging_schedule.charging_schedule_period
        ]
        duration_s = said.charging_schedule.duration
        return schedule.first(periods, said.charging_schedule.charging_rate_unit, duration_s)

    def ask_habits(self) -> Ask:
        """Return the call that asks what a station is like (9.4, 9.1)."""
        keys = ["ChargingScheduleAllowedChargingRateUnit", "NumberOfConnectors"]
        return Ask("GetConfiguration", {"key": keys})

    def read_habits(self, payload: bytes) -> Habits:
        """Return what it is like, as far as it says."""
        try:
            said = msgspec.json.decode(payload, type=_Configuration)
        except _BROKEN:
            return Habits()
        values = {one.key: one.value for one in said.configuration_key[:100]}
        # A list, and some write it with blanks: "Current, Power". Amps are what is understood best.
        allowed = values.get("ChargingScheduleAllowedChargingRateUnit", "")
        units = [unit for name, unit in _UNIT_OF.items() if name in allowed]
        text = values.get("NumberOfConnectors", "")
        count = int(text) if text.isascii() and text.isdigit() and len(text) < 3 else 0
        return Habits(units[0] if units else "", count)

    def set_up(self, sample_s: int, heartbeat_s: int) -> Sequence[Ask]:
        """Return calls that make it report what the plant needs; any may be refused.

        The shorter list first: a station that knows every measurand ends with the longer one.
        """
        wanted = [("MeterValuesSampledData", names) for names in reversed(_MEASURANDS)]
        wanted.append(("MeterValueSampleInterval", str(sample_s)))
        wanted.append(("HeartbeatInterval", str(heartbeat_s)))
        return [Ask("ChangeConfiguration", {"key": key, "value": text}) for key, text in wanted]

    def ask_statuses(self) -> Ask:
        """Return the call that makes it say how each connector stands (5.17)."""
        return Ask("TriggerMessage", {"requestedMessage": "StatusNotification"})
