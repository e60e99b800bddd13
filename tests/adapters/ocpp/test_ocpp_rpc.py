"""A station on `ocpp-rpc` (npm), which nobody here wrote, with strict schemas on both sides."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.conformance.plant import DEVICE, SECRET, enrolled, opened, until
from tests.adapters.foreign import node_environment
from tests.adapters.ocpp.stations import now

from kapelle.adapters.ocpp.endpoint import OcppEndpoint
from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.model.enums import AckStatus
from kapelle.runtime.clock import SystemClock

pytestmark = pytest.mark.integration
FOLDER = Path(__file__).resolve().parents[2] / "peers" / "ocpp-rpc"

POWER = {"value": "2.0", "measurand": "Power.Active.Import", "unit": "kW"}
TALK_16: list[tuple[str, dict[str, Any]]] = [
    ("BootNotification", {"chargePointVendor": "ocpp-rpc", "chargePointModel": "ocpp-rpc"}),
    ("StatusNotification", {"connectorId": 0, "errorCode": "NoError", "status": "Available"}),
    ("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Preparing"}),
    ("Authorize", {"idTag": "card"}),
    ("StartTransaction", {"connectorId": 1, "idTag": "card", "meterStart": 10, "timestamp": now()}),
    ("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Charging"}),
    (
        "MeterValues",
        {"connectorId": 1, "meterValue": [{"timestamp": now(), "sampledValue": [POWER]}]},
    ),
    ("Heartbeat", {}),
    ("FirmwareStatusNotification", {"status": "Idle"}),
    ("DiagnosticsStatusNotification", {"status": "Idle"}),
    ("DataTransfer", {"vendorId": "nobody"}),
]


def talk_2(is_21: bool) -> list[tuple[str, dict[str, Any]]]:
    event = {
        "timestamp": now(),
        "triggerReason": "CablePluggedIn",
        "seqNo": 0,
        "transactionInfo": {"transactionId": "t-1", "chargingState": "Charging"},
    }
    power = POWER | {"value": 2.0, "unitOfMeasure": {"unit": "W", "multiplier": 3}}
    del power["unit"]
    meter = [{"timestamp": now(), "sampledValue": [power]}]
    station = {"model": "ocpp-rpc", "vendorName": "ocpp-rpc"}
    needs: dict[str, Any] = {"requestedEnergyTransfer": "AC_three_phase"}
    if is_21:
        needs["v2xChargingParameters"] = {"maxChargePower": 5000.0, "maxDischargePower": 4000.0}
    else:
        needs["acChargingParameters"] = {
            "energyAmount": 9000,
            "evMinCurrent": 6,
            "evMaxCurrent": 16,
            "evMaxVoltage": 230,
        }
    return [
        ("BootNotification", {"chargingStation": station, "reason": "PowerUp"}),
        (
            "StatusNotification",
            {"timestamp": now(), "connectorStatus": "Available", "evseId": 1, "connectorId": 1},
        ),
        ("Authorize", {"idToken": {"idToken": "card", "type": "ISO14443"}}),
        ("TransactionEvent", event | {"eventType": "Started", "evse": {"id": 1}}),
        ("NotifyEVChargingNeeds", {"evseId": 1, "chargingNeeds": needs}),
        (
            "TransactionEvent",
            event | {"eventType": "Updated", "seqNo": 1, "meterValue": meter},
        ),
        ("Heartbeat", {}),
        ("MeterValues", {"evseId": 1, "meterValue": meter}),
        ("SecurityEventNotification", {"type": "StartupOfTheDevice", "timestamp": now()}),
        ("DataTransfer", {"vendorId": "nobody"}),
        ("SignCertificate", {"csr": "none"}),
        ("NotifyEvent", _EVENT),
    ]


_EVENT = {
    "generatedAt": now(),
    "seqNo": 0,
    "eventData": [
        {
            "eventId": 1,
            "timestamp": now(),
            "trigger": "Alerting",
            "actualValue": "x",
            "eventNotificationType": "HardWiredNotification",
            "component": {"name": "Connector"},
            "variable": {"name": "Problem"},
        }
    ],
}


class Station:
    """The process, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[dict[str, Any]] = []

    async def listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.said.append(json.loads(line))

    async def call(self, action: str, params: dict[str, Any]) -> dict[str, Any]:
        name = len(self.said) + 1_000
        line = json.dumps({"id": name, "action": action, "params": params}) + "\n"
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())
        await until(lambda: any(one.get("id") == name for one in self.said))
        return next(one for one in self.said if one.get("id") == name)

    def told(self, action: str) -> list[dict[str, Any]]:
        return [one["params"] for one in self.said if one.get("told") == action]


@asynccontextmanager
async def started(modules: Path, port: int, protocol: str, secret: str) -> AsyncIterator[Station]:
    process = await asyncio.create_subprocess_exec(
        "node",
        str(FOLDER / "station.js"),
        f"ws://127.0.0.1:{port}/ocpp",
        DEVICE,
        secret,
        protocol,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(modules)},
    )
    station = Station(process)
    listening = asyncio.ensure_future(station.listen())
    try:
        await until(lambda: any("connected" in one or "refused" in one for one in station.said))
        yield station
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await listening


def is_told(station: Station, power_w: float) -> bool:
    """Tell whether the newest profile asks for a power, in the station's sign."""
    told = [*station.told("SetChargingProfile")]
    if not told:
        return False
    profile = told[-1].get("csChargingProfiles") or told[-1]["chargingProfile"]
    schedule = profile["chargingSchedule"]
    schedule = schedule[0] if isinstance(schedule, list) else schedule
    period = schedule["chargingSchedulePeriod"][0]
    return bool(period.get("setpoint", period.get("limit")) == -power_w)


@pytest.mark.parametrize("protocol", ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"])
def test_a_strict_station_and_the_plant_understand_each_other(protocol: str) -> None:
    modules = node_environment(FOLDER)

    async def check() -> None:
        directory = enrolled("ocpp")
        endpoint = OcppEndpoint(
            settings=OcppSettings(port=0), directory=directory, clock=SystemClock()
        )
        async with (
            opened(endpoint, directory) as plant,
            started(modules, endpoint.port, protocol, SECRET) as station,
        ):
            assert station.said[0] == {"connected": protocol}
            talk = TALK_16 if protocol == "ocpp1.6" else talk_2(protocol == "ocpp2.1")
            for action, params in talk:
                answer = await station.call(action, params)
                assert "error" not in answer, (action, answer)
            assert -2_000.0 in await plant.power_w()

            await until(lambda: plant.send(-3_000.0))
            await until(lambda: is_told(station, -3_000.0))

            async def applied() -> bool:
                return (1, AckStatus.APPLIED) in await plant.answers()

            await until(applied)
            if protocol == "ocpp2.1":
                await plant.send(3_500.0, revision=2)
                await until(lambda: is_told(station, 3_500.0))
            await plant.send(float("nan"), revision=3)
            await until(lambda: station.told("ClearChargingProfile"))

            async def released() -> bool:
                return (3, AckStatus.ACCEPTED) in await plant.answers()

            await until(released)
        assert not [one for one in station.said if "invalid" in one]
        assert await plant.reasons() == []

    asyncio.run(check())


def test_a_station_with_a_wrong_password_is_refused() -> None:
    modules = node_environment(FOLDER)

    async def check() -> None:
        directory = enrolled("ocpp")
        endpoint = OcppEndpoint(
            settings=OcppSettings(port=0), directory=directory, clock=SystemClock()
        )
        async with (
            opened(endpoint, directory),
            started(modules, endpoint.port, "ocpp1.6", "wrong") as station,
        ):
            (refused,) = [one["refused"] for one in station.said if "refused" in one]
            assert "Unauthorized" in refused
            assert endpoint.counters.connects_refused["wrong identity or password"] == 1

    asyncio.run(check())
