"""What does a Sparkplug host pay for an edge node, a device and a DDATA, and how soon are all told?

Edge nodes of 20 devices are those of `sim/peers/sparkplug.py` on the small broker, in a process of
their own; they publish at QoS 1, so that what is acknowledged is durable (the specification wants
QoS 0, which tells nobody). The host has ingest and the SQLite journal (synchronous = FULL).
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.sparkplug_load import DEVICES

ROOT = Path(__file__).resolve().parent.parent


def run(quick: bool) -> list[dict[str, object]]:
    """Return memory, rate, processor time and the time until all are born, and told."""
    nodes = 50 if quick else 200
    seen = _measure(nodes, 3.0 if quick else 15.0)
    notes = {
        "memory": ("kB/device", f"born, {DEVICES} behind each edge node"),
        "births": ("s", "from the host's STATE until all births are durable"),
        "command": ("s", "until all have echoed their setpoint"),
        "rate": ("msg/s", "DDATA with two metrics by alias, durable"),
        "processor per DDATA": ("us/msg", "at that rate"),
    }
    return [
        {
            "name": f"sparkplug {nodes * DEVICES} devices, {name}",
            "value": round(seen[name], 3),
            "unit": unit,
            "ratio": None,
            "peer": "",
            "note": note,
        }
        for name, (unit, note) in notes.items()
    ]


def _measure(nodes: int, seconds: float) -> dict[str, float]:
    devices = nodes * DEVICES
    load = start("sparkplug_load", "--nodes", nodes, "--seconds", seconds)
    try:
        port = line(load)
        server = start(
            *("sparkplug_server", "--port", port, "--devices", devices, "--directory", ROOT)
        )
        try:
            before = line(server)
            births = ask(load, "born")
            born = ask(server, "see")
            told = ask(server, "tell")
            assert told["written"] == devices
            idle = ask(server, "see")
            flat = ask(load, "flat")
            assert not flat["dropped"]
            busy = ask(server, "see")
        finally:
            end(server)
    finally:
        end(load)
    return {
        "memory": (born["resident_kb"] - before["resident_kb"]) / devices,
        "births": births["seconds"],
        "command": told["seconds"],
        "rate": flat["acked"] / flat["seconds"],
        "processor per DDATA": (busy["cpu_s"] - idle["cpu_s"]) / flat["acked"] * 1e6,
    }


Process = subprocess.Popen[str]


def start(module: str, *words: object) -> Process:
    """Start one side of a benchmark."""
    return subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: Process, order: str) -> Any:
    """Give an order and return its answer."""
    assert process.stdin is not None
    process.stdin.write(order + "\n")
    process.stdin.flush()
    return line(process)


def line(process: Process) -> Any:
    """Return the next line of JSON."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def end(process: Process) -> None:
    """Have it end, and wait until it has."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(60)
