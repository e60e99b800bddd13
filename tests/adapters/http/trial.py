"""The telemetry route on trial, with httpx as its device."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
from tests.adapters.conformance.plant import DEVICE, SECRET, enrolled

from kapelle.adapters.http.route import HttpTelemetry
from kapelle.api.service import Api
from kapelle.api.settings import ApiSettings
from kapelle.ports import Adapter
from kapelle.registry.directory import Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock

_ROUTE = "/v1/telemetry"


class HttpPeer:
    """A device with credentials of its own."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def report(self, power_w: float) -> bool:
        answer = await self._client.post(_ROUTE, json=[{"power_w": power_w}])
        return answer.status_code == 200

    async def babble(self) -> None:
        for garbage in (b"\xff\x00{", b'[{"power_w": "much"}]', b"[" * 2_000):
            headers = {"Content-Type": "application/json"}
            await self._client.post(_ROUTE, content=garbage, headers=headers)

    async def told(self) -> list[float | None]:
        return []

    async def cut(self) -> None:
        await self._client.aclose()


class HttpTrial:
    name = "http"
    commands = False
    sessions = False

    def adapter(self) -> tuple[Adapter, Directory]:
        directory = enrolled("http")
        token = "the operator's token, which no device has"
        return HttpTelemetry(directory=directory, clock=SystemClock(), token=token), directory

    def connect(self, adapter: Adapter) -> AbstractAsyncContextManager[HttpPeer]:
        return _connected(adapter, SECRET)

    def stranger(self, adapter: Adapter) -> AbstractAsyncContextManager[HttpPeer]:
        return _connected(adapter, "a wrong secret")


@asynccontextmanager
async def _connected(adapter: Adapter, secret: str) -> AsyncIterator[HttpPeer]:
    assert isinstance(adapter, HttpTelemetry)
    api = Api(application=adapter, watch=None, settings=ApiSettings(port=0))
    async with background() as beside:
        beside.start(api.run(), "api")
        await api.ready.wait()
        base = f"http://127.0.0.1:{api.port}"
        async with httpx.AsyncClient(base_url=base, auth=(DEVICE, secret)) as client:
            yield HttpPeer(client)
