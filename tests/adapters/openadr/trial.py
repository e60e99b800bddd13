"""The VTN on trial, with httpx as its gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
from tests.adapters.conformance.plant import DEVICE, SECRET, enrolled

from kapelle.adapters.openadr.route import BASE
from kapelle.adapters.openadr.settings import OpenAdrSettings
from kapelle.adapters.openadr.vtn import Vtn
from kapelle.ports import Adapter
from kapelle.registry.directory import Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock

_POLL_S = 0.03
TELEMETRY = "kapelle-telemetry"


def report(power_w: float, event_id: str = TELEMETRY) -> dict[str, object]:
    """Return what a gateway says of one device: consumption in kW."""
    name, value = ("DEMAND", -power_w) if power_w <= 0 else ("EXPORT_DEMAND", power_w)
    interval = {"id": 0, "payloads": [{"type": name, "values": [value / 1e3]}]}
    resource = {"resourceName": DEVICE, "intervals": [interval]}
    return {"eventID": event_id, "clientName": DEVICE, "resources": [resource]}


class OpenAdrPeer:
    """A gateway that polls."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._told: list[float | None] = []
        self._is_cut = False

    async def poll(self) -> None:
        """Look for events, again and again, until it is cut."""
        seen: dict[str, tuple[str, float | None]] = {}
        while not self._is_cut:
            answer = await self._client.get("/events", params={"programID": "kapelle"})
            answer.raise_for_status()
            for event in answer.json():
                if event["id"] == TELEMETRY:
                    continue
                said = (event["modificationDateTime"], _power_w(event))
                if seen.get(event["id"]) != said:
                    seen[event["id"]] = said
                    self._told.append(said[1])
            await asyncio.sleep(_POLL_S)

    async def report(self, power_w: float) -> bool:
        try:
            answer = await self._client.post("/reports", json=report(power_w), timeout=1.0)
        except httpx.TimeoutException:
            return False
        return answer.status_code == 201

    async def babble(self) -> None:
        for garbage in (b"\xff\x00{", b'{"eventID": 7}', b"[" * 20_000, b'{"a":' * 9_000):
            headers = {"Content-Type": "application/json"}
            await self._client.post("/reports", content=garbage, headers=headers)
        await self._client.post("/reports", json=report(float(10**12)))

    async def told(self) -> list[float | None]:
        return self._told

    async def cut(self) -> None:
        self._is_cut = True
        await asyncio.sleep(2 * _POLL_S)
        await self._client.aclose()


class OpenAdrTrial:
    name = "openadr"
    commands = True
    sessions = True

    def adapter(self) -> tuple[Adapter, Directory]:
        directory = enrolled("openadr")
        settings = OpenAdrSettings(port=0, absent_s=1.0)
        file = Path(":memory:")
        vtn = Vtn(settings=settings, directory=directory, clock=SystemClock(), file=file)
        return vtn, directory

    def connect(self, adapter: Adapter) -> AbstractAsyncContextManager[OpenAdrPeer]:
        return connected(adapter, SECRET)

    def stranger(self, adapter: Adapter) -> AbstractAsyncContextManager[OpenAdrPeer]:
        return connected(adapter, "a wrong secret")


@asynccontextmanager
async def connected(adapter: Adapter, secret: str) -> AsyncIterator[OpenAdrPeer]:
    assert isinstance(adapter, Vtn)
    base = f"http://127.0.0.1:{adapter.port}{BASE}"
    async with (
        httpx.AsyncClient(base_url=base, timeout=20.0, verify=False) as client,
        background() as beside,
    ):
        form = {
            "grant_type": "client_credentials",
            "client_id": DEVICE,
            "client_secret": secret,
        }
        answer = await client.post("/auth/token", data=form)
        if answer.status_code != 200:
            raise ConnectionRefusedError(answer.text)
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        peer = OpenAdrPeer(client)
        beside.start(peer.poll(), "polling")
        yield peer


def _power_w(event: dict[str, object]) -> float | None:
    """Return what an event asks, towards the grid; None where it has ended."""
    intervals = event["intervals"]
    assert isinstance(intervals, list)
    payloads = intervals[0]["payloads"]
    period = event["intervalPeriod"]
    assert isinstance(period, dict)
    if not payloads or period["duration"] == "PT0S":
        return None
    assert payloads[0]["type"] == "DISPATCH_SETPOINT"
    return float(-1e3 * payloads[0]["values"][0])
