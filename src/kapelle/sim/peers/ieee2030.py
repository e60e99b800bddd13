"""An IEEE 2030.5 client: lean enough for a thousand in one process.

It begins at `/dcap` and follows links from there, says what its DER can do, mirrors what it
measures, looks for controls as often as it is asked to, and answers each as the standard has it:
received, started, completed, cancelled, superseded. It speaks for itself and never reconnects;
whoever runs it decides when.
"""

import asyncio
import math
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol

from lxml import etree  # type: ignore[import-untyped]  # it has no types

from kapelle.model.enums import Metric
from kapelle.model.ids import NS_PER_S

_NS = "urn:ieee:std:2030.5:ns"
_ANSWER_S = 30.0
_HEAD_BYTES_MAX = 16_384
_KNOWN_MAX = 32
_ACTIVE, _CANCELLED, _SUPERSEDED = 1, 2, 4
"""EventStatusType."""
RECEIVED, STARTED, COMPLETED, OPTED_OUT, CANCELLED, SUPERSEDED, CANNOT = 1, 2, 3, 4, 6, 7, 252
"""What a Response says (IEEE 2030.5-2018, table 27)."""
_MODES = "00400000"
"""DERControlType: opModTargetW."""
_TYPES: Mapping[Metric, tuple[int, int, int, int]] = {
    # accumulationBehaviour, flowDirection, powerOfTenMultiplier, uom
    Metric.POWER_W: (12, 4, -1, 38),
    Metric.EXPORT_WH: (9, 19, 0, 72),
    Metric.IMPORT_WH: (9, 1, 0, 72),
}
"""Power is net: forward, to the customer, less reverse."""


class Nameplate(NamedTuple):
    """What a client says of its DER. [W] Both positive."""

    up_w: float
    down_w: float


class Listener(Protocol):
    """Who is told what happens to a client."""

    def on_up(self, index: int) -> None:
        """It has found its controls, and said what it can do."""

    def told(self, index: int, setpoint_w: float, until_ns: int) -> int:
        """It was told a power, positive towards the grid; NaN: back to its own schedule. [W]

        Returns:
            The number under which `Client.answered` will hear what became of it.
        """

    def on_acked(self, index: int, waited_s: float) -> None:
        """The plant has what it measured."""


class _Answer(NamedTuple):
    status: int
    location: str
    body: bytes


class Client:
    """One client: its connection, and what outlives it."""

    def __init__(
        self,
        index: int,
        lfdi: str,
        tls: ssl.SSLContext,
        nameplate: Nameplate,
        listener: Listener,
        *,
        now_ns: Callable[[], int],
    ) -> None:
        self.index = index
        self.lfdi = lfdi
        self.up = False
        self.overwritten = 0
        """Measurements that were replaced before they could be sent."""
        self._tls = tls
        self._nameplate = nameplate
        self._listener = listener
        self._now_ns = now_ns
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._host = ""
        self._links: dict[str, str] = {}
        self._reply_to = ""
        self._poll_s = 1.0
        self._look_at_ns = 0
        self._measured: tuple[int, Mapping[Metric, float]] | None = None
        self._mirror = ""
        """Where its mirror usage point is; empty: it is to be made."""
        self._soc = -1
        self._wake = asyncio.Event()
        self._controls: dict[str, tuple[int, int]] = {}
        """What it follows or followed, by mRID: the last Response, and when it ends. [s UTC]"""
        self._numbers: dict[int, tuple[str, int]] = {}
        """Of setpoints on their way to the device: control and what to respond when it acts."""
        self._responses: list[tuple[str, int]] = []

    async def run(self, host: str, port: int) -> None:
        """Connect, find the way and speak until the connection ends.

        Raises:
            OSError: The plant cannot be reached, refused, or broke the connection.
        """
        self._host = f"{host}:{port}"
        self._reader, self._writer = await asyncio.open_connection(
            host, port, ssl=self._tls, limit=_HEAD_BYTES_MAX
        )
        try:
            await self._find()
            self.up = True
            self._listener.on_up(self.index)
            await self._converse()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, etree.LxmlError) as broken:
            raise ConnectionResetError(str(broken)) from broken
        finally:
            self.up = False
            self._writer.transport.abort()

    def measure(self, values: Mapping[Metric, float], at_ns: int) -> None:
        """Note what its meter shows; it is posted as soon as what was before is acknowledged."""
        self.overwritten += self._measured is not None
        self._measured = at_ns, values
        self._wake.set()

    def answered(self, number: int, status: int | None) -> None:
        """Respond to a control: the device acts on it (None), or will not."""
        mrid, started = self._numbers.pop(number, ("", 0))
        if mrid:
            self._respond(mrid, started if status is None else status)

    def cut(self) -> None:
        """Drop the connection without a goodbye."""
        if self._writer is not None:
            self._writer.transport.abort()

    # Finding the way, once per connection.

    async def _find(self) -> None:
        links = self._links
        capability = await self._get("/dcap")
        links["mirrors"] = _link(capability, "MirrorUsagePointList")
        device = (await self._get(_link(capability, "EndDeviceList")))[0]
        assigned = (await self._get(_link(device, "FunctionSetAssignmentsList")))[0]
        programs = await self._get(_link(assigned, "DERProgramList"))
        self._poll_s = float(programs.get("pollRate", "60"))
        links["controls"] = _link(programs[0], "DERControlList")
        der = (await self._get(_link(device, "DERList")))[0]
        links["status"] = _link(der, "DERStatus")
        await self._ask("PUT", _link(der, "DERCapability"), self._capability())
        self._look_at_ns = 0

    def _capability(self) -> str:
        up_w, down_w = self._nameplate
        rates = (("rtgMaxChargeRateW", down_w), ("rtgMaxDischargeRateW", up_w), ("rtgMaxW", up_w))
        rated = "".join(
            f"<{name}><multiplier>0</multiplier><value>{round(watts)}</value></{name}>"
            for name, watts in rates
        )
        return _document("DERCapability", f"<modesSupported>{_MODES}</modesSupported>{rated}")

    # Then, one after the other: what it measured, what it has to answer, what it is told.

    async def _converse(self) -> None:
        while True:
            if self._measured is not None:
                await self._post()
            while self._responses:
                mrid, status = self._responses[0]
                await self._ask("POST", self._reply_to, self._response(mrid, status))
                self._responses.pop(0)
            now_ns = self._now_ns()
            self._complete(now_ns // NS_PER_S)
            if now_ns >= self._look_at_ns:
                self._look_at_ns = now_ns + int(self._poll_s * NS_PER_S)
                await self._look()
            if self._measured is None and not self._responses:
                with suppress(TimeoutError):
                    async with asyncio.timeout((self._look_at_ns - self._now_ns()) / NS_PER_S):
                        await self._wake.wait()
                self._wake.clear()

    async def _post(self) -> None:
        assert self._measured is not None
        (at_ns, values), self._measured = self._measured, None
        began_ns = self._now_ns()
        status = 404
        if self._mirror:
            listed = _document("MirrorMeterReadingList", _readings(values, at_ns, typed=False))
            status, *_ = await self._ask("POST", self._mirror, listed)
        if status == 404:
            # The first time, and whenever the plant does not know it any more.
            made = _document("MirrorUsagePoint", self._mirrored(_readings(values, at_ns)))
            status, self._mirror, _ = await self._ask("POST", self._links["mirrors"], made)
        if status < 300:
            self._listener.on_acked(self.index, (self._now_ns() - began_ns) / NS_PER_S)
        # NaN, of a DER without a store, compares with nothing.
        if values.get(Metric.SOC, -1.0) >= 0:
            await self._show(round(values[Metric.SOC] * 10_000), at_ns // NS_PER_S)

    def _mirrored(self, readings: str) -> str:
        return (
            f"<mRID>{self.lfdi[:24]}00000000</mRID><roleFlags>0049</roleFlags>"
            "<serviceCategoryKind>0</serviceCategoryKind><status>1</status>"
            f"<deviceLFDI>{self.lfdi}</deviceLFDI>{readings}"
        )

    async def _show(self, soc: int, at_s: int) -> None:
        """Put the charge, in hundredths of a percent, into the DERStatus where it has changed."""
        if soc == self._soc:
            return
        charge = f"<dateTime>{at_s}</dateTime><value>{soc}</value>"
        inner = f"<stateOfChargeStatus>{charge}</stateOfChargeStatus>"
        status = _document("DERStatus", f"<readingTime>{at_s}</readingTime>{inner}")
        if (await self._ask("PUT", self._links["status"], status)).status < 300:
            self._soc = soc

    async def _look(self) -> None:
        listed = await self._get(self._links["controls"] + "?s=0&l=10")
        shown = {control.findtext(f"{{{_NS}}}mRID"): control for control in listed}
        status = {mrid: _status(control) for mrid, control in shown.items()}
        begun = [mrid for mrid in shown if status[mrid] == _ACTIVE and mrid not in self._controls]
        now_s = self._now_ns() // NS_PER_S
        for mrid, (last, ends) in list(self._controls.items()):
            if last not in (RECEIVED, STARTED) or now_s >= ends:
                continue
            if status.get(mrid) == _SUPERSEDED:
                self._respond(mrid, SUPERSEDED)
            # One that has gone from the list before its end is cancelled (2023, 10.2.2.3 p).
            elif status.get(mrid, _CANCELLED) == _CANCELLED:
                self._note(mrid, CANCELLED)
                if begun:
                    self._respond(mrid, CANCELLED)
                else:
                    self._tell(mrid, math.nan, 0, CANCELLED)
        for mrid in begun:
            self._reply_to = shown[mrid].get("replyTo")
            self._begin(mrid, shown[mrid])

    def _begin(self, mrid: str, control: etree._Element) -> None:
        part = f"{{{_NS}}}DERControlBase/{{{_NS}}}opModTargetW/{{{_NS}}}"
        value, exponent = control.findtext(f"{part}value"), control.findtext(f"{part}multiplier")
        start = int(control.findtext(f"{{{_NS}}}interval/{{{_NS}}}start"))
        ends = start + int(control.findtext(f"{{{_NS}}}interval/{{{_NS}}}duration"))
        while len(self._controls) >= _KNOWN_MAX:
            del self._controls[next(iter(self._controls))]
        self._controls[mrid] = 0, ends
        self._respond(mrid, RECEIVED)
        self._tell(mrid, int(value) * 10.0 ** int(exponent), ends * NS_PER_S, STARTED)

    def _tell(self, mrid: str, setpoint_w: float, until_ns: int, then: int) -> None:
        number = self._listener.told(self.index, setpoint_w, until_ns)
        while len(self._numbers) >= _KNOWN_MAX:
            del self._numbers[next(iter(self._numbers))]
        self._numbers[number] = mrid, then

    def _complete(self, now_s: int) -> None:
        """Say of what has run to its end that it has."""
        for mrid, (last, ends) in list(self._controls.items()):
            if last == STARTED and now_s >= ends:
                self._respond(mrid, COMPLETED)

    def _respond(self, mrid: str, status: int) -> None:
        self._note(mrid, status)
        self._responses.append((mrid, status))
        self._wake.set()

    def _note(self, mrid: str, status: int) -> None:
        if mrid in self._controls:
            self._controls[mrid] = status, self._controls[mrid][1]

    def _response(self, mrid: str, status: int) -> str:
        return _document(
            "DERControlResponse",
            f"<createdDateTime>{self._now_ns() // NS_PER_S}</createdDateTime>"
            f"<endDeviceLFDI>{self.lfdi}</endDeviceLFDI><status>{status}</status>"
            f"<subject>{mrid}</subject>",
        )

    # HTTP/1.1, a request at a time.

    async def _get(self, path: str) -> etree._Element:
        answer = await self._ask("GET", path)
        if answer.status != 200:
            raise ConnectionAbortedError(f"{path} is answered {answer.status}")
        return etree.fromstring(answer.body)

    async def _ask(self, method: str, path: str, body: str = "") -> _Answer:
        assert self._writer is not None
        raw = body.encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(raw)}\r\n"
        head += "Content-Type: application/sep+xml\r\n\r\n"
        self._writer.write(head.encode() + raw)
        async with asyncio.timeout(_ANSWER_S):
            first, *rest = (
                (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            )
            fields = [line.partition(":") for line in rest]
            said = {name.strip().lower(): value.strip() for name, _, value in fields}
            answered = await self._reader.readexactly(int(said.get("content-length", "0")))
        status = int(first.split(" ", 2)[1])
        if status == 403:
            raise ConnectionRefusedError(f"{path} is answered {status}")
        return _Answer(status, said.get("location", ""), answered)


def _status(control: etree._Element) -> int:
    return int(control.findtext(f"{{{_NS}}}EventStatus/{{{_NS}}}currentStatus"))


def _link(resource: etree._Element, name: str) -> str:
    found = resource.find(f"{{{_NS}}}{name}Link")
    if found is None:
        raise ConnectionAbortedError(f"{name}Link is missing")
    return str(found.get("href"))


def _document(name: str, inner: str) -> str:
    return f'<{name} xmlns="{_NS}">{inner}</{name}>'


def _readings(values: Mapping[Metric, float], at_ns: int, *, typed: bool = True) -> str:
    """Return what is measured as MirrorMeterReadings, with their types where asked for."""
    parts = []
    for metric, (accumulation, flow, exponent, uom) in _TYPES.items():
        value = values.get(metric, math.nan)
        if math.isnan(value):
            continue
        # Forward is towards the customer.
        amount = round((-value if metric is Metric.POWER_W else value) * 10.0**-exponent)
        kind = (
            f"<ReadingType><accumulationBehaviour>{accumulation}</accumulationBehaviour>"
            f"<flowDirection>{flow}</flowDirection>"
            f"<powerOfTenMultiplier>{exponent}</powerOfTenMultiplier><uom>{uom}</uom></ReadingType>"
        )
        parts.append(
            f"<MirrorMeterReading><mRID>{uom:024X}{flow:08X}</mRID><Reading><timePeriod>"
            f"<duration>0</duration><start>{at_ns // NS_PER_S}</start></timePeriod>"
            f"<value>{amount}</value></Reading>{kind if typed else ''}</MirrorMeterReading>"
        )
    return "".join(parts)
