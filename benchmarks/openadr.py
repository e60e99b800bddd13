"""How many gateways can call one VTN, and what does a report, a poll and a command cost it?

Gateways are connections of a process of their own, a bare HTTP client, so that they are not the
bottleneck. A report is answered once the journal (in memory here) and the VTN's own file (on disk)
have it.
"""

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SECRET = "a secret of thirty-two characters"


def run(quick: bool) -> list[dict[str, object]]:
    """Return rates, processor time and memory per gateway, and how long a command takes to all."""
    count, seconds = (100, 2.0) if quick else (1_000, 8.0)
    with tempfile.TemporaryDirectory() as folder:
        told = asyncio.run(_measure(count, seconds, Path(folder)))
    note = f"{count} gateways, one device each, as fast as they are answered"
    units = {
        "reports": ("1/s", note),
        "processor per report": ("us", "journal in memory, the report on disk"),
        "polls": ("1/s", note),
        "processor per poll": ("us", "one page of events"),
        "memory": ("kB/gateway", "connection, token, VEN, resource, session"),
        "command": ("s", f"to {count} devices, until the last has fetched its event"),
    }
    return [
        {
            "name": name, "value": round(value, 2), "unit": units[name][0], "ratio": None,
            "peer": "", "note": units[name][1],
        }
        for name, value in told.items()
    ]  # fmt: skip


async def _measure(count: int, seconds: float, folder: Path) -> dict[str, float]:
    from kapelle.adapters.openadr.settings import OpenAdrSettings
    from kapelle.adapters.openadr.vtn import Vtn
    from kapelle.errors import LinkLost
    from kapelle.ingest.service import Ingest
    from kapelle.journal.memory import MemoryJournal
    from kapelle.registry import credentials
    from kapelle.registry.directory import Bearer, Directory
    from kapelle.runtime.background import background
    from kapelle.runtime.clock import SystemClock

    stored, clock = credentials.hash_secret(SECRET), SystemClock()
    rows = [Bearer(n, f"g{n}", True, 5e3, 5e3, stored, adapter="openadr") for n in range(count)]
    directory = Directory.build(1, rows)
    settings = OpenAdrSettings(port=0, requests_per_s=1e6, requests_burst=1_000_000, absent_s=60.0)
    vtn = Vtn(settings=settings, directory=directory, clock=clock, file=folder / "openadr.db")
    ingest = Ingest(journal=MemoryJournal(clock), directory=directory, clock=clock)
    told: dict[str, float] = {}
    async with background() as beside, vtn.open() as link:

        async def take_in() -> None:
            with suppress(LinkLost):
                await ingest.run(link)

        beside.start(take_in(), "ingest")
        before_kb = _resident_kb()
        gateways = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.openadr", str(vtn.port), str(count), cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

        async def ask(what: str) -> float:
            assert gateways.stdin is not None
            assert gateways.stdout is not None
            gateways.stdin.write(f"{what} {seconds}\n".encode())
            return float(json.loads(await gateways.stdout.readline()))

        await ask("connect")
        told["memory"] = (_resident_kb() - before_kb) / count
        for name in ("report", "poll"):
            cpu = time.process_time()
            done = await ask(name)
            told[f"{name}s"] = done / seconds
            told[f"processor per {name}"] = (time.process_time() - cpu) / done * 1e6
        begun = time.perf_counter()
        assert (await link.send(_commands(count, clock.now_ns()))).all()
        # As a gateway's next poll comes: one after the other, on connections that are open.
        await ask("fetch")
        told["command"] = time.perf_counter() - begun
        assert vtn.counters.commands_received == count
        gateways.terminate()
        await gateways.wait()
    return told


def _commands(count: int, now_ns: int) -> Any:
    from kapelle.model.blocks import Commands

    filled = {name: np.zeros(count, kind) for name, kind in Commands.COLUMNS.items()}
    filled["device_no"][:] = np.arange(count)
    for name, value in (("order_no", 1), ("revision", 1), ("epoch", 1), ("revert_s", 300.0)):
        filled[name][:] = value
    filled["setpoint_w"][:] = -2_000.0
    filled["not_after_ns"][:] = now_ns + 600_000_000_000
    return Commands(**filled)


def _resident_kb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024


class _Gateway:
    """One connection of the other process."""

    def __init__(self, number: int, port: int) -> None:
        self._name = f"g{number}"
        self._port = port
        self._head = ""

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        form = f"grant_type=client_credentials&client_id={self._name}&client_secret={SECRET}"
        media = "application/x-www-form-urlencoded"
        answer = await self._ask("POST", "/auth/token", form.replace(" ", "+"), media)
        self._head = f"Authorization: Bearer {json.loads(answer)['access_token']}\r\n"
        await self.poll()

    async def poll(self) -> None:
        await self._ask("GET", "/events?programID=kapelle")

    async def report(self) -> None:
        interval = {"id": 0, "payloads": [{"type": "DEMAND", "values": [2.0]}]}
        resources = [{"resourceName": self._name, "intervals": [interval]}]
        said = {"eventID": "kapelle-telemetry", "clientName": self._name, "resources": resources}
        await self._ask("POST", "/reports", json.dumps(said), "application/json")

    async def _ask(self, method: str, path: str, body: str = "", media: str = "") -> bytes:
        head = f"{method} /openadr3/3.1.0{path} HTTP/1.1\r\nHost: vtn\r\n{self._head}"
        if body:
            head += f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(f"{head}\r\n{body}".encode())
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.split(b"content-length: ")[1].split(b"\r\n")[0])
        told = await self._reader.readexactly(length)
        if not answer.startswith((b"http/1.1 200", b"http/1.1 201")):
            raise OSError(told.decode())
        return told


async def _play(port: int, count: int) -> None:
    gateways = [_Gateway(number, port) for number in range(count)]
    while line := await asyncio.to_thread(sys.stdin.readline):
        what, seconds = line.split()
        ends = time.perf_counter() + float(seconds)

        async def repeat(act: Callable[[], Coroutine[Any, Any, None]], until: float) -> int:
            done = 0
            while time.perf_counter() < until:
                await act()
                done += 1
            return done

        total = 0
        if what in ("connect", "fetch"):
            for gateway in gateways:
                await (gateway.connect() if what == "connect" else gateway.poll())
        else:
            async with asyncio.TaskGroup() as tasks:
                acts = [
                    gateway.report if what == "report" else gateway.poll for gateway in gateways
                ]
                running = [tasks.create_task(repeat(act, ends)) for act in acts]
            total = sum(task.result() for task in running)
        sys.stdout.write(f"{total}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_play(int(sys.argv[1]), int(sys.argv[2])))
