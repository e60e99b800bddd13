"""How many IEEE 2030.5 clients does one process carry, at what cost?

Mutual TLS with ECDHE-ECDSA-AES128-CCM8, ingest and the SQLite journal (synchronous = FULL); the
clients are connections of a process of their own that share one certificate, as handshakes and not
names are what costs. There is no peer to compare with: the limit beside it is the pace of the
field, a reading and a look at the controls of each client every 10 s.

python -m benchmarks.run ieee2030
"""

import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from kapelle.adapters.ieee2030.endpoint import Ieee2030Endpoint
from kapelle.adapters.ieee2030.identity import lfdi_of
from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.ingest.service import Ingest
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock
from kapelle.runtime.limits import allow_files
from kapelle.sim.peers.process import stdin_lines

ROOT = Path(__file__).resolve().parent.parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CONNECTS_AT_ONCE = 32
MIRROR = (
    b'<MirrorUsagePoint xmlns="urn:ieee:std:2030.5:ns"><mRID>AA</mRID><roleFlags>49</roleFlags>'
    b"<serviceCategoryKind>0</serviceCategoryKind><status>1</status><deviceLFDI>00</deviceLFDI>"
    b"<MirrorMeterReading><mRID>01</mRID><Reading><value>2000</value></Reading><ReadingType>"
    b"<flowDirection>1</flowDirection><uom>38</uom></ReadingType></MirrorMeterReading>"
    b"</MirrorUsagePoint>"
)
POST = b"POST /mup HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(MIRROR), MIRROR)
LOOK = b"GET /edev/0/derp/1/derc?s=0&l=10 HTTP/1.1\r\nHost: a\r\n\r\n"


def run(quick: bool) -> list[dict[str, object]]:
    """Return memory, handshakes, and rates of readings and looks, for 1,000 connections."""
    clients = 200 if quick else 1_000
    seen = _measure(clients, 2.0 if quick else 10.0)
    notes = {
        "memory": ("kB/connection", "mutual TLS, idle"),
        "handshakes": ("1/s", "mutual TLS, ECDSA P-256"),
        "readings": ("msg/s", "each again once acknowledged, durable"),
        "processor per reading": ("us/msg", "at that rate"),
        "looks": ("msg/s", "GET of the DERControlList, again once answered"),
        "processor per look": ("us/msg", "at that rate"),
    }
    return [
        {
            "name": f"ieee2030 {clients} connections, {name}",
            "value": round(seen[name], 3),
            "unit": unit,
            "ratio": None,
            "peer": "",
            "note": note,
        }
        for name, (unit, note) in notes.items()
    ]


def _measure(clients: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        _certify(Path(folder))
        server = _start("server", folder)
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            before_kb, before_s = _resident_kb(server.pid), _cpu_s(server.pid)
            load = _start("load", folder, port, clients, seconds)
            assert load.stdout is not None
            connected = json.loads(load.stdout.readline())
            memory_kb = (_resident_kb(server.pid) - before_kb) / clients
            before_s = _cpu_s(server.pid)
            posted = json.loads(load.stdout.readline())
            between_s = _cpu_s(server.pid)
            looked = json.loads(load.stdout.readline())
            after_s = _cpu_s(server.pid)
            load.wait(60)
        finally:
            assert server.stdin is not None
            server.stdin.close()
            server.wait(60)
    return {
        "memory": memory_kb,
        "handshakes": clients / connected["seconds"],
        "readings": posted["answers"] / posted["seconds"],
        "processor per reading": (between_s - before_s) / posted["answers"] * 1e6,
        "looks": looked["answers"] / looked["seconds"],
        "processor per look": (after_s - between_s) / looked["answers"] * 1e6,
    }


def _start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.ieee2030", *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _certify(folder: Path) -> None:
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key"]
    for name, by in (("ca", []), ("server", signed), ("device", signed)):
        words = ["-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*new, *by, *words], cwd=folder, check=True, capture_output=True)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _resident_kb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:"))


async def _serve(folder: Path) -> None:
    clock = SystemClock()
    lfdi = lfdi_of(ssl.PEM_cert_to_DER_cert((folder / "device.pem").read_text()))
    bearer = Bearer(0, "dev-0", True, 5e3, 5e3, adapter="ieee2030", address=lfdi)
    directory = Directory.build(1, [bearer])
    settings = Ieee2030Settings(
        port=0,
        tls_certificate=str(folder / "server.pem"),
        tls_key=str(folder / "server.key"),
        tls_client_authority=str(folder / "ca.pem"),
        connections_per_client_max=100_000,
        requests_per_s=1e9,
        requests_burst=1_000_000_000,
        handshake_s=60.0,
    )
    endpoint = Ieee2030Endpoint(settings=settings, directory=directory, clock=clock)
    journal_settings = JournalSettings(directory=folder / "journal")
    async with (
        open_journal(journal_settings, clock) as journal,
        endpoint.open() as link,
        background() as beside,
    ):
        ingest = Ingest(journal=journal, directory=directory, clock=clock)
        beside.start(ingest.run(link), "ingest")
        sys.stdout.write(f"{endpoint.port}\n")
        sys.stdout.flush()
        await (await stdin_lines()).read()


async def _load(folder: Path, port: int, clients: int, seconds: float) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.set_ciphers("ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0")
    tls.check_hostname = False
    tls.load_verify_locations(folder / "ca.pem")
    tls.load_cert_chain(folder / "device.pem", folder / "device.key")
    turns = asyncio.Semaphore(CONNECTS_AT_ONCE)

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with turns:
            return await asyncio.open_connection("127.0.0.1", port, ssl=tls)

    began = time.perf_counter()
    streams = await asyncio.gather(*(connect() for _ in range(clients)))
    _tell(seconds=time.perf_counter() - began)
    await asyncio.sleep(1.0)
    for request in (POST, LOOK):
        began = time.perf_counter()
        told = await asyncio.gather(*(_ask(*one, request, began + seconds) for one in streams))
        _tell(answers=sum(told), seconds=time.perf_counter() - began)


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, until_s: float
) -> int:
    """Ask again and again; return how often there was an answer."""
    answers = 0
    while time.perf_counter() < until_s:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 2"), head
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        answers += 1
    return answers


def _tell(**numbers: float) -> None:
    sys.stdout.write(json.dumps(numbers) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Be one side: `server FOLDER`, or `load FOLDER PORT CLIENTS SECONDS`."""
    allow_files(10_000)
    role, folder, *numbers = sys.argv[1:]
    if role == "server":
        uvloop.run(_serve(Path(folder)))
    else:
        uvloop.run(_load(Path(folder), int(numbers[0]), int(numbers[1]), float(numbers[2])))


if __name__ == "__main__":
    main()
