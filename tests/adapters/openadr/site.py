"""A VTN with gateways and the business party, for tests that look closer than the conformance's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.adapters.conformance.plant import DEVICE, NAMEPLATE_W, SECRET, Plant, opened

from kapelle.adapters.openadr.callbacks import Resolve
from kapelle.adapters.openadr.route import BASE
from kapelle.adapters.openadr.settings import OpenAdrSettings
from kapelle.adapters.openadr.vtn import Vtn
from kapelle.registry import credentials
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock

BUSINESS_SECRET = "a secret of the business party"
OTHER_SECRET = "another secret of thirty-two chars"


def directory() -> Directory:
    """Return two gateways: `dev-0` is one device, `gw` has two."""
    rows = [(0, DEVICE, DEVICE, SECRET), (1, "pv", "gw/pv", OTHER_SECRET), (2, "ev", "gw/ev", "-")]
    return Directory.build(
        1,
        [
            Bearer(
                number,
                name,
                True,
                NAMEPLATE_W,
                NAMEPLATE_W,
                credentials.hash_secret(secret),
                adapter="openadr",
                address=address,
            )
            for number, name, address, secret in rows
        ],
    )


@dataclass
class Site:
    """What is open."""

    vtn: Vtn
    plant: Plant
    directory: Directory
    base: str

    async def token(self, client_id: str, secret: str) -> httpx.Response:
        form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": secret,
        }
        async with httpx.AsyncClient(base_url=self.base, verify=False) as client:
            return await client.post("/auth/token", data=form)

    @asynccontextmanager
    async def client(
        self, client_id: str, secret: str = SECRET
    ) -> AsyncIterator[httpx.AsyncClient]:
        answer = await self.token(client_id, secret)
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        async with httpx.AsyncClient(
            base_url=self.base, headers=headers, timeout=20.0, verify=False
        ) as client:
            yield client


@asynccontextmanager
async def site(
    file: Path | None = None, resolve: Resolve | None = None, **settings: object
) -> AsyncIterator[Site]:
    """Open a VTN on a free port of loopback."""
    known = directory()
    given = {"port": 0, "business_secret": BUSINESS_SECRET} | settings
    vtn = Vtn(
        settings=OpenAdrSettings(**given),
        directory=known,
        clock=SystemClock(),
        file=file if file is not None else Path(":memory:"),
        resolve=resolve,
    )
    async with opened(vtn, known) as plant:
        yield Site(vtn, plant, known, f"http://127.0.0.1:{vtn.port}{BASE}")
