"""Vendors' clouds for tests: servers whose answers have the shape their API documents publish.

Enode: developers.enode.com/api/reference (2024-10-01), developers.enode.com/docs/webhooks. Tesla:
developer.tesla.com/docs/fleet-api; example documents of github.com/api-evangelist/tesla-energy.
They are strict: what the documents do not allow is an error.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kapelle.adapters.cloud.endpoint import Cloud
from kapelle.api.service import Api
from kapelle.api.settings import ApiSettings
from kapelle.runtime.background import background

CLIENT_ID, CLIENT_SECRET = "plant", "the client's secret"
WEBHOOK_SECRET = "a webhook's secret of many characters"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@asynccontextmanager
async def served(application: Any, port: int = 0) -> AsyncIterator[str]:
    """Serve an ASGI application on loopback; yields its address."""
    api = Api(application=application, watch=None, settings=ApiSettings(port=port, shutdown_s=0.1))
    async with background() as beside:
        beside.start(api.run(), "vendor")
        await api.ready.wait()
        yield f"http://127.0.0.1:{api.port}"


class Vendor:
    """What all have in common: moods, and counting who asked for what."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.mood: Callable[[Request], Awaitable[Response | None]] | None = None
        """Answers instead of the vendor, where it returns something."""
        self.token = ""
        self.tokens = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[Route("/{path:path}", self._any, methods=["GET", "POST", "DELETE"])]
        )

    async def _any(self, request: Request) -> Response:
        self.asked[f"{request.method} {request.url.path}"] += 1
        if self.mood is not None and (instead := await self.mood(request)) is not None:
            return instead
        return await self.answer(request)

    async def answer(self, request: Request) -> Response:
        raise NotImplementedError

    async def issue(self, request: Request) -> Response:
        """OAuth2 client credentials (RFC 6749, 4.4)."""
        told = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        form = parse_qs((await request.body()).decode())
        if request.headers.get("authorization") != f"Basic {told}":
            return JSONResponse({"error": "invalid_client"}, 401)
        if form != {"grant_type": ["client_credentials"]}:
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        self.tokens += 1
        self.token = f"token-{self.tokens}"
        issued = {"access_token": self.token, "expires_in": 3599, "token_type": "bearer"}
        return JSONResponse(issued | {"scope": ""})

    def is_known(self, request: Request) -> bool:
        return bool(self.token) and request.headers.get("authorization") == f"Bearer {self.token}"


class EnodeLike(Vendor):
    """Assets in three kinds, in pages; actions; signed deliveries."""

    def __init__(self) -> None:
        super().__init__()
        self.assets: dict[str, dict[str, dict[str, Any]]] = {
            "batteries": {}, "chargers": {}, "vehicles": {}
        }  # fmt: skip
        self.actions: dict[str, dict[str, Any]] = {}
        self.page_size = 2
        self.action_id = ""

    async def answer(self, request: Request) -> Response:
        steps = request.url.path.strip("/").split("/")
        if steps == ["oauth2", "token"]:
            return await self.issue(request)
        if not self.is_known(request):
            return JSONResponse({"title": "Unauthorized"}, 401)
        if request.headers.get("enode-version") != "2024-10-01":
            return JSONResponse({"title": "Bad Request"}, 400)
        match (request.method, steps):
            case ("GET", [kind]) if kind in self.assets:
                return self._page(kind, request.query_params)
            case ("GET", ["chargers", "actions", name]):
                found = [one for one in self.actions.values() if one["id"] == name]
                return JSONResponse(found[0]) if found else JSONResponse({}, 404)
            case ("POST", [kind, name, "charging"]) if name in self.assets.get(kind, {}):
                return self._act(kind, name, await request.json())
        return JSONResponse({"title": "Not Found"}, 404)

    def _page(self, kind: str, query: Any) -> Response:
        assert set(query) <= {"pageSize", "after"}
        names = list(self.assets[kind])
        start = int(query.get("after", 0))
        end = start + self.page_size
        after = str(end) if end < len(names) else None
        found = [self.assets[kind][name] for name in names[start:end]]
        return JSONResponse({"data": found, "pagination": {"before": None, "after": after}})

    def _act(self, kind: str, name: str, body: Any) -> Response:
        if set(body) != {"action"} or body["action"] not in ("START", "STOP"):
            return JSONResponse({"title": "Bad Request"}, 400)
        action = {
            "id": self.action_id or str(uuid4()),
            "userId": "u-1",
            "createdAt": now(),
            "updatedAt": now(),
            "completedAt": None,
            "state": "PENDING",
            "targetId": name,
            "targetType": kind.removesuffix("s"),
            "kind": body["action"],
            "failureReason": None,
        }
        self.actions[name] = action
        return JSONResponse(action)

    def event(self, kind: str, item: dict[str, Any], **more: Any) -> dict[str, Any]:
        key = "vendorAction" if kind == "vendor-action" else kind
        told = {"event": f"user:{kind}:updated", "createdAt": now(), "version": "2024-10-01"}
        return told | {"user": {"id": "u-1"}, key: item, "updatedFields": []} | more


def battery(name: str, charge_rate_kw: float | None, level: float | None = 50, **more: Any) -> Any:
    """A battery as `GET /batteries` lists it."""
    return {
        "id": name,
        "userId": "u-1",
        "vendor": "SOLAREDGE",
        "isReachable": True,
        "lastSeen": now(),
        "chargeState": {
            "status": "charging",
            "batteryCapacity": 13.5,
            "batteryLevel": level,
            "chargeRate": charge_rate_kw,
            "dischargeLimit": 20,
            "lastUpdated": now(),
        },
    } | more


def charger(name: str, charge_rate_kw: float | None, *, is_charging: bool | None = True) -> Any:
    """A charger as `GET /chargers` lists it."""
    return {
        "id": name,
        "userId": "u-1",
        "vendor": "ZAPTEC",
        "isReachable": True,
        "lastSeen": now(),
        "chargeState": {
            "isPluggedIn": True,
            "isCharging": is_charging,
            "chargeRate": charge_rate_kw,
            "maxCurrent": 16,
            "powerDeliveryState": "PLUGGED_IN:CHARGING",
            "lastUpdated": now(),
        },
    }


class TeslaLike(Vendor):
    """A document for each site; a budget of requests; a refresh token for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.refresh_token = "refresh-0"
        self.lasts_s = 28_800.0
        self.is_locked = False
        """A refresh token was used twice, or was none of ours."""
        self.sites: dict[str, dict[str, Any]] = {}
        self.modes: dict[str, str] = {}

    async def answer(self, request: Request) -> Response:
        steps = request.url.path.strip("/").split("/")
        if steps == ["oauth2", "v3", "token"]:
            return await self.refresh(request)
        if not self.is_known(request):
            return JSONResponse({"error": "invalid bearer token"}, 401)
        match (request.method, steps):
            case ("GET", ["api", "1", "energy_sites", site, "live_status"]) if site in self.sites:
                return JSONResponse({"response": self.sites[site]})
            case ("POST", ["api", "1", "energy_sites", site, "operation"]) if site in self.sites:
                body = await request.json()
                mode = body.get("default_real_mode")
                if set(body) != {"default_real_mode"} or mode not in (
                    "self_consumption", "backup", "autonomous"
                ):  # fmt: skip
                    return JSONResponse({"error": "invalid mode"}, 400)
                self.modes[site] = mode
                return JSONResponse({"response": {"code": 201, "message": "Updated"}})
        return JSONResponse({"error": "not found"}, 404)

    async def refresh(self, request: Request) -> Response:
        """OAuth2, "single use only": …/docs/fleet-api/authentication/third-party-tokens."""
        form = {key: told for key, (told,) in parse_qs((await request.body()).decode()).items()}
        expected = {"grant_type": "refresh_token", "client_id": CLIENT_ID}
        self.is_locked |= form != expected | {"refresh_token": self.refresh_token}
        if self.is_locked:
            return JSONResponse({"error": "login_required"}, 401)
        self.tokens += 1
        self.token, self.refresh_token = f"token-{self.tokens}", f"refresh-{self.tokens}"
        issued = {"access_token": self.token, "refresh_token": self.refresh_token}
        return JSONResponse(issued | {"expires_in": self.lasts_s, "token_type": "Bearer"})


def live_status(battery_power_w: float, **more: Any) -> dict[str, Any]:
    """As in api-evangelist/tesla-energy, `examples/tesla-energy-live-status-example.json`."""
    return {
        "solar_power": 4250,
        "battery_power": battery_power_w,
        "grid_power": -150,
        "load_power": 2300,
        "generator_power": 0,
        "percentage_charged": 78.4,
        "energy_left": 21168,
        "total_pack_energy": 27000,
        "grid_status": "Active",
        "backup_capable": True,
        "storm_mode_active": False,
        "island_status": "on_grid",
        "timestamp": now(timedelta(hours=-7)),
    } | more


def now(zone: timedelta = timedelta(0), ago_s: float = 0.0) -> str:
    """The time as vendors write it."""
    at = datetime.now(UTC) - timedelta(seconds=ago_s)
    if zone:
        local = (at + zone).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{local}-{abs(int(zone.total_seconds())) // 3600:02d}:00"
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def signature(body: bytes, secret: str = WEBHOOK_SECRET) -> str:
    return "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()


async def deliver(
    cloud: Cloud,
    events: Any,
    *,
    secret: str = WEBHOOK_SECRET,
    body: bytes | None = None,
    **more: str,
) -> httpx.Response:
    """Deliver to a webhook as Enode does."""
    body = json.dumps(events).encode() if body is None else body
    headers = {
        "content-type": "application/json",
        "x-enode-delivery": str(uuid4()),
        "x-enode-signature": signature(body, secret),
    } | more
    transport = httpx.ASGITransport(app=cloud)
    async with httpx.AsyncClient(transport=transport, base_url="http://plant") as client:
        return await client.post(cloud.webhook_path, content=body, headers=headers)


async def silence(_: Request) -> Response | None:
    """A mood: accepts connections and says nothing."""
    await asyncio.sleep(3_600)
    return None
