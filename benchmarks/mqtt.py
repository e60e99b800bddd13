"""How many QoS 1 publications a second, each acknowledged when durable, beside mosquitto?

The peer is mosquitto without persistence (its acknowledgement says: in memory) under the same load
generator in the same run. Ours runs twice: with ingest and the SQLite journal, synchronous = FULL,
and with a sink that confirms at once, which shows what the journal costs.
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
WINDOW = 4
SECRET = "benchmark-secret"


class Seen(NamedTuple):
    """One run of one server."""

    rate: float
    cpu_us: float
    """Processor time of the server per publication. [us]"""
    idle_kb: float
    """Resident memory per idle connection. [kB]"""


def run(quick: bool) -> list[dict[str, object]]:
    """Return rate, processor time and memory at 1k and 10k connections."""
    rows: list[dict[str, object]] = []
    seconds, rounds = (3.0, 1) if quick else (8.0, 3)
    for connections in (1_000, 10_000):
        seen: dict[str, list[Seen]] = {}
        # In turns, so that a busy moment of the machine meets all of them.
        for _ in range(rounds):
            for server in ("journal", "sink", "mosquitto"):
                if server != "mosquitto" or shutil.which("mosquitto"):
                    seen.setdefault(server, []).append(_measure(server, connections, seconds))
        rows += _rows(seen, connections)
    return rows


def _rows(seen: dict[str, list[Seen]], connections: int) -> list[dict[str, object]]:
    what = {
        "journal": "acknowledged when durable (ingest, SQLite, synchronous = FULL)",
        "sink": "endpoint alone, confirmed at once",
        "mosquitto": "persistence false: acknowledged from memory",
    }
    rows: list[dict[str, object]] = []
    for field, unit in (("rate", "msg/s"), ("cpu_us", "us/msg"), ("idle_kb", "kB/connection")):
        middle = {
            server: statistics.median(getattr(one, field) for one in runs)
            for server, runs in seen.items()
        }
        peer = middle.get("mosquitto")
        rows += [
            {
                "name": f"mqtt {server} {connections} connections, {field}",
                "value": round(value, 2),
                "unit": unit,
                "ratio": round(value / peer, 3) if peer and server != "mosquitto" else None,
                "peer": "mosquitto" if peer and server != "mosquitto" else "",
                "note": f"{what[server]}; window {WINDOW}",
            }
            for server, value in middle.items()
        ]
    return rows


def _measure(server: str, connections: int, seconds: float) -> Seen:
    with _serving(server, connections) as (pid, port):
        before_kb = _resident_kb(pid)
        load = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.mqtt_load", "--port", str(port),
             "--connections", str(connections), "--window", str(WINDOW),
             "--seconds", str(seconds), "--secret", SECRET],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert load.stdin is not None
        assert load.stdout is not None
        try:
            json.loads(load.stdout.readline())
            idle_kb = (_resident_kb(pid) - before_kb) / connections
            load.stdin.write("\n")
            load.stdin.flush()
            json.loads(load.stdout.readline())
            before_s = _cpu_s(pid)
            told = json.loads(load.stdout.readline())
            cpu_s = _cpu_s(pid) - before_s
        finally:
            load.stdin.close()
            load.stdout.close()
            load.wait(30)
    assert not told["lost"], f"{server} lost {told['lost']} connections"
    return Seen(told["acked"] / told["seconds"], cpu_s / max(1, told["acked"]) * 1e6, idle_kb)


@contextmanager
def _serving(server: str, devices: int) -> Iterator[tuple[int, int]]:
    if server == "mosquitto":
        with tempfile.TemporaryDirectory() as folder, _mosquitto(Path(folder)) as told:
            yield told
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.mqtt_server", "--mode", server,
         "--devices", str(devices), "--secret", SECRET, "--directory", str(ROOT)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        process.stderr.close()
        process.wait(30)


@contextmanager
def _mosquitto(folder: Path) -> Iterator[tuple[int, int]]:
    import socket
    import time

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        "log_dest none\nmax_connections -1\n"
    )
    # Started as root it drops to another user, who must be able to read its configuration.
    folder.chmod(0o755)
    process = subprocess.Popen(["mosquitto", "-c", str(config)])
    try:
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.01)
        time.sleep(0.1)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(10)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _resident_kb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    return float("nan")
