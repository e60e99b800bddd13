"""OCPP 1.6J: calls of charge points to events, setpoints to calls. Pure.

Source: OCPP 1.6 edition 2 and its JSON specification.
"""

from collections.abc import Mapping

import msgspec

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
from kapelle.adapters.ocpp.events import NOTHING, Event, Occupancy, Sample
from kapelle.adapters.ocpp.meters import Meter, Sampled, moment_ns
from kapelle.adapters.ocpp.meters import samples as samples_of
from kapelle.model.enums import Metric

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

    def sampled(self) -> Sampled | None:
        """See `Sampling`."""
        if self.format == "SignedData":
            return None
        return Sampled(
            self.value, self.measurand, self.phase, self.location, self.unit, context=self.context
        )


class _MeterValues(msgspec.Struct, rename="camel"):
    connector_id: int
    meter_value: list[Meter[_Value]]
    transaction_id: int | None = None


class _Start(msgspec.Struct, rename="camel"):
    connector_id: int
    meter_start: float
    timestamp: str = ""


class _Stop(msgspec.Struct, rename="camel"):
    transaction_id: int
    meter_stop: float
    timestamp: str = ""
    transaction_data: list[Meter[_Value]] | None = None


class _Status(msgspec.Struct, rename="camel"):
    connector_id: int
    status: str
    timestamp: str = ""


def _meter_values(payload: bytes) -> Event:
    said = _decode_meter_values(payload)
    samples, problems = samples_of(said.meter_value, "meterValue")
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
    samples, problems = samples_of(said.transaction_data or (), "transactionData")
    samples += (Sample(at_ns, {Metric.IMPORT_WH: said.meter_stop}),)
    name = str(said.transaction_id)
    return Event(transaction=name, ended=True, at_ns=at_ns, samples=samples, problems=problems)


def _status(payload: bytes) -> Event:
    said = _decode_status(payload)
    return standing(
        said.connector_id,
        said.status,
        said.timestamp,
        _OCCUPANCY,
        field="status",
        words="OCPP 1.6, 7.7",
        is_aside=False,
    )


_decode_meter_values = msgspec.json.Decoder(_MeterValues).decode
_decode_start = msgspec.json.Decoder(_Start).decode
_decode_stop = msgspec.json.Decoder(_Stop).decode
_decode_status = msgspec.json.Decoder(_Status).decode
_READERS = {
    "MeterValues": _meter_values,
    "StartTransaction": _start,
    "StopTransaction": _stop,
    "StatusNotification": _status,
}
_OTHERS = {**COMMON, **dict.fromkeys(_ACKNOWLEDGED, NOTHING)}


class _Key(msgspec.Struct):
    key: str
    value: str = ""


class _Configuration(msgspec.Struct, rename="camel"):
    configuration_key: list[_Key] = []


class V16(Dialect):
    """OCPP 1.6J."""

    name = "ocpp1.6"
    frame_error = "ProtocolError"
    malformed = "FormationViolation"
    names = Names(
        evse="connectorId",
        card="idTagInfo",
        profile="csChargingProfiles",
        profile_id="chargingProfileId",
        cleared_id="id",
        station_profile="ChargePointMaxProfile",
    )
    readers = _READERS
    others = _OTHERS
    measurands = _MEASURANDS
    reporting = ("MeterValuesSampledData", "MeterValueSampleInterval", "HeartbeatInterval")

    def ask_habits(self) -> Ask:
        """Return the call that asks what a station is like (9.4, 9.1)."""
        keys = ["ChargingScheduleAllowedChargingRateUnit", "NumberOfConnectors"]
        return Ask("GetConfiguration", {"key": keys})

    def read_habits(self, payload: bytes) -> Habits:
        """Return what it is like, as far as it says."""
        try:
            said = msgspec.json.decode(payload, type=_Configuration)
        except BROKEN:
            return Habits()
        values = {one.key: one.value for one in said.configuration_key[:100]}
        # A list, and some write it with blanks: "Current, Power". Amps are what is understood best.
        allowed = values.get("ChargingScheduleAllowedChargingRateUnit", "")
        units = [unit for name, unit in _UNIT_OF.items() if name in allowed]
        text = values.get("NumberOfConnectors", "")
        count = int(text) if text.isascii() and text.isdigit() and len(text) < 3 else 0
        return Habits(units[0] if units else "", count)

    def _answer(self, action: str, given: Circumstances) -> Mapping[str, object]:
        if action == "StartTransaction":
            return {"transactionId": given.transaction, **self._verdict(given)}
        return {}

    def _schedule(self, number: int, told: Mapping[str, object]) -> object:
        return told

    def _change(self, name: str, value: str) -> Ask:
        return Ask("ChangeConfiguration", {"key": name, "value": value})
