"""The telemetry route on a loopback port, before a real ingest over the journal in memory."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
from tests.serving import in_thread

from kapelle.adapters.http.route import HttpTelemetry
from kapelle.adapters.http.settings import HttpSettings
from kapelle.api.service import Api
from kapelle.api.settings import ApiSettings
from kapelle.ingest.service import Ingest
from kapelle.journal.memory import MemoryJournal
from kapelle.model.ids import DeviceId, DeviceNo, Floats, Ints
from kapelle.runtime.clock import SystemClock

TOKEN = "test-token-of-32-characters-here"
DEVICES = 100


class Names:
    """Devices d0 … d99, 5 kW both ways; the secret of d7 is `s7`."""

    partitions = 2
    version = 0

    def resolve(self, names: Sequence[str]) -> Ints:
        known = {f"d{n}": n for n in range(DEVICES)}
        return np.array([known.get(name, -1) for name in names], np.int32)

    def name(self, device_no: int) -> DeviceId:
        return DeviceId(f"d{device_no}")

    def authenticate(self, name: str, secret: str) -> DeviceNo | None:
        device_no = int(self.resolve([name])[0])
        return DeviceNo(device_no) if device_no >= 0 and secret == f"s{device_no}" else None

    def generation(self, device_no: Ints) -> Ints:
        return np.zeros(len(device_no), np.int32)

    def nameplate(self, device_no: Ints) -> tuple[Floats, Floats]:
        watts = np.where((device_no >= 0) & (device_no < DEVICES), 5_000.0, np.nan)
        return watts, watts


@dataclass
class Running:
    http: httpx.Client
    journal: MemoryJournal
    ingest: Ingest
    telemetry: HttpTelemetry
    loop: asyncio.AbstractEventLoop

    def stored(self, kind: type) -> list[object]:
        async def read() -> list[object]:
            return [
                entry.body
                for k in range(Names.partitions)
                for entry in await self.journal.read(f"p/{k}", 0, 10_000)
                if isinstance(entry.body, kind)
            ]

        return asyncio.run_coroutine_threadsafe(read(), self.loop).result(5)


@contextmanager
def running(settings: HttpSettings | None = None, serve: bool = True) -> Iterator[Running]:
    clock = SystemClock()
    journal = MemoryJournal(clock)
    telemetry = HttpTelemetry(directory=Names(), clock=clock, token=TOKEN, settings=settings)
    ingest = Ingest(journal=journal, directory=Names(), clock=clock)
    api = Api(application=telemetry, watch=None, settings=ApiSettings(port=0))

    async def take() -> None:
        async with telemetry.open() as link:
            if serve:
                await ingest.run(link)
            await asyncio.Event().wait()

    with in_thread(api, take) as loop:
        base = f"http://127.0.0.1:{api.port}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=base, headers=headers, timeout=20) as http:
            yield Running(http, journal, ingest, telemetry, loop)


@pytest.fixture(scope="session")
def run_telemetry() -> Callable[..., AbstractContextManager[Running]]:
    return running


@pytest.fixture(scope="session")
def names() -> Names:
    return Names()
