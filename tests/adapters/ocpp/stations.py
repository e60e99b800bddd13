"""Charging stations made of the `ocpp` library, which checks both sides by the official schemas."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import ocpp.messages
import websockets
from ocpp.exceptions import PropertyConstraintViolationError
from ocpp.routing import on
from ocpp.v16 import ChargePoint as ChargePoint16
from ocpp.v16 import call as call16
from ocpp.v16 import call_result as result16
from ocpp.v21 import ChargePoint as ChargePoint21
from ocpp.v21 import call as call21
from ocpp.v21 import call_result as result21
from ocpp.v201 import ChargePoint as ChargePoint201
from ocpp.v201 import call as call201
from ocpp.v201 import call_result as result201
from tests.adapters.conformance.plant import DEVICE, SECRET

ocpp.messages.ASYNC_VALIDATION = False

VOLTS = 230.0


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Behaviour:
    """What a test may change about a station."""

    units = "Current,Power"
    takes_station_profile = True
    answers_with_errors = False
    """It answers with a CALLERROR what it does not take."""
    shows_schedule = True
    ignores = False
    """It accepts profiles and does nothing."""
    leaves_when_changed = False
    connectors = 1


class Habits(Behaviour):
    """What both kinds of station share: profiles by id, and what was told, in the plant's sign."""

    def begin(self) -> None:
        self.profiles: dict[int, dict[str, Any]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.told: list[float | None] = []

    def take(self, number: int, evse: int, profile: dict[str, Any]) -> str:
        purpose = profile["charging_profile_purpose"]
        if evse == 0 and "Max" in purpose and not self.takes_station_profile:
            if self.answers_with_errors:
                raise PropertyConstraintViolationError
            return "Rejected"
        if not self.ignores:
            self.profiles[number] = profile | {"evse": evse}
        schedule = profile["charging_schedule"]
        schedule = schedule[0] if isinstance(schedule, list) else schedule
        period = schedule["charging_schedule_period"][0]
        value = float(period["setpoint"] if "setpoint" in period else period["limit"])
        each = VOLTS if schedule["charging_rate_unit"] == "A" else 1.0
        self.told.append(-value * each + 0.0)
        return "Accepted"

    def forget(self, number: int | None) -> str:
        if self.profiles.pop(number or -1, None) is None and not self.ignores:
            return "Unknown"
        self.told.append(None)
        return "Accepted"

    def schedule(self, duration: int) -> dict[str, Any] | None:
        """Return what holds now, and 60 s early: profiles begin in the past."""
        if not self.shows_schedule:
            return None
        for profile in reversed(self.profiles.values()):
            schedule = profile["charging_schedule"]
            schedule = schedule[0] if isinstance(schedule, list) else schedule
            lasts = min(duration, schedule.get("duration", 10**9) - 60)
            periods = [dict(one) for one in schedule["charging_schedule_period"]]
            for one in periods:
                one |= {key: float(v) for key, v in one.items() if key in ("limit", "setpoint")}
            return {
                "charging_rate_unit": schedule["charging_rate_unit"],
                "duration": lasts,
                "charging_schedule_period": periods,
            }
        return {"charging_rate_unit": "A", "duration": duration, "charging_schedule_period": []}


class Station16(Habits, ChargePoint16):
    subprotocol = "ocpp1.6"
    transaction = 0

    @on("GetConfiguration")
    def on_get_configuration(self, key: list[str] | None = None) -> Any:
        said = {
            "ChargingScheduleAllowedChargingRateUnit": self.units,
            "NumberOfConnectors": str(self.connectors),
        }
        known = [
            {"key": name, "readonly": True, "value": said[name]}
            for name in key or []
            if name in said
        ]
        return result16.GetConfiguration(configuration_key=known)

    @on("ChangeConfiguration")
    def on_change_configuration(self, key: str, value: str) -> Any:
        if self.leaves_when_changed:
            self._connection.transport.abort()
        self.asked.append((key, {"value": value}))
        return result16.ChangeConfiguration("Accepted")

    @on("TriggerMessage")
    def on_trigger(self, requested_message: str, **_: Any) -> Any:
        return result16.TriggerMessage("Accepted")

    @on("SetChargingProfile")
    def on_set(self, connector_id: int, cs_charging_profiles: dict[str, Any]) -> Any:
        number = cs_charging_profiles["charging_profile_id"]
        return result16.SetChargingProfile(self.take(number, connector_id, cs_charging_profiles))

    @on("ClearChargingProfile")
    def on_clear(self, id: int | None = None, **_: Any) -> Any:
        return result16.ClearChargingProfile(self.forget(id))

    @on("GetCompositeSchedule")
    def on_composite(self, connector_id: int, duration: int, **_: Any) -> Any:
        schedule = self.schedule(duration)
        if schedule is None:
            return result16.GetCompositeSchedule("Rejected")
        if not schedule["charging_schedule_period"]:
            schedule["charging_schedule_period"] = [{"start_period": 0, "limit": 32.0}]
        return result16.GetCompositeSchedule(
            "Accepted", connector_id, now(), charging_schedule=schedule
        )

    async def boot(self) -> None:
        boot = call16.BootNotification(charge_point_model="Wall", charge_point_vendor="Nobody")
        assert (await self.call(boot, suppress=False)).status == "Accepted"

    async def plug_in(self, connector: int = 1, meter_wh: int = 1_000) -> None:
        start = call16.StartTransaction(connector, "card", meter_wh, now())
        self.transaction = (await self.call(start, suppress=False)).transaction_id
        await self.status("Charging", connector)

    async def unplug(self, meter_wh: int = 2_000) -> None:
        stop = call16.StopTransaction(meter_wh, now(), self.transaction)
        await self.call(stop, suppress=False)
        await self.status("Available")

    async def status(self, status: str, connector: int = 1) -> None:
        said = call16.StatusNotification(connector, "NoError", status, now())
        await self.call(said, suppress=False)

    async def heartbeat(self) -> None:
        await self.call(call16.Heartbeat(), suppress=False)

    async def measure(self, power_w: float, connector: int = 1, **more: float) -> None:
        direction = "Import" if power_w <= 0 else "Export"
        sampled = [
            {
                "value": f"{abs(power_w):.1f}",
                "measurand": f"Power.Active.{direction}",
                "unit": "W",
            },
            *({"value": str(value), "measurand": name} for name, value in more.items()),
        ]
        meter = {"timestamp": now(), "sampled_value": sampled}
        values = call16.MeterValues(connector, [meter], transaction_id=self.transaction or None)
        await self.call(values, suppress=False)


class Station2(Habits):
    """OCPP 2.0.1; 2.1 is a mixture with other payloads."""

    calls: Any = call201
    results: Any = result201
    state = "Charging"
    sequence = 0

    @on("GetVariables")
    def on_get_variables(self, get_variable_data: list[dict[str, Any]]) -> Any:
        units = ",".join(
            unit[0].replace("C", "A").replace("P", "W") for unit in self.units.split(",")
        )
        said = [
            one
            | {
                "attribute_status": "Accepted" if units else "UnknownVariable",
                "attribute_value": units or None,
            }
            for one in get_variable_data
        ]
        return self.results.GetVariables(get_variable_result=said)

    @on("SetVariables")
    def on_set_variables(self, set_variable_data: list[dict[str, Any]]) -> Any:
        for one in set_variable_data:
            self.asked.append((one["variable"]["name"], {"value": one["attribute_value"]}))
        said = [
            {
                "attribute_status": "Accepted",
                "component": one["component"],
                "variable": one["variable"],
            }
            for one in set_variable_data
        ]
        return self.results.SetVariables(set_variable_result=said)

    @on("TriggerMessage")
    def on_trigger(self, requested_message: str, **_: Any) -> Any:
        return self.results.TriggerMessage("Accepted")

    @on("SetChargingProfile")
    def on_set(self, evse_id: int, charging_profile: dict[str, Any]) -> Any:
        return self.results.SetChargingProfile(
            self.take(charging_profile["id"], evse_id, charging_profile)
        )

    @on("ClearChargingProfile")
    def on_clear(self, charging_profile_id: int | None = None, **_: Any) -> Any:
        return self.results.ClearChargingProfile(self.forget(charging_profile_id))

    @on("GetCompositeSchedule")
    def on_composite(self, evse_id: int, duration: int, **_: Any) -> Any:
        schedule = self.schedule(duration)
        if schedule is None:
            return self.results.GetCompositeSchedule("Rejected")
        if not schedule["charging_schedule_period"]:
            schedule["charging_schedule_period"] = [{"start_period": 0, "limit": 32.0}]
        schedule |= {"evse_id": evse_id, "schedule_start": now()}
        return self.results.GetCompositeSchedule("Accepted", schedule=schedule)

    async def boot(self) -> None:
        station = {"model": "Wall", "vendor_name": "Nobody"}
        boot = self.calls.BootNotification(charging_station=station, reason="PowerUp")
        assert (await self.call(boot, suppress=False)).status == "Accepted"

    async def status(self, status: str, connector: int = 1) -> None:
        said = self.calls.StatusNotification(
            timestamp=now(), connector_status=status, evse_id=connector, connector_id=1
        )
        await self.call(said, suppress=False)

    async def plug_in(self, connector: int = 1, meter_wh: int = 1_000) -> None:
        await self.event("Started", connector, [self.energy(meter_wh)])

    async def unplug(self, meter_wh: int = 2_000) -> None:
        await self.event("Ended", 1, [self.energy(meter_wh)])
        await self.status("Available")

    async def heartbeat(self) -> None:
        await self.call(self.calls.Heartbeat(), suppress=False)

    async def measure(self, power_w: float, connector: int = 1, **more: float) -> None:
        direction = "Import" if power_w <= 0 else "Export"
        sampled = [
            {
                "value": abs(power_w),
                "measurand": f"Power.Active.{direction}",
                "unit_of_measure": {"unit": "W"},
            },
            *({"value": value, "measurand": name} for name, value in more.items()),
        ]
        await self.event("Updated", connector, sampled)

    async def event(self, kind: str, evse: int, sampled: list[dict[str, Any]]) -> None:
        self.sequence += 1
        reason = {"Started": "CablePluggedIn", "Updated": "MeterValuePeriodic"}
        said = self.calls.TransactionEvent(
            event_type=kind,
            timestamp=now(),
            trigger_reason=reason.get(kind, "EVDeparted"),
            seq_no=self.sequence,
            transaction_info={"transaction_id": f"t-{evse}", "charging_state": self.state},
            evse={"id": evse} if kind == "Started" else None,
            meter_value=[{"timestamp": now(), "sampled_value": sampled}],
        )
        await self.call(said, suppress=False)

    @staticmethod
    def energy(meter_wh: float) -> dict[str, Any]:
        return {"value": float(meter_wh), "unit_of_measure": {"unit": "Wh"}}


class Station201(Station2, ChargePoint201):
    subprotocol = "ocpp2.0.1"


class Station21(Station2, ChargePoint21):
    calls = call21
    results = result21
    subprotocol = "ocpp2.1"


STATIONS: dict[str, Any] = {"1.6": Station16, "2.0.1": Station201, "2.1": Station21}


def basic(identity: str, secret: str) -> dict[str, str]:
    word = base64.b64encode(f"{identity}:{secret}".encode()).decode()
    return {"Authorization": f"Basic {word}"}


@asynccontextmanager
async def connected(
    port: int,
    version: str,
    *,
    identity: str = DEVICE,
    secret: str = SECRET,
    **habits: Any,
) -> AsyncIterator[Any]:
    """Connect a station; raises ConnectionError where it is refused."""
    kind = STATIONS[version]
    try:
        socket = await websockets.connect(
            f"ws://127.0.0.1:{port}/ocpp/{identity}",
            subprotocols=[kind.subprotocol],
            additional_headers=basic(identity, secret),
        )
    except websockets.InvalidStatus as refused:
        raise ConnectionError(str(refused)) from refused
    station = kind(identity, socket, response_timeout=20)
    station.begin()
    for name, value in habits.items():
        setattr(station, name, value)

    async def serve() -> None:
        with suppress(websockets.ConnectionClosed):
            await station.start()

    serving = asyncio.ensure_future(serve())
    try:
        yield station
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
        with suppress(OSError, TimeoutError):
            await socket.close()
