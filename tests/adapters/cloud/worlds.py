"""A cloud's adapter before a real ingest, with several devices behind it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.adapters.cloud.vendors import Vendor, served
from tests.adapters.conformance.plant import Plant, opened

from kapelle.adapters.cloud.endpoint import Cloud
from kapelle.adapters.cloud.settings import CloudSettings
from kapelle.model.blocks import Readings, Sessions
from kapelle.model.enums import Metric, SessionEvent
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock


def directory(adapter: str, *addresses: str) -> Directory:
    """Return devices of 50 kW both ways: the first is number 0."""
    bearers = [
        Bearer(number, f"dev-{number}", True, 5e4, 5e4, adapter=adapter, address=address)
        for number, address in enumerate(addresses)
    ]
    return Directory.build(1, bearers)


@dataclass
class World:
    """A vendor, our adapter, and what came of it."""

    plant: Plant
    cloud: Cloud

    async def latest(self) -> dict[int, dict[Metric, float]]:
        """Return per device the newest values of each metric."""
        found: dict[int, dict[Metric, float]] = {}
        for block in await self.plant.stored(Readings):
            for metric, values in block.values.items():
                for number, value in zip(block.device_no.tolist(), values.tolist(), strict=True):
                    if value == value:
                        found.setdefault(number, {})[metric] = value
        return found

    async def rows(self) -> int:
        return sum(len(block) for block in await self.plant.stored(Readings))

    async def up(self) -> set[int]:
        """Return the devices whose last word is that they came."""
        last: dict[int, int] = {}
        for block in await self.plant.stored(Sessions):
            last |= dict(zip(block.device_no.tolist(), block.event.tolist(), strict=True))
        return {number for number, event in last.items() if event == SessionEvent.UP}


@asynccontextmanager
async def world(cloud: Cloud, known: Directory) -> AsyncIterator[World]:
    async with opened(cloud, known) as plant:
        yield World(plant, cloud)


def play(
    vendor: Vendor,
    made: Callable[[str], CloudSettings],
    addresses: tuple[str, ...],
    act: Callable[[World], Awaitable[None]],
) -> None:
    """Open a cloud against a vendor and act."""

    async def run() -> None:
        async with asyncio.timeout(60), served(vendor.app()) as base_url:
            settings = made(base_url)
            known = directory(settings.name, *addresses)
            cloud = Cloud(settings=settings, directory=known, clock=SystemClock())
            async with world(cloud, known) as here:
                await act(here)

    asyncio.run(run())


def has(values: Mapping[int, Mapping[Metric, float]], number: int, power_w: float) -> bool:
    return abs(values.get(number, {}).get(Metric.POWER_W, 1e9) - power_w) < 1e-6
