"""OCPP 2.0.1 and 2.1: calls of charging stations to events, setpoints to calls. Pure.

Source: OCPP 2.0.1 edition 3 and OCPP 2.1 edition 1, part 2. 2.1 adds setpoints for discharge.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from kapelle.adapters.ocpp import needs, schedule
from kapelle.adapters.ocpp.dialect import Ask, Circumstances, Composite, Habits, Profile
from kapelle.adapters.ocpp.events import NOTHING, Event, Misread, Occupancy, Sample
from kapelle.adapters.ocpp.meters import Sampled, measure, moment_ns, time_text
from kapelle.model.enums import AckStatus

V201, V21 = "ocpp2.0.1", "ocpp2.1"
_BROKEN = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_STATUS = {
    "Available": Occupancy.FREE,
    "Occupied": Occupancy.PLUGGED,
    "Reserved": Occupancy.FREE,
    "Unavailable": Occupancy.UNAVAILABLE,
    "Faulted": Occupancy.FAULTED,
}
_CHARGING_STATE = {
    "Charging": Occupancy.CHARGING,
    "EVConnected": Occupancy.PLUGGED,
    "SuspendedEV": Occupancy.SATISFIED,
    "SuspendedEVSE": Occupancy.PAUSED,
    "Idle": Occupancy.PLUGGED,
}
_ACKNOWLEDGED = (
    "ClearedChargingLimit",
    "FirmwareStatusNotification",
    "LogStatusNotification",
    "NotifyChargingLimit",
    "NotifyCustomerInformation",
    "NotifyDERAlarm",
    "NotifyDERStartStop",
    "NotifyDisplayMessages",
    "NotifyEvent",
    "NotifyMonitoringReport",
    "NotifyPeriodicEventStream",
    "NotifyPriorityCharging",
    "NotifyReport",
    "PublishFirmwareStatusNotification",
    "ReportChargingProfiles",
    "ReportDERControl",
    "ReservationStatusUpdate",
    "SecurityEventNotification",
)
_ID_FIRST = 7_350
_MEASURANDS = (
    (
        "Power.Active.Import,Power.Active.Export,Energy.Active.Import.Register,"
        "Energy.Active.Export.Register,Voltage,Current.Import,SoC"
    ),
    "Power.Active.Import,Energy.Active.Import.Register",
)
_TRANSACTION_CHARS_MAX = 64


class _Unit(msgspec.Struct):
    unit: str = ""
    multiplier: int = 0


class _Value(msgspec.Struct, rename="camel"):
    value: float
    context: str = ""
    measurand: str = "Energy.Active.Import.Register"
    phase: str = ""
    location: str = ""
    unit_of_measure: _Unit = msgspec.field(default_factory=_Unit)


class _Meter(msgspec.Struct, rename="camel"):
    sampled_value: list[_Value]
    timestamp: str = ""


class _MeterValues(msgspec.Struct, rename="camel"):
    evse_id: int
    meter_value: list[_Meter]


class _Evse(msgspec.Struct):
    id: int


class _Transaction(msgspec.Struct, rename="camel"):
    transaction_id: str
    charging_state: str = ""


class _TransactionEvent(msgspec.Struct, rename="camel"):
    event_type: str
    transaction_info: _Transaction
    timestamp: str = ""
    meter_value: list[_Meter] = []
    evse: _Evse | None = None


class _Status(msgspec.Struct, rename="camel"):
    connector_status: str
    evse_id: int
    timestamp: str = ""


class _Object(msgspec.Struct):
    """Any object."""


def _samples(meters: Sequence[_Meter]) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    samples, problems = [], []
    for place, meter in enumerate(meters):
        sampled = [
            Sampled(
                one.value,
                one.measurand,
                one.phase,
                one.location,
                one.unit_of_measure.unit,
                one.unit_of_measure.multiplier,
                one.context,
            )
            for one in meter.sampled_value
        ]
        measured = measure(sampled, f"/meterValue/{place}/sampledValue")
        problems += measured.problems
        if measured.values:
            samples.append(Sample(moment_ns(meter.timestamp), measured.values, measured.phases))
    return tuple(samples), tuple(problems)


def _meter_values(payload: bytes) -> Event:
    said = _decode_meter_values(payload)
    samples, problems = _samples(said.meter_value)
    return Event(evse=said.evse_id, samples=samples, problems=problems)


def _transaction_event(payload: bytes) -> Event:
    said = _decode_transaction_event(payload)
    samples, problems = _samples(said.meter_value)
    if said.event_type not in ("Started", "Updated", "Ended"):
        what = f"there is no event {said.event_type!r:.30}"
        problems += (f"transaction: /eventType: {what}; send Started, Updated or Ended",)
    return Event(
        evse=said.evse.id if said.evse is not None else None,
        transaction=said.transaction_info.transaction_id[:_TRANSACTION_CHARS_MAX],
        began=said.event_type == "Started",
        ended=said.event_type == "Ended",
        at_ns=moment_ns(said.timestamp),
        occupancy=_CHARGING_STATE.get(said.transaction_info.charging_state),
        samples=samples,
        problems=problems,
    )


def _status(payload: bytes) -> Event:
    said = _decode_status(payload)
    occupancy = _STATUS.get(said.connector_status)
    problems: tuple[str, ...] = ()
    if occupancy is None:
        what = f"there is no status {said.connector_status!r:.30}"
        problems = (f"status: /connectorStatus: {what}; send one of ConnectorStatusEnumType",)
    at_ns = moment_ns(said.timestamp)
    return Event(
        evse=said.evse_id, occupancy=occupancy, is_aside=True, at_ns=at_ns, problems=problems
    )


_decode_meter_values = msgspec.json.Decoder(_MeterValues).decode
_decode_transaction_event = msgspec.json.Decoder(_TransactionEvent).decode
_decode_status = msgspec.json.Decoder(_Status).decode
_decode_object = msgspec.json.Decoder(_Object).decode
_READERS = {
    "MeterValues": _meter_values,
    "TransactionEvent": _transaction_event,
    "StatusNotification": _status,
    "NotifyEVChargingNeeds": needs.decode,
}
_OTHERS = {
    "BootNotification": Event(booted=True),
    "Heartbeat": Event(alive=True),
    "Authorize": NOTHING,
    "DataTransfer": NOTHING,
    "NotifyEVChargingSchedule": NOTHING,
    "SignCertificate": NOTHING,
    **dict.fromkeys(_ACKNOWLEDGED, NOTHING),
}


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
    schedule: _Schedule | None = None


class _Name(msgspec.Struct):
    name: str


class _Variable(msgspec.Struct, rename="camel"):
    variable: _Name
    attribute_status: str = ""
    attribute_value: str = ""


class _Variables(msgspec.Struct, rename="camel"):
    get_variable_result: list[_Variable] = []


class V2:
    """OCPP 2.0.1 or 2.1."""

    frame_error: Final = "RpcFrameworkError"

    def __init__(self, name: str) -> None:
        self.name = name

    def decode(self, action: str, payload: bytes) -> Event | Misread:
        """Read a call of a charging station. Never raises."""
        try:
            if action in _READERS:
                return _READERS[action](payload)
            if action in _OTHERS:
                _decode_object(payload)
                return _OTHERS[action]
        except _BROKEN as error:
            return schedule.misread(action, error, "FormatViolation")
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
                return {"idTokenInfo": {"status": verdict}}
            case "DataTransfer":
                return {"status": "UnknownVendorId"}
            case "NotifyEVChargingNeeds" | "NotifyEVChargingSchedule":
                return {"status": "Accepted"}
            case "SignCertificate":
                return {"status": "Rejected"}
        return {}

    def set_profile(self, profile: Profile) -> Ask:
        """Return the call that sets a profile (K01)."""
        said: dict[str, object] = {
            "id": _ID_FIRST + profile.evse,
            "stackLevel": profile.stack_level,
            "chargingProfilePurpose": _purpose(profile),
            "chargingProfileKind": "Absolute",
            "chargingSchedule": [
                {
                    "id": _ID_FIRST + profile.evse,
                    **schedule.validity(profile),
                    "chargingRateUnit": profile.unit,
                    "chargingSchedulePeriod": [_period(profile)],
                }
            ],
        }
        if profile.until_ns:
            said["validTo"] = time_text(profile.until_ns)
        if profile.transaction:
            said["transactionId"] = profile.transaction
        return Ask("SetChargingProfile", {"evseId": profile.evse, "chargingProfile": said})

    def clear_profile(self, evse: int) -> Ask:
        """Return the call that takes back what `set_profile` set (K10)."""
        return Ask("ClearChargingProfile", {"chargingProfileId": _ID_FIRST + evse})

    def composite(self, evse: int, unit: str, duration_s: int) -> Ask:
        """Return the call that asks what a station will do (K08)."""
        said = {"evseId": evse, "duration": duration_s, "chargingRateUnit": unit}
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
        if said.status != "Accepted" or said.schedule is None:
            return None
        plan = said.schedule
        periods = [(one.start_period, one.value) for one in plan.charging_schedule_period]
        return schedule.first(periods, plan.charging_rate_unit, plan.duration)

    def ask_habits(self) -> Ask:
        """Return the call that asks what a station is like (B06; SmartChargingCtrlr.RateUnit)."""
        wanted = [_variable("SmartChargingCtrlr", "RateUnit")]
        return Ask("GetVariables", {"getVariableData": wanted})

    def read_habits(self, payload: bytes) -> Habits:
        """Return what it is like, as far as it says."""
        try:
            said = msgspec.json.decode(payload, type=_Variables)
        except _BROKEN:
            return Habits()
        for one in said.get_variable_result[:100]:
            if one.variable.name == "RateUnit" and one.attribute_status == "Accepted":
                allowed = {unit.strip() for unit in one.attribute_value.split(",")}
                return Habits("A" if "A" in allowed else "W" if "W" in allowed else "")
        return Habits()

    def set_up(self, sample_s: int, heartbeat_s: int) -> Sequence[Ask]:
        """Return calls that make it report what the plant needs; any may be refused."""
        sampled = "SampledDataCtrlr"
        wanted = [(sampled, "TxUpdatedMeasurands", names) for names in reversed(_MEASURANDS)]
        wanted.append((sampled, "TxUpdatedInterval", str(sample_s)))
        wanted.append(("OCPPCommCtrlr", "HeartbeatInterval", str(heartbeat_s)))
        data = [
            {**_variable(component, name), "attributeValue": value}
            for component, name, value in wanted
        ]
        # One by one: what a station does not know does not spoil the rest.
        return [Ask("SetVariables", {"setVariableData": [one]}) for one in data]

    def ask_statuses(self) -> Ask:
        """Return the call that makes it say how each connector stands (F06)."""
        return Ask("TriggerMessage", {"requestedMessage": "StatusNotification"})


def _purpose(profile: Profile) -> str:
    if profile.transaction:
        return "TxProfile"
    if profile.evse == 0 and not profile.is_default:
        return "ChargingStationMaxProfile"
    return "TxDefaultProfile"


def _period(profile: Profile) -> dict[str, object]:
    value = schedule.tenths(profile.value)
    if profile.is_setpoint:
        return {"startPeriod": 0, "setpoint": value, "operationMode": "CentralSetpoint"}
    period: dict[str, object] = {"startPeriod": 0, "limit": value}
    if profile.phases:
        period["numberPhases"] = profile.phases
    return period


def _variable(component: str, name: str) -> dict[str, object]:
    return {"component": {"name": component}, "variable": {"name": name}}
