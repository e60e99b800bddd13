"""OCPP 2.0.1 and 2.1: calls of charging stations to events, setpoints to calls. Pure.

Source: OCPP 2.0.1 edition 3 and OCPP 2.1 edition 1, part 2. 2.1 adds setpoints for discharge.
"""

from collections.abc import Mapping

import msgspec

from kapelle.adapters.ocpp import needs
from kapelle.adapters.ocpp.dialect import (
    BROKEN,
    COMMON,
    Ask,
    Circumstances,
    Dialect,
    Habits,
    Names,
    standing,
)
from kapelle.adapters.ocpp.events import NOTHING, Event, Occupancy
from kapelle.adapters.ocpp.meters import Meter, Sampled, moment_ns
from kapelle.adapters.ocpp.meters import samples as samples_of

V201, V21 = "ocpp2.0.1", "ocpp2.1"
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
    "NotifyEVChargingSchedule",
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
    "SignCertificate",
)
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

    def sampled(self) -> Sampled:
        """See `Sampling`."""
        unit = self.unit_of_measure
        return Sampled(
            self.value,
            self.measurand,
            self.phase,
            self.location,
            unit.unit,
            unit.multiplier,
            self.context,
        )


class _MeterValues(msgspec.Struct, rename="camel"):
    evse_id: int
    meter_value: list[Meter[_Value]]


class _Evse(msgspec.Struct):
    id: int


class _Transaction(msgspec.Struct, rename="camel"):
    transaction_id: str
    charging_state: str = ""


class _TransactionEvent(msgspec.Struct, rename="camel"):
    event_type: str
    transaction_info: _Transaction
    timestamp: str = ""
    meter_value: list[Meter[_Value]] = []
    evse: _Evse | None = None


class _Status(msgspec.Struct, rename="camel"):
    connector_status: str
    evse_id: int
    timestamp: str = ""


def _meter_values(payload: bytes) -> Event:
    said = _decode_meter_values(payload)
    samples, problems = samples_of(said.meter_value, "meterValue")
    return Event(evse=said.evse_id, samples=samples, problems=problems)


def _transaction_event(payload: bytes) -> Event:
    said = _decode_transaction_event(payload)
    samples, problems = samples_of(said.meter_value, "meterValue")
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
    return standing(
        said.evse_id,
        said.connector_status,
        said.timestamp,
        _STATUS,
        field="connectorStatus",
        words="ConnectorStatusEnumType",
        is_aside=True,
    )


_decode_meter_values = msgspec.json.Decoder(_MeterValues).decode
_decode_transaction_event = msgspec.json.Decoder(_TransactionEvent).decode
_decode_status = msgspec.json.Decoder(_Status).decode
_READERS = {
    "MeterValues": _meter_values,
    "TransactionEvent": _transaction_event,
    "StatusNotification": _status,
    "NotifyEVChargingNeeds": needs.decode,
}
_OTHERS = {**COMMON, **dict.fromkeys(_ACKNOWLEDGED, NOTHING)}


class _Name(msgspec.Struct):
    name: str


class _Variable(msgspec.Struct, rename="camel"):
    variable: _Name
    attribute_status: str = ""
    attribute_value: str = ""


class _Variables(msgspec.Struct, rename="camel"):
    get_variable_result: list[_Variable] = []


class V2(Dialect):
    """OCPP 2.0.1 or 2.1."""

    frame_error = "RpcFrameworkError"
    malformed = "FormatViolation"
    names = Names(
        evse="evseId",
        card="idTokenInfo",
        profile="chargingProfile",
        profile_id="id",
        cleared_id="chargingProfileId",
        station_profile="ChargingStationMaxProfile",
    )
    readers = _READERS
    others = _OTHERS
    measurands = _MEASURANDS
    reporting = (
        "SampledDataCtrlr.TxUpdatedMeasurands",
        "SampledDataCtrlr.TxUpdatedInterval",
        "OCPPCommCtrlr.HeartbeatInterval",
    )

    def __init__(self, name: str) -> None:
        self.name = name

    def ask_habits(self) -> Ask:
        """Return the call that asks what a station is like (B06; SmartChargingCtrlr.RateUnit)."""
        wanted = [_variable("SmartChargingCtrlr.RateUnit")]
        return Ask("GetVariables", {"getVariableData": wanted})

    def read_habits(self, payload: bytes) -> Habits:
        """Return what it is like, as far as it says."""
        try:
            said = msgspec.json.decode(payload, type=_Variables)
        except BROKEN:
            return Habits()
        for one in said.get_variable_result[:100]:
            if one.variable.name == "RateUnit" and one.attribute_status == "Accepted":
                allowed = {unit.strip() for unit in one.attribute_value.split(",")}
                return Habits("A" if "A" in allowed else "W" if "W" in allowed else "")
        return Habits()

    def _answer(self, action: str, given: Circumstances) -> Mapping[str, object]:
        if action in ("NotifyEVChargingNeeds", "NotifyEVChargingSchedule"):
            return {"status": "Accepted"}
        return {"status": "Rejected"} if action == "SignCertificate" else {}

    def _schedule(self, number: int, told: Mapping[str, object]) -> object:
        return [{"id": number, **told}]

    def _change(self, name: str, value: str) -> Ask:
        # One by one: what a station does not know does not spoil the rest.
        return Ask(
            "SetVariables", {"setVariableData": [_variable(name) | {"attributeValue": value}]}
        )


def _variable(name: str) -> dict[str, object]:
    component, _, variable = name.partition(".")
    return {"component": {"name": component}, "variable": {"name": variable}}
