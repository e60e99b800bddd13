"""A gateway's OpenADR 3.1 VEN: lean enough for thousands in one process.

It is one device. It polls for events, follows the newest setpoint until its interval ends, and
reports what it measures with the interval it follows, which is how a VEN acknowledges. It speaks
for itself and never reconnects; whoever runs it decides when.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import urlencode

import msgspec

from kapelle.adapters.openadr import codec
from kapelle.adapters.openadr.periods import duration_s, moment, moment_ns
from kapelle.adapters.openadr.route import BASE
from kapelle.adapters.openadr.shapes import Event, IntervalPeriod
from kapelle.model.ids import NS_PER_S

_ANSWER_S = 30.0
_FORM, _JSON = "application/x-www-form-urlencoded", "application/json"
_OK = (200, 201)


class Listener(Protocol):
    """Who is told what happens to a gateway."""

    def on_up(self, index: int) -> None:
        """The plant knows it and has shown it its events."""

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        """It was told a power, positive towards the grid; NaN: back to its own schedule. [W]"""

    def on_acked(self, index: int, waited_s: float) -> None:
        """The plant acknowledged what it measured."""


class _Known(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    modification_date_time: str


class Gateway:
    """One gateway: its connection, and what outlives it."""

    def __init__(
        self,
        index: int,
        name: str,
        secret: str,
        listener: Listener,
        *,
        now_ns: Callable[[], int],
        poll_s: float = 1.0,
    ) -> None:
        self.index = index
        self.name = name
        self.up = False
        self.overwritten = 0
        """Measurements that were replaced before they could be sent."""
        self._secret = secret
        self._listener = listener
        self._now_ns = now_ns
        self._poll_s = poll_s
        self._head = ""
        self._measured: Mapping[str, float] | None = None
        self._followed = codec.TELEMETRY, 0, ""
        """Event, interval and modification of what it was told last."""
        self._setpoint_w = math.nan
        self._until_ns = 0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def run(self, host: str, port: int) -> None:
        """Connect, get a token, poll and report until the connection ends.

        Raises:
            OSError: The plant cannot be reached, refused, or broke the connection.
        """
        self._reader, self._writer = await asyncio.open_connection(host, port)
        try:
            await self._enter()
            while True:
                await self._look()
                if not self.up:
                    self.up = True
                    self._listener.on_up(self.index)
                if self._measured is not None:
                    await self._say()
                await asyncio.sleep(self._poll_s)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as lost:
            raise ConnectionResetError(str(lost)) from lost
        finally:
            self.up = False
            self.cut()

    def measure(self, power_w: float, soc: float = math.nan) -> None:
        """Note what its meter shows; it is said with the next poll."""
        self.overwritten += self._measured is not None
        said = {"DEMAND": max(0.0, -power_w) / 1e3, codec.EXPORT_DEMAND: max(0.0, power_w) / 1e3}
        if not math.isnan(soc):
            said["STORAGE_CHARGE_LEVEL"] = 100.0 * soc
        self._measured = said

    def setpoint_w(self) -> float:
        """Return the power it was told and still follows; NaN: its own schedule. [W]"""
        return self._setpoint_w if self._now_ns() < self._until_ns else math.nan

    def cut(self) -> None:
        """Drop the connection without a goodbye; none is harmless."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def _enter(self) -> None:
        self._head = ""
        form = {
            "grant_type": "client_credentials",
            "client_id": self.name,
            "client_secret": self._secret,
        }
        answer = await self._ask("POST", "/auth/token", urlencode(form).encode(), _FORM)
        token = msgspec.json.decode(answer)["access_token"]
        self._head = f"Authorization: Bearer {token}\r\n"

    async def _look(self) -> None:
        own = await self._own("true")
        if not own and not math.isnan(self._setpoint_w):
            # Released, which is answered as well: the ended event says by which number.
            ended = [pair for pair in await self._own("false") if pair[0].id == self._followed[0]]
            own = [pair for pair in ended if pair[0].modification_date_time != self._followed[2]]
            if not own:
                self._follow(math.nan, 0)
        if not own:
            return
        known, raw = max(own, key=lambda pair: pair[0].modification_date_time)
        event = msgspec.json.decode(raw, type=Event)
        interval = event.intervals[0].id if isinstance(event.intervals, list) else 0
        followed = known.id, interval, known.modification_date_time
        if followed == self._followed:
            return
        self._followed = followed
        setpoint_w = codec.setpoint_w(event)
        self._follow(math.nan if setpoint_w is None else setpoint_w, _ends_ns(event))

    async def _own(self, active: str) -> list[tuple[_Known, msgspec.Raw]]:
        query = urlencode({"programID": codec.PROGRAM, "active": active})
        answer = await self._ask("GET", f"/events?{query}")
        found = msgspec.json.decode(answer, type=list[msgspec.Raw])
        told = [(msgspec.json.decode(one, type=_Known), one) for one in found]
        return [(known, one) for known, one in told if known.id != codec.TELEMETRY]

    def _follow(self, setpoint_w: float, until_ns: int) -> None:
        self._setpoint_w, self._until_ns = setpoint_w, until_ns
        self._listener.on_setpoint(self.index, setpoint_w, until_ns)

    async def _say(self) -> None:
        measured, self._measured = dict(self._measured or {}), None
        began_ns = self._now_ns()
        setpoint_w = self.setpoint_w()
        if not math.isnan(setpoint_w):
            measured["SETPOINT"] = -setpoint_w / 1e3
        payloads: list[object] = [
            {"type": name, "values": [value]} for name, value in measured.items()
        ]
        if math.isnan(setpoint_w):
            payloads.append({"type": "OPERATING_STATE", "values": ["NORMAL"]})
        event, number, _ = self._followed
        interval = {
            "id": number,
            "intervalPeriod": {"start": moment(began_ns), "duration": "PT0S"},
            "payloads": payloads,
        }
        report = {
            "eventID": event,
            "clientName": self.name,
            "resources": [{"resourceName": self.name, "intervals": [interval]}],
        }
        await self._ask("POST", "/reports", msgspec.json.encode(report), _JSON)
        self._listener.on_acked(self.index, (self._now_ns() - began_ns) / NS_PER_S)

    async def _ask(self, method: str, path: str, body: bytes = b"", media: str = "") -> bytes:
        lines = f"{method} {BASE}{path} HTTP/1.1\r\nHost: vtn\r\n{self._head}"
        if body:
            lines += f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n"
        assert self._writer is not None
        if self._writer.transport.is_closing():
            raise ConnectionResetError("the connection was cut between two requests")
        self._writer.write(f"{lines}\r\n".encode() + body)
        async with asyncio.timeout(_ANSWER_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            told = await self._reader.readexactly(length)
        if int(head.split(b" ", 2)[1]) not in _OK:
            raise ConnectionAbortedError(told.decode())
        return told


def _ends_ns(event: Event) -> int:
    period = event.interval_period
    assert isinstance(period, IntervalPeriod)
    assert isinstance(period.start, str)
    assert isinstance(period.duration, str)
    ends_ns = (moment_ns(period.start) or 0) + duration_s(period.duration) * NS_PER_S
    return int(min(ends_ns, 2**62))
