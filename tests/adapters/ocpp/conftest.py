"""A plant that serves charging stations, on a free loopback port."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import websockets
from tests.adapters.conformance.plant import DEVICE, SECRET, Plant, opened
from tests.adapters.ocpp.stations import basic

from kapelle.adapters.ocpp.endpoint import OcppEndpoint
from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.registry import credentials
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock


@dataclass
class Served:
    """An open endpoint and the plant behind it."""

    endpoint: OcppEndpoint
    plant: Plant
    directory: Directory

    @property
    def port(self) -> int:
        return self.endpoint.port

    def raw(
        self, version: str = "ocpp1.6", identity: str = DEVICE, **more: Any
    ) -> websockets.connect:
        """Connect a WebSocket that says whatever a test has it say."""
        more.setdefault("additional_headers", basic(identity, SECRET))
        return websockets.connect(
            f"ws://127.0.0.1:{self.port}/{identity}", subprotocols=[version], **more
        )


Serve = Callable[..., AbstractAsyncContextManager[Served]]


def bearers(addresses: Sequence[str]) -> list[Bearer]:
    secret = credentials.hash_secret(SECRET)
    return [
        Bearer(
            number, f"dev-{number}", True, 0.0, 11_000.0, secret, adapter="ocpp", address=address
        )
        for number, address in enumerate(addresses)
    ]


@pytest.fixture
def serve() -> Serve:
    @asynccontextmanager
    async def opened_plant(
        *, addresses: Sequence[str] = (DEVICE,), **settings: Any
    ) -> AsyncIterator[Served]:
        directory = Directory.build(1, bearers(addresses))
        endpoint = OcppEndpoint(
            settings=OcppSettings(**{"port": 0} | settings),
            directory=directory,
            clock=SystemClock(),
        )
        async with opened(endpoint, directory) as plant:
            yield Served(endpoint, plant, directory)

    return opened_plant


@pytest.fixture
def run() -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Run a check to its end, whatever it meets, within a minute."""

    def play(check: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await check()

        asyncio.run(bounded())

    return play
