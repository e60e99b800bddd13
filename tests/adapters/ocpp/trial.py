"""The OCPP endpoint on trial, with the charge point of the `ocpp` library as its device."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import websockets
from ocpp.exceptions import OCPPError
from tests.adapters.conformance.plant import SECRET, enrolled
from tests.adapters.ocpp.stations import connected

from kapelle.adapters.ocpp.endpoint import OcppEndpoint
from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.ports import Adapter
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock


class OcppPeer:
    """A station with a vehicle."""

    def __init__(self, station: Any) -> None:
        self._station = station

    async def report(self, power_w: float) -> bool:
        try:
            async with asyncio.timeout(1.0):
                await self._station.measure(power_w)
        except (OCPPError, TimeoutError, websockets.ConnectionClosed):
            return False
        return True

    async def babble(self) -> None:
        for garbage in ("{", '[2, "1", "MeterValues", {"meterValue": 7}]', "[" * 5_000):
            await self._station._connection.send(garbage)

    async def told(self) -> list[float | None]:
        return list(self._station.told)

    async def cut(self) -> None:
        self._station._connection.transport.abort()


class OcppTrial:
    commands = True
    sessions = True

    def __init__(self, version: str) -> None:
        self.name = f"ocpp{version}"
        self._version = version

    def adapter(self) -> tuple[Adapter, Directory]:
        directory = enrolled("ocpp")
        settings = OcppSettings(port=0)
        return OcppEndpoint(settings=settings, directory=directory, clock=SystemClock()), directory

    def connect(self, adapter: Adapter) -> AbstractAsyncContextManager[OcppPeer]:
        return _connected(adapter, self._version, SECRET)

    def stranger(self, adapter: Adapter) -> AbstractAsyncContextManager[OcppPeer]:
        return _connected(adapter, self._version, "a wrong secret")


@asynccontextmanager
async def _connected(adapter: Adapter, version: str, secret: str) -> AsyncIterator[OcppPeer]:
    assert isinstance(adapter, OcppEndpoint)
    async with connected(adapter.port, version, secret=secret) as station:
        await station.boot()
        await station.plug_in()
        yield OcppPeer(station)
