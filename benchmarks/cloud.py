"""How fast is what a vendor's cloud says taken in, and how fast is a webhook answered?

Documents have the shape of Enode's, 100 devices each, with five values a mapping does not use for
each it does. Deliveries go through signature, mapping, ingest and the SQLite journal, synchronous =
FULL. The peer is `json.loads` of the same documents: what any reader of them pays.
"""

import asyncio
import hashlib
import hmac
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from kapelle.adapters.cloud import mapping
from kapelle.adapters.cloud.documents import CloudShape, CloudValue
from kapelle.adapters.cloud.endpoint import Cloud
from kapelle.adapters.cloud.settings import (
    CloudEvent,
    CloudSettings,
    CloudWebhook,
)
from kapelle.ingest.service import Ingest
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock

SECRET = "a benchmark's secret"
DEVICES = 100
SHAPE = CloudShape(
    "battery",
    (
        CloudValue("power_w", ("chargeState.chargeRate",), "kW", positive="import"),
        CloudValue("soc", ("chargeState.batteryLevel",), "percent"),
    ),
    id="id",
    time="chargeState.lastUpdated",
    reachable="isReachable",
)


def run(quick: bool) -> list[dict[str, object]]:
    """Return items read a second, and the time of a delivery of 100 events."""
    rounds = 30 if quick else 200
    body = json.dumps([_event(number, 0)["battery"] for number in range(DEVICES)]).encode()
    ours = _rate(rounds, lambda: _read(body))
    theirs = _rate(rounds, lambda: json.loads(body))
    took_s = asyncio.run(_deliveries(rounds))
    middle, late = sorted(took_s)[len(took_s) // 2], sorted(took_s)[int(len(took_s) * 0.99)]
    return [
        _line(
            "items read",
            ours,
            "1/s",
            ours / theirs,
            "per second of processor: decoded and mapped, two values each",
        ),
        _line("delivery p50", middle * 1e3, "ms", None, "100 events, durable before the answer"),
        _line("delivery p99", late * 1e3, "ms", None, "Enode waits for 5,000 ms"),
    ]


def _read(body: bytes) -> None:
    for item in mapping.parts(mapping.decode(body), "", DEVICES):
        mapping.read(item, SHAPE)


def _rate(rounds: int, work: Any) -> float:
    began = time.process_time()
    for _ in range(rounds):
        work()
    return rounds * DEVICES / (time.process_time() - began)


def _event(number: int, turn: int) -> dict[str, Any]:
    state = {
        "status": "charging", "batteryCapacity": 13.5, "batteryLevel": 50,
        "chargeRate": 1.0 + turn % 7, "dischargeLimit": 20,
        "lastUpdated": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{turn % 1000:03d}Z",
    }  # fmt: skip
    battery = {
        "id": f"b-{number}", "userId": "u", "vendor": "V", "isReachable": True,
        "lastSeen": state["lastUpdated"], "chargeState": state,
    }  # fmt: skip
    return {"event": "user:battery:updated", "version": "2024-10-01", "battery": battery}


async def _deliveries(rounds: int) -> list[float]:
    bearers = [
        Bearer(n, f"d-{n}", True, 1e4, 1e4, adapter="enode", address=f"b-{n}")
        for n in range(DEVICES)
    ]
    known, clock = Directory.build(1, bearers), SystemClock()
    webhook = CloudWebhook(
        secret=SECRET, events=(CloudEvent("user:battery:updated", "battery", "battery"),)
    )
    settings = CloudSettings("enode", "https://api.example", (SHAPE,), webhook=webhook)
    cloud = Cloud(settings=settings, directory=known, clock=clock)
    took_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        kept = JournalSettings(directory=Path(folder))
        async with open_journal(kept, clock) as journal, background() as beside, cloud.open() as up:
            ingest = Ingest(journal=journal, directory=known, clock=clock)
            beside.start(ingest.run(up), "ingest")
            transport = httpx.ASGITransport(app=cloud)
            async with httpx.AsyncClient(transport=transport, base_url="http://plant") as client:
                for turn in range(rounds):
                    body = json.dumps([_event(n, turn) for n in range(DEVICES)]).encode()
                    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
                    began = time.perf_counter()
                    answer = await client.post(
                        cloud.webhook_path, content=body, headers={"x-signature": digest}
                    )
                    took_s.append(time.perf_counter() - began)
                    assert answer.status_code == 200, answer.text
    return took_s


def _line(name: str, value: float, unit: str, ratio: float | None, note: str) -> dict[str, object]:
    return {
        "name": name, "value": round(value, 1), "unit": unit,
        "ratio": None if ratio is None else round(ratio, 2),
        "peer": "json.loads" if ratio is not None else "", "note": note,
    }  # fmt: skip
