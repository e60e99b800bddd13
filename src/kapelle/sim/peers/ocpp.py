"""A charge point's OCPP 1.6J client: lean enough for thousands in one process.

It has one connector with a vehicle, says what it measures, takes charging profiles for the station
as a whole, lets them end by themselves, and shows in its composite schedule what it does. It speaks
for itself and never reconnects; whoever runs it decides when.
"""

import asyncio
import base64
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.typing import Subprotocol

from kapelle.adapters.ocpp import frames
from kapelle.adapters.ocpp.meters import moment_ns, time_text
from kapelle.model.ids import NS_PER_S
from kapelle.runtime.background import background

_ANSWER_S = 30.0
_CONNECTOR = 1
_ACCEPTED: Mapping[str, object] = {"status": "Accepted"}


class Listener(Protocol):
    """Who is told what happens to a charge point."""

    def on_up(self, index: int) -> None:
        """The plant has accepted it, and knows of its vehicle."""

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        """It was told a power, positive towards the grid; NaN: back to its own schedule. [W]"""

    def on_acked(self, index: int, waited_s: float) -> None:
        """The plant acknowledged what it measured."""


class ChargePoint:
    """One charge point: its connection, and what outlives it."""

    def __init__(
        self,
        index: int,
        identity: str,
        secret: str,
        listener: Listener,
        *,
        now_ns: Callable[[], int],
    ) -> None:
        self.index = index
        self.identity = identity
        self.up = False
        self.overwritten = 0
        """Measurements that were replaced before they could be sent."""
        self._word = base64.b64encode(f"{identity}:{secret}".encode()).decode()
        self._listener = listener
        self._now_ns = now_ns
        self._socket: ClientConnection | None = None
        self._count = 0
        self._asked = ""
        self._answered: asyncio.Future[bytes] | None = None
        self._measured: dict[str, str] | None = None
        self._import_wh = 0.0
        self._fresh = asyncio.Event()
        self._transaction = 0
        self._limit_w = math.inf
        self._until_ns = 0

    async def run(self, host: str, port: int) -> None:
        """Connect, boot, begin a transaction and speak until the connection ends.

        Raises:
            OSError: The plant cannot be reached, refused, or broke the connection.
        """
        try:
            async with (
                connect(
                    f"ws://{host}:{port}/{self.identity}",
                    subprotocols=[Subprotocol("ocpp1.6")],
                    additional_headers={"Authorization": f"Basic {self._word}"},
                    compression=None,
                    ping_interval=None,
                    max_queue=4,
                ) as self._socket,
                background() as beside,
            ):
                beside.start(self._converse(), f"charge point {self.identity}")
                await self._listen(self._socket)
        except InvalidHandshake as refused:
            raise ConnectionRefusedError(str(refused)) from refused
        except WebSocketException as lost:
            raise ConnectionResetError(str(lost)) from lost
        finally:
            self.up = False

    def measure(self, power_w: float, import_wh: float, volts: float = 230.0) -> None:
        """Note what its meter shows; it is said as soon as what was before is acknowledged."""
        self.overwritten += self._measured is not None
        self._import_wh = import_wh
        self._measured = {
            "Power.Active.Import": f"{max(0.0, -power_w):.1f}",
            "Energy.Active.Import.Register": f"{import_wh:.1f}",
            "Voltage": f"{volts:.1f}",
        }
        self._fresh.set()

    def allowed_w(self) -> float:
        """Return the most it may consume now; infinite where nothing limits it. [W]"""
        is_over = self._until_ns and self._now_ns() >= self._until_ns
        return math.inf if is_over else self._limit_w

    def cut(self) -> None:
        """Drop the connection without a goodbye."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def _converse(self) -> None:
        await self._begin()
        self.up = True
        self._listener.on_up(self.index)
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            with suppress(ConnectionAbortedError):
                await self._say()

    async def _begin(self) -> None:
        model = {"chargePointVendor": "kapelle", "chargePointModel": "simulated"}
        await self._call("BootNotification", model)
        status = {"connectorId": _CONNECTOR, "errorCode": "NoError", "status": "Charging"}
        await self._call("StatusNotification", status)

    async def _start_transaction(self, at_ns: int) -> int:
        start = {
            "connectorId": _CONNECTOR,
            "idTag": "card",
            "meterStart": round(self._import_wh),
            "timestamp": time_text(at_ns),
        }
        number: int = msgspec.json.decode(await self._call("StartTransaction", start))[
            "transactionId"
        ]
        return number

    async def _say(self) -> None:
        measured, self._measured = self._measured, None
        began_ns = self._now_ns()
        # Not before its meter showed something: a transaction begins where that stands.
        self._transaction = self._transaction or await self._start_transaction(began_ns)
        values = [{"measurand": name, "value": text} for name, text in (measured or {}).items()]
        said = {
            "connectorId": _CONNECTOR,
            "transactionId": self._transaction,
            "meterValue": [{"timestamp": time_text(began_ns), "sampledValue": values}],
        }
        await self._call("MeterValues", said)
        self._listener.on_acked(self.index, (self._now_ns() - began_ns) / NS_PER_S)

    async def _call(self, action: str, payload: Mapping[str, object]) -> bytes:
        assert self._socket is not None
        self._count += 1
        self._asked = str(self._count)
        self._answered = asyncio.get_running_loop().create_future()
        await self._socket.send(frames.call(self._asked, action, payload))
        async with asyncio.timeout(_ANSWER_S):
            return await self._answered

    async def _listen(self, socket: ClientConnection) -> None:
        async for text in socket:
            frame = frames.decode(text.encode() if isinstance(text, str) else text)
            if isinstance(frame, frames.Call):
                answer = self._answer(frame.action, msgspec.json.decode(frame.payload))
                await socket.send(frames.result(frame.id, answer))
            elif frame.id == self._asked and self._answered is not None:
                self._settle(self._answered, frame)

    @staticmethod
    def _settle(answered: "asyncio.Future[bytes]", frame: object) -> None:
        if answered.done():
            return
        if isinstance(frame, frames.Result):
            answered.set_result(frame.payload)
        else:
            answered.set_exception(ConnectionAbortedError("the plant answered with an error"))

    def _answer(self, action: str, asked: Any) -> Mapping[str, object]:
        match action:
            case "GetConfiguration":
                key = "ChargingScheduleAllowedChargingRateUnit"
                return {"configurationKey": [{"key": key, "readonly": True, "value": "Power"}]}
            case "SetChargingProfile":
                profile = asked["csChargingProfiles"]
                period = profile["chargingSchedule"]["chargingSchedulePeriod"][0]
                self._limit_w = period["limit"]
                self._until_ns = moment_ns(profile.get("validTo", ""))
                self._listener.on_setpoint(self.index, -self._limit_w, self._until_ns)
            case "ClearChargingProfile":
                self._limit_w, self._until_ns = math.inf, 0
                self._listener.on_setpoint(self.index, math.nan, 0)
            case "GetCompositeSchedule":
                return self._schedule(asked["connectorId"], asked["duration"])
            case "TriggerMessage":
                return {"status": "NotImplemented"}
        return _ACCEPTED

    def _schedule(self, connector: int, duration_s: int) -> Mapping[str, object]:
        now_ns = self._now_ns()
        allowed_w = self.allowed_w()
        if not math.isfinite(allowed_w):
            return {"status": "Rejected"}
        left_s = (self._until_ns - now_ns) // NS_PER_S if self._until_ns else duration_s
        schedule = {
            "duration": min(duration_s, left_s),
            "chargingRateUnit": "W",
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": allowed_w}],
        }
        return {
            "status": "Accepted",
            "connectorId": connector,
            "scheduleStart": time_text(now_ns),
            "chargingSchedule": schedule,
        }
