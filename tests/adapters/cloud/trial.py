"""A cloud on trial: a vendor that takes setpoints, and delivers what it measures."""

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tests.adapters.cloud.vendors import (
    WEBHOOK_SECRET,
    Vendor,
    deliver,
    free_port,
    now,
    served,
    silence,
)
from tests.adapters.conformance.plant import enrolled

from kapelle.adapters.cloud.documents import (
    CloudCommand,
    CloudPoll,
    CloudShape,
    CloudValue,
)
from kapelle.adapters.cloud.endpoint import Cloud
from kapelle.adapters.cloud.settings import (
    CloudEvent,
    CloudSettings,
    CloudWebhook,
)
from kapelle.ports import Adapter
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock

_ADDRESS = "VENDOR/7"
"""An id that would be two steps of a path."""
_POWER = CloudValue("power_w", ("kw",), "kW", positive="import")


class Sells(Vendor):
    """Lists one battery, which follows `{"kw": …}` for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[float | None] = []

    async def answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode()
        if (request.method, path) == ("GET", "/devices"):
            return JSONResponse([{"id": _ADDRESS}])
        if path != "/devices/VENDOR%2F7/setpoint":
            return JSONResponse({}, 404)
        if request.method == "DELETE":
            self.told.append(None)
        else:
            self.told.append(-1_000.0 * (await request.json())["kw"])
        return JSONResponse({}, 202)


class CloudPeer:
    """The vendor, who speaks for the battery."""

    def __init__(self, cloud: Cloud, vendor: Sells, secret: str) -> None:
        self._cloud = cloud
        self._vendor = vendor
        self._secret = secret

    async def report(self, power_w: float) -> bool:
        event = {"event": "measured", "device": {"id": _ADDRESS, "kw": power_w / -1e3, "at": now()}}
        answered = await deliver(self._cloud, [event], secret=self._secret)
        return answered.status_code == 200

    async def babble(self) -> None:
        bad: Any = [{"event": "measured", "device": {"id": _ADDRESS, "kw": [], "at": 7}}]
        for garbage in (b"{", b"[" * 5_000, json.dumps(bad).encode(), b"null"):
            await deliver(self._cloud, None, body=garbage, secret=self._secret)

    async def told(self) -> list[float | None]:
        return list(self._vendor.told)

    async def cut(self) -> None:
        self._vendor.mood = silence


class CloudTrial:
    name = "cloud"
    commands = True
    sessions = True

    def adapter(self) -> tuple[Adapter, Directory]:
        directory = enrolled("vendor", _ADDRESS)
        at = "/devices/{address}/setpoint"
        settings = CloudSettings(
            name="vendor",
            base_url=f"http://127.0.0.1:{free_port()}",
            shapes=(CloudShape("battery", (_POWER,), id="id", time="at"),),
            polls=(CloudPoll("/devices", "battery", every_s=1.0),),
            commands=(
                CloudCommand(at, when="release", method="DELETE"),
                CloudCommand(
                    at, '{"kw": "$value", "s": "$duration_s"}', unit="kW", positive="import"
                ),
            ),
            webhook=CloudWebhook(
                secret=WEBHOOK_SECRET,
                events=(CloudEvent("measured", "device", "battery"),),
                algorithm="sha1",
                signature_header="x-enode-signature",
                signature_prefix="sha1=",
                answer_s=1.0,
            ),
            requests_per_s=100.0,
            answer_s=1.0,
            noticed_s=1.0,
            retry_s_max=0.5,
        )
        return Cloud(settings=settings, directory=directory, clock=SystemClock()), directory

    def connect(self, adapter: Adapter) -> AbstractAsyncContextManager[CloudPeer]:
        return _connected(adapter, WEBHOOK_SECRET)

    def stranger(self, adapter: Adapter) -> AbstractAsyncContextManager[CloudPeer]:
        return _connected(adapter, "another secret of many characters")


@asynccontextmanager
async def _connected(adapter: Adapter, secret: str) -> AsyncIterator[CloudPeer]:
    assert isinstance(adapter, Cloud)
    vendor = Sells()
    port = int(adapter._settings.base_url.rpartition(":")[2])
    async with served(vendor.app(), port):
        yield CloudPeer(adapter, vendor, secret)
