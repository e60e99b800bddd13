"""How many charge points does one process carry, at what cost, and how soon has it told them all?

OCPP 1.6J over plain WebSockets, with ingest and the SQLite journal (synchronous = FULL); charge
points are those of `sim/peers/ocpp.py` in a process of their own. There is no peer to compare with:
the limit beside it is the pace of the field, one report of each charge point every 10 s.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SECRET = "benchmark-secret"
EVERY_S = 10.0


def run(quick: bool) -> list[dict[str, object]]:
    """Return memory, processor time, rate and the time of a command, for 2,000 charge points."""
    stations = 500 if quick else 2_000
    seen = _measure(stations, 5.0 if quick else 20.0)
    notes = {
        "memory": ("kB/connection", "connected, set up, idle"),
        "processor at pace": ("of a core", f"each reports every {EVERY_S:.0f} s, durable"),
        "acknowledged at pace, p99": ("ms", "MeterValues to its CALLRESULT: durable"),
        "command": ("s", "all are told, accept, and show it in their schedules"),
        "rate": ("msg/s", "each reports again once acknowledged, durable"),
        "processor per report": ("us/msg", "at that rate"),
    }
    return [
        {
            "name": f"ocpp {stations} charge points, {name}",
            "value": round(seen[name], 3),
            "unit": unit,
            "ratio": None,
            "peer": "",
            "note": note,
        }
        for name, (unit, note) in notes.items()
    ]


def _measure(stations: int, seconds: float) -> dict[str, float]:
    server = _start("benchmarks.ocpp_server", "--stations", stations, "--directory", ROOT)
    try:
        port = int(_line(server.stdout))
        before_kb = _resident_kb(server.pid)
        load = _start(
            *("benchmarks.ocpp_load", "--port", port, "--stations", stations),
            *("--every", EVERY_S, "--seconds", seconds),
        )
        try:
            _line(load.stdout)
            memory_kb = (_resident_kb(server.pid) - before_kb) / stations
            pace, pace_s = _during(server, load, load)
            commanded, _ = _during(server, load, server)
            assert commanded["written"] == stations
            assert commanded["answers"] == 2 * stations, commanded
            _tell(load)
            assert json.loads(_line(load.stdout))["told"] == stations
            flat, flat_s = _during(server, load, load)
            assert not flat["lost"]
        finally:
            _end(load)
    finally:
        _end(server)
    return {
        "memory": memory_kb,
        "processor at pace": pace_s / pace["seconds"],
        "acknowledged at pace, p99": pace["p99_ms"],
        "command": commanded["seconds"],
        "rate": flat["acked"] / flat["seconds"],
        "processor per report": flat_s / flat["acked"] * 1e6,
    }


Process = subprocess.Popen[str]


def _start(*words: object) -> Process:
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, words), "--secret", SECRET],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _during(server: Process, load: Process, who: Process) -> tuple[dict[str, Any], float]:
    """Have one of them work; return what it says and the server's processor time. [s]"""
    before_s = _cpu_s(server.pid)
    _tell(who)
    return json.loads(_line(who.stdout)), _cpu_s(server.pid) - before_s


def _tell(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def _end(process: Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(60)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _resident_kb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    return float("nan")
