"""The IEEE 2030.5 server on trial, with a client that does what the standard asks of one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
from lxml import etree
from tests.adapters.conformance.plant import NAMEPLATE_W, enrolled
from tests.adapters.ieee2030.certificates import authority, client_tls, signed

from kapelle.adapters.ieee2030.endpoint import Ieee2030Endpoint
from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.ports import Adapter
from kapelle.registry.directory import Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock

NS = "urn:ieee:std:2030.5:ns"
MUP = "0000000000000000000000AA00000000"
_POLL_S = 0.1


def settings(**more: object) -> Ieee2030Settings:
    server = signed("server")
    given: dict[str, object] = {
        "port": 0,
        "tls_certificate": str(server.certificate),
        "tls_key": str(server.key),
        "tls_client_authority": str(authority().certificate),
        "poll_s": 1,
        "silence_s": 3.0,
    }
    return Ieee2030Settings(**(given | more))  # type: ignore[arg-type]


def mirror(power_w: float, *, at_s: int = 0) -> str:
    """Return a MirrorUsagePoint with one reading: magnitude and direction."""
    flow = 19 if power_w > 0 else 1
    period = f"<timePeriod><duration>0</duration><start>{at_s}</start></timePeriod>" if at_s else ""
    return (
        f'<MirrorUsagePoint xmlns="{NS}"><mRID>{MUP}</mRID><roleFlags>49</roleFlags>'
        "<serviceCategoryKind>0</serviceCategoryKind><status>1</status><deviceLFDI>00</deviceLFDI>"
        f"<MirrorMeterReading><mRID>0{flow:02}</mRID><Reading>{period}"
        f"<value>{abs(round(power_w))}</value></Reading><ReadingType>"
        f"<flowDirection>{flow}</flowDirection><kind>37</kind>"
        "<powerOfTenMultiplier>0</powerOfTenMultiplier><uom>38</uom></ReadingType>"
        "</MirrorMeterReading></MirrorUsagePoint>"
    )


def response(lfdi: str, subject: str, status: int) -> str:
    return (
        f'<DERControlResponse xmlns="{NS}"><createdDateTime>0</createdDateTime>'
        f"<endDeviceLFDI>{lfdi}</endDeviceLFDI><status>{status}</status>"
        f"<subject>{subject}</subject></DERControlResponse>"
    )


class Ieee2030Peer:
    """Polls its controls, obeys the one that is active, and answers."""

    def __init__(self, http: httpx.AsyncClient, lfdi: str) -> None:
        self._http = http
        self._lfdi = lfdi
        self._told: list[float | None] = []
        self._answered: set[tuple[str, int]] = set()
        self._is_cut = False

    async def report(self, power_w: float) -> bool:
        try:
            async with asyncio.timeout(1.0):
                answer = await self._http.post("/mup", content=mirror(power_w))
        except httpx.HTTPError as error:
            raise ConnectionError(str(error)) from error
        except TimeoutError:
            return False
        return answer.is_success

    async def babble(self) -> None:
        for garbage in (b"<", b"<Time/>", mirror(1).replace("MirrorU", "U").encode(), b"\xff" * 99):
            await self._http.post("/mup", content=garbage)

    async def told(self) -> list[float | None]:
        return list(self._told)

    async def cut(self) -> None:
        self._is_cut = True

    async def look(self) -> None:
        """Look for controls until cut off."""
        home = "/edev/0"
        while not self._is_cut:
            answer = await self._http.get(f"{home}/derp/1/derc?s=0&l=10")
            for control in etree.fromstring(answer.content):
                await self._obey(control)
            await asyncio.sleep(_POLL_S)

    async def _obey(self, control: etree._Element) -> None:
        mrid = control.findtext(f"{{{NS}}}mRID")
        status = int(control.findtext(f"{{{NS}}}EventStatus/{{{NS}}}currentStatus"))
        percent = int(control.findtext(f"{{{NS}}}DERControlBase/{{{NS}}}opModFixedW"))
        key = (mrid, status)
        if key in self._answered or status not in (1, 2):
            return
        self._answered.add(key)
        self._told.append(percent / 10_000 * NAMEPLATE_W if status == 1 else None)
        for word in (1, 2) if status == 1 else (6,):
            said = response(self._lfdi, mrid, word)
            await self._http.post(control.get("replyTo"), content=said)


class Ieee2030Trial:
    name = "ieee2030"
    commands = True
    sessions = True

    def adapter(self) -> tuple[Adapter, Directory]:
        directory = enrolled("ieee2030", signed("device").lfdi)
        endpoint = Ieee2030Endpoint(settings=settings(), directory=directory, clock=SystemClock())
        return endpoint, directory

    def connect(self, adapter: Adapter) -> AbstractAsyncContextManager[Ieee2030Peer]:
        return _connected(adapter, "device")

    def stranger(self, adapter: Adapter) -> AbstractAsyncContextManager[Ieee2030Peer]:
        return _connected(adapter, "stranger")


@asynccontextmanager
async def _connected(adapter: Adapter, name: str) -> AsyncIterator[Ieee2030Peer]:
    assert isinstance(adapter, Ieee2030Endpoint)
    pair = signed(name)
    where = f"https://127.0.0.1:{adapter.port}"
    async with (
        httpx.AsyncClient(verify=client_tls(pair), base_url=where, timeout=20) as http,
        background() as beside,
    ):
        answer = await http.get("/dcap")
        if answer.status_code != 200:
            raise ConnectionRefusedError(answer.status_code)
        peer = Ieee2030Peer(http, pair.lfdi)
        beside.start(peer.look(), "looking for controls")
        yield peer
