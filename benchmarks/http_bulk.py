"""How many readings a second go from a client's socket to fleet state, durable on the way?

One process is the plant: uvicorn, the telemetry route, ingest, the SQLite journal (synchronous =
FULL) and the fold into the fleet's columns. The client is another process with keep-alive
connections. The clock stops when the last reading is both answered and folded.

The peer is the journal alone, in the same run, on the same disk: the same readings as ready-made
blocks of the same size, appended as fast as they are acknowledged.
"""

import argparse
import asyncio
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import uvloop

from kapelle.adapters.http.route import ARROW, HttpTelemetry
from kapelle.adapters.http.settings import HttpSettings
from kapelle.api.service import Api
from kapelle.api.settings import ApiSettings
from kapelle.fleet.columns import Fleet
from kapelle.fleet.fold import apply_entry
from kapelle.ingest.service import Ingest
from kapelle.journal.settings import JournalSettings
from kapelle.journal.sqlite import open_journal
from kapelle.model.blocks import Readings
from kapelle.model.enums import Metric
from kapelle.model.ids import partition_topic
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock

HERE = Path(__file__).resolve().parent
DEVICES = 100_000
PARTITIONS = 4
TOKEN = "benchmark-token-of-32-characters"
CONNECTIONS = 4
ROWS = 5_000
"""Readings in a request: a gateway's or vendor cloud's upload."""
FORMATS = ("arrow", "arrow-new", "ndjson", "json")
"""`arrow-new`: no request names the devices of another in the same order, so that none of the names
is remembered; the others repeat eight lists, as gateways do."""
_MEDIA = {
    "arrow": ARROW,
    "arrow-new": ARROW,
    "ndjson": "application/x-ndjson",
    "json": "application/json",
}


def run(quick: bool) -> list[dict[str, object]]:
    """Return one line per format, and one for the journal alone."""
    total = 300_000 if quick else 2_000_000
    results: list[dict[str, object]] = []
    alone = min(_journal_alone(total) for _ in range(1 if quick else 3))
    results.append(_line("journal alone", total / alone, None, "", f"blocks of {ROWS} readings"))
    for form in FORMATS:
        wall_s, cpu_s, client_s = min(_end_to_end(form, total) for _ in range(1 if quick else 3))
        note = f"server CPU {cpu_s / total * 1e6:.2f} us, client {client_s / total * 1e6:.2f} us"
        results.append(
            _line(f"{form} end to end", total / wall_s, alone / wall_s, "journal alone", note)
        )
    return results


def _line(name: str, value: float, ratio: float | None, peer: str, note: str) -> dict[str, object]:
    return {
        "name": name, "value": round(value), "unit": "readings/s",
        "ratio": None if ratio is None else round(ratio, 3), "peer": peer, "note": note,
    }  # fmt: skip


def _journal_alone(total: int) -> float:
    async def append() -> float:
        clock = SystemClock()
        with _directory() as directory:
            async with open_journal(JournalSettings(directory=directory), clock) as journal:
                blocks = [_block(n) for n in range(8)]
                started = time.perf_counter()

                async def line(place: int) -> None:
                    for n in range(place, total // ROWS, CONNECTIONS):
                        topic = partition_topic(n % PARTITIONS)
                        await journal.append(topic, [blocks[n % 8]], writer="ingest")

                async with asyncio.TaskGroup() as tasks:
                    for place in range(CONNECTIONS):
                        tasks.create_task(line(place))
                return time.perf_counter() - started

    return uvloop.run(append())


def _block(seed: int) -> Readings:
    draw = np.random.default_rng(seed)
    now = time.time_ns()
    return Readings(
        device_no=draw.permutation(DEVICES)[:ROWS].astype(np.int32),
        order=np.full(ROWS, now),
        measured_at_ns=np.full(ROWS, now),
        received_at_ns=np.full(ROWS, now),
        quality=np.zeros(ROWS, np.uint8),
        values={Metric.POWER_W: draw.normal(0, 1_000, ROWS), Metric.SOC: draw.random(ROWS)},
    )


def _end_to_end(form: str, total: int) -> tuple[float, float, float]:
    """Return seconds on the wall, and CPU seconds of server and client."""
    return uvloop.run(_serve(form, total))


async def _serve(form: str, total: int) -> tuple[float, float, float]:
    clock = SystemClock()
    directory = Directory.build(
        PARTITIONS,
        (Bearer(n, f"dev-{n:06d}", True, 5_000.0, 5_000.0) for n in range(DEVICES)),
    )
    telemetry = HttpTelemetry(
        directory=directory, clock=clock, token=TOKEN, settings=HttpSettings()
    )
    api = Api(application=telemetry, watch=None, settings=ApiSettings(port=0))
    fleets = [Fleet.empty(k, PARTITIONS) for k in range(PARTITIONS)]
    for fleet in fleets:
        fleet.reserve(DEVICES // PARTITIONS)
    folded = 0
    done = asyncio.Event()
    with _directory() as place:
        async with open_journal(JournalSettings(directory=place), clock) as journal:
            ingest = Ingest(journal=journal, directory=directory, clock=clock)

            async def fold(fleet: Fleet) -> None:
                nonlocal folded
                async for entries in journal.follow(partition_topic(fleet.partition), 0):
                    for entry in entries:
                        apply_entry(fleet, entry)
                        folded += len(entry.body) if isinstance(entry.body, Readings) else 0
                    if folded >= total:
                        done.set()

            async def take() -> None:
                async with telemetry.open() as link:
                    await ingest.run(link)

            with contextlib.suppress(asyncio.CancelledError):
                async with asyncio.TaskGroup() as tasks:
                    running = [
                        tasks.create_task(task)
                        for task in (api.run(), take(), *(fold(fleet) for fleet in fleets))
                    ]
                    await api.ready.wait()
                    client = await asyncio.create_subprocess_exec(
                        sys.executable, "-m", "benchmarks.http_bulk", "--port", str(api.port),
                        "--form", form, "--total", str(total),
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE.parent,
                    )  # fmt: skip
                    assert client.stdin is not None
                    assert client.stdout is not None
                    await client.stdout.readline()
                    started, cpu = time.perf_counter(), time.process_time()
                    client.stdin.write(b"go\n")
                    told = json.loads(await client.stdout.readline())
                    async with asyncio.timeout(30):
                        await done.wait()
                    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
                    await client.wait()
                    for task in running:
                        task.cancel()
    assert told["accepted"] == total, told
    assert folded == total
    return wall_s, cpu_s, told["cpu_s"]


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    # On the disk of the checkout: /tmp may live in memory, where nothing is durable.
    with tempfile.TemporaryDirectory(dir=HERE, prefix=".bench-") as path:
        yield Path(path)


def _body(form: str, seed: int) -> bytes:
    block = _block(seed)
    names = [f"dev-{n:06d}" for n in block.device_no.tolist()]
    power, soc = block.values[Metric.POWER_W].round(1), block.values[Metric.SOC].round(3)
    if form.startswith("arrow"):
        table = pa.table(
            {"device": names, "at_ns": block.measured_at_ns, "power_w": power, "soc": soc}
        )
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()
    rows = [
        b'{"device":"%b","at_ns":%d,"power_w":%.1f,"soc":%.3f}' % (name.encode(), at, p, s)
        for name, at, p, s in zip(
            names, block.measured_at_ns.tolist(), power.tolist(), soc.tolist(), strict=True
        )
    ]
    return b"\n".join(rows) if form == "ndjson" else b"[" + b",".join(rows) + b"]"


async def _send(port: int, form: str, total: int) -> None:
    lists = total // ROWS if form == "arrow-new" else 8
    bodies = [_body(form, seed) for seed in range(lists)]
    heads = [
        (
            f"POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Type: {_MEDIA[form]}\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        for body in bodies
    ]
    lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    print("ready", flush=True)
    sys.stdin.readline()
    accepted, cpu = 0, time.process_time()

    async def line(place: int) -> None:
        nonlocal accepted
        reader, writer = lines[place]
        for n in range(place, total // ROWS, CONNECTIONS):
            writer.write(heads[n % lists])
            writer.write(bodies[n % lists])
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            accepted += json.loads(await reader.readexactly(length))["accepted"]

    async with asyncio.TaskGroup() as tasks:
        for place in range(CONNECTIONS):
            tasks.create_task(line(place))
    cpu_s = time.process_time() - cpu
    print(json.dumps({"accepted": accepted, "cpu_s": cpu_s}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--form", choices=FORMATS, required=True)
    parser.add_argument("--total", type=int, required=True)
    asked = parser.parse_args()
    uvloop.run(_send(asked.port, asked.form, asked.total))
