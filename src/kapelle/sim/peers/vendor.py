"""A vendor's cloud with devices behind it: lists in pages as Enode's, and power for a while.

It counts charging upwards and in kW, times are RFC 3339: what is not turned, shows. Whom it cannot
reach it says so of, or it does not know yet, and goes on repeating what it heard last.
"""

import hmac
import math
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

import msgspec

from kapelle.adapters.http.route import Receive, Send
from kapelle.model.ids import NS_PER_S
from kapelle.sim.agents import NEVER_NS

_PAGE = 100
_BODY_BYTES_MAX = 4_096


class Listener(Protocol):
    """Whoever plays the devices behind a cloud."""

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        """A device is to hold this power until a moment; NaN: it is released."""


@dataclass(slots=True)
class Asset:
    """One device, as its vendor's cloud last heard of it."""

    name: str
    power_w: float = math.nan
    soc: float = math.nan
    at_ns: int = 0
    """When it was measured; 0: nothing was heard of it yet."""
    is_reachable: bool = True
    is_deaf: bool = False
    """It is gone, and the cloud does not know."""


class _Power(msgspec.Struct):
    kw: float
    seconds: int


class VendorCloud:
    """One vendor's API: an ASGI application."""

    def __init__(self, names: list[str], token: str, listener: Listener) -> None:
        """Make it. `token`: what whoever asks has to bear."""
        self.assets = [Asset(name) for name in names]
        self.is_out = False
        """It takes requests and answers none."""
        self.asked = 0
        """Documents that were asked for, and answered."""
        self.refused = 0
        self._index = {name: index for index, name in enumerate(names)}
        self._bearer = f"Bearer {token}".encode()
        self._listener = listener
        self.now_ns = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = await _body(receive)
        if self.is_out:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        told = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(told, self._bearer):
            self.asked += 1
            status, answer = self._answer(scope, body)
        else:
            self.refused += 1
            status, answer = 401, {"title": "Unauthorized"}
        content = msgspec.json.encode(answer)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _answer(self, scope: MutableMapping[str, Any], body: bytes) -> tuple[int, object]:
        steps = [unquote(step) for step in scope["raw_path"].decode("latin-1").split("/")[1:]]
        match scope["method"], steps:
            case "GET", ["batteries"]:
                query = parse_qs(scope["query_string"].decode("latin-1"))
                return self._page(query.get("after", ["0"])[0])
            case "GET", ["batteries", name] if name in self._index:
                return 200, _shown(self.assets[self._index[name]])
            case "POST", ["batteries", name, "power"] if name in self._index:
                try:
                    power = msgspec.json.decode(body, type=_Power)
                except msgspec.MsgspecError:
                    return 400, {"title": "Bad Request"}
                return self._tell(name, -1e3 * power.kw, self.now_ns + power.seconds * NS_PER_S)
            case "DELETE", ["batteries", name, "power"] if name in self._index:
                return self._tell(name, math.nan, NEVER_NS)
        return 404, {"title": "Not Found"}

    def _page(self, after: str) -> tuple[int, object]:
        first = int(after) if after.isascii() and after.isdecimal() else 0
        last = first + _PAGE
        more = str(last) if last < len(self.assets) else None
        found = [_shown(asset) for asset in self.assets[first:last] if asset.at_ns]
        return 200, {"data": found, "pagination": {"before": None, "after": more}}

    def _tell(self, name: str, setpoint_w: float, until_ns: int) -> tuple[int, object]:
        asset = self.assets[index := self._index[name]]
        # It says that it has heard, as clouds do, whoever is there to hear it.
        if asset.is_reachable and not asset.is_deaf:
            self._listener.on_setpoint(index, setpoint_w, until_ns)
        return 200, {"targetId": name, "state": "PENDING"}


def _shown(asset: Asset) -> object:
    at = datetime.fromtimestamp(asset.at_ns / NS_PER_S, UTC).isoformat(timespec="milliseconds")
    state = {
        "chargeRate": None if math.isnan(asset.power_w) else asset.power_w / -1e3,
        "batteryLevel": None if math.isnan(asset.soc) else 100 * asset.soc,
        "lastUpdated": at,
    }
    return {"id": asset.name, "isReachable": asset.is_reachable, "chargeState": state}


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False) or len(body) > _BODY_BYTES_MAX:
            return bytes(body)
