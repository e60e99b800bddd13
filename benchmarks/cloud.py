"""How fast is what a vendor's cloud says taken in, by polls and by webhooks, and what does it cost?

The vendor is the one of `sim/peers/vendor.py`, in a process of its own: documents have the shape of
Enode's, every value is new at every poll. The plant's side is a process too: the adapter, ingest
and the SQLite journal, synchronous = FULL. The peer of the mapping is `json.loads` of the same
documents: what any reader of them pays.

python -m benchmarks.run cloud
"""

import asyncio
import hashlib
import hmac
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from kapelle.adapters.cloud import mapping
from kapelle.adapters.cloud.documents import CloudPoll
from kapelle.adapters.cloud.endpoint import Cloud
from kapelle.adapters.cloud.settings import CloudAuth, CloudEvent, CloudSettings, CloudWebhook
from kapelle.api.service import Api
from kapelle.api.settings import ApiSettings
from kapelle.ingest.service import Ingest
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock
from kapelle.sim.peers.clouds import SHAPE
from kapelle.sim.peers.vendor import VendorCloud

ROOT = Path(__file__).resolve().parent.parent
SECRET = "a benchmark's secret"
PAGE = 100
AT_ONCE = 16
QUOTA = 1e6
"""Requests a second: nobody waits for it here."""
LISTS = CloudPoll("/batteries", "battery", items="data", every_s=0.1, next="pagination.after")
SINGLY = CloudPoll("/batteries/{address}", "battery", every_s=0.1)


def run(quick: bool) -> list[dict[str, object]]:
    """Return rates of polls and deliveries, the time of a delivery, and memory per device."""
    rounds, devices, seconds = (30, 2_000, 3.0) if quick else (200, 10_000, 10.0)
    body = json.dumps([_event(number, 0)["battery"] for number in range(PAGE)]).encode()
    ours, theirs = _rate(rounds, lambda: _read(body)), _rate(rounds, lambda: json.loads(body))
    lists = _polled("lists", devices, seconds)
    singly = _polled("singly", devices // 5, seconds)
    took_s, _ = asyncio.run(_deliveries(rounds, PAGE, 1))
    middle, late = took_s[len(took_s) // 2], took_s[int(len(took_s) * 0.99)]
    one_each, all_s = asyncio.run(_deliveries(rounds * AT_ONCE, 1, AT_ONCE))
    rate = len(one_each) / all_s
    read = "per second of processor: decoded and mapped, two values each"
    return [
        _line("items read", ours, "1/s", read, ours / theirs),
        _line("lists", lists["devices"], "devices/s", "pages of 100, each device new, durable"),
        _line("processor per device of a list", lists["us"], "us", "at that rate"),
        _line("polls", singly["requests"], "1/s", "a document for each device, durable"),
        _line("processor per poll", singly["us"], "us", "at that rate"),
        _line("memory", lists["kb"], "kB/device", f"{devices:,} devices, all seen"),
        _line("delivery p50", middle * 1e3, "ms", "100 events, durable before the answer"),
        _line("delivery p99", late * 1e3, "ms", "Enode waits for 5,000 ms"),
        _line("deliveries", rate, "1/s", f"one event each, {AT_ONCE} at once, durable"),
    ]


def _read(body: bytes) -> None:
    for item in mapping.parts(mapping.decode(body), "", PAGE):
        mapping.read(item, SHAPE)


def _rate(rounds: int, work: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(rounds):
        work()
    return rounds * PAGE / (time.process_time() - began)


def _polled(how: str, devices: int, seconds: float) -> dict[str, float]:
    """Let a plant poll a vendor, each in a process of its own."""
    with _process("vendor", str(devices)) as vendor:
        assert vendor.stdout is not None
        port = vendor.stdout.readline().strip()
        with _process("plant", how, port, str(devices), str(seconds)) as plant:
            assert plant.stdout is not None
            seen: dict[str, float] = json.loads(plant.stdout.readline())
        vendor.kill()
    return seen


def _process(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.cloud", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


async def _be_vendor(devices: int) -> None:
    cloud = VendorCloud(_names(devices), SECRET, _Deaf())
    api = Api(application=cloud, watch=None, settings=ApiSettings(port=0))
    async with background() as beside:
        beside.start(api.run(), "vendor")
        await api.ready.wait()
        print(api.port, flush=True)
        while True:
            now_ns = time.time_ns()
            for asset in cloud.assets:
                asset.power_w, asset.soc, asset.at_ns = now_ns / 1e6 % 5_000, 0.5, now_ns
            await asyncio.sleep(0.2)


class _Deaf:
    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        """Nobody is told anything here."""


async def _be_plant(how: str, port: int, devices: int, seconds: float) -> None:
    settings = CloudSettings(
        "enode",
        f"http://127.0.0.1:{port}",
        (SHAPE,),
        polls=(LISTS if how == "lists" else SINGLY,),
        auth=CloudAuth("bearer", token=SECRET),
        requests_per_s=QUOTA,
        requests_burst=int(QUOTA),
        at_once=AT_ONCE,
    )
    before_kb = _resident_kb()
    async with asyncio.timeout(120), _plant(settings, devices) as (cloud, ingest):
        while cloud.counters.sessions < devices:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.05)
        kb = (_resident_kb() - before_kb) / devices
        asked, stored = cloud.counters.requests, ingest.counters.accepted
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        took_s, used = time.perf_counter() - began, time.process_time() - used
        requests, rows = cloud.counters.requests - asked, ingest.counters.accepted - stored
    seen = {"devices": rows / took_s, "requests": requests / took_s, "us": used / rows * 1e6}
    print(json.dumps(seen | {"kb": kb}), flush=True)


@asynccontextmanager
async def _plant(settings: CloudSettings, devices: int) -> AsyncIterator[tuple[Cloud, Ingest]]:
    bearers = [
        Bearer(n, f"d-{n}", True, 1e4, 1e4, adapter=settings.name, address=name)
        for n, name in enumerate(_names(devices))
    ]
    known, clock = Directory.build(1, bearers), SystemClock()
    cloud = Cloud(settings=settings, directory=known, clock=clock)
    # On the disk of the checkout: /tmp may live in memory, where nothing is durable.
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        kept = JournalSettings(directory=Path(folder))
        async with open_journal(kept, clock) as journal, background() as beside, cloud.open() as up:
            ingest = Ingest(journal=journal, directory=known, clock=clock)
            beside.start(ingest.run(up), "ingest")
            yield cloud, ingest


async def _deliveries(count: int, events: int, at_once: int) -> tuple[list[float], float]:
    """Deliver; returns how long each took, in order of length, and all together. [s]"""
    webhook = CloudWebhook(
        secret=SECRET, events=(CloudEvent("user:battery:updated", "battery", "battery"),)
    )
    settings = CloudSettings("enode", "https://api.example", (SHAPE,), webhook=webhook)
    took_s: list[float] = []
    turns = iter(range(count))
    async with _plant(settings, PAGE) as (cloud, _):
        transport = httpx.ASGITransport(app=cloud)
        async with httpx.AsyncClient(transport=transport, base_url="http://plant") as client:

            async def work() -> None:
                for turn in turns:
                    told = [_event((turn + n) % PAGE, turn) for n in range(events)]
                    body = json.dumps(told).encode()
                    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
                    began = time.perf_counter()
                    answer = await client.post(
                        cloud.webhook_path, content=body, headers={"x-signature": digest}
                    )
                    took_s.append(time.perf_counter() - began)
                    assert answer.status_code == 200, answer.text

            all_began = time.perf_counter()
            async with asyncio.TaskGroup() as tasks:
                for _ in range(at_once):
                    tasks.create_task(work())
            all_s = time.perf_counter() - all_began
    return sorted(took_s), all_s


def _names(devices: int) -> list[str]:
    return [f"b-{number}" for number in range(devices)]


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


def _resident_kb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4.096


def _line(
    name: str, value: float, unit: str, note: str, ratio: float | None = None
) -> dict[str, object]:
    return {
        "name": name, "value": round(value, 1), "unit": unit,
        "ratio": None if ratio is None else round(ratio, 2),
        "peer": "json.loads" if ratio is not None else "", "note": note,
    }  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "vendor":
        asyncio.run(_be_vendor(int(sys.argv[2])))
    else:
        asyncio.run(_be_plant(sys.argv[2], *map(int, sys.argv[3:5]), float(sys.argv[5])))
