"""How many SunSpec devices can one edge agent read, and what does a reading cost it?

The devices are pysunspec2's `device_1547`, one served by each of several sockets of a process of
its own (a bare answering machine, so that it is not the bottleneck). Readings go through the
agent's own survey, poll, encoding and buffer; the peer is pysunspec2's client, which reads the same
models.
"""

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNIT = 1
MODELS = (701, 702, 703, 704, 713)
"""What the agent reads of this device at each poll."""


def run(quick: bool) -> list[dict[str, object]]:
    """Return readings a second, processor time and memory per device, and the buffer's rate."""
    devices, seconds = (20, 2.0) if quick else (200, 8.0)
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sunspec", str(devices)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            ports: list[int] = json.loads(process.stdout.readline())
            ours = asyncio.run(_agent(ports, seconds))
            theirs = _pysunspec2(ports[0], seconds / 2)
        finally:
            process.terminate()
            process.wait()
        kept, sent = _buffer(Path(folder), 20_000 if quick else 200_000)
    rate, cpu_us, size_kb = ours
    note = f"{devices} devices as fast as they answer"
    return [
        _line("readings", rate, "1/s", rate / theirs, note),
        _line("processor", cpu_us, "us/reading", None, "survey left out; the agent alone"),
        _line("memory", size_kb, "kB/device", None, "connection, models, tasks"),
        _line("kept", kept, "readings/s", None, "to disk, synchronous = FULL, 1,000 at once"),
        _line("caught up", sent, "readings/s", None, "read and forgotten in batches of 150"),
    ]


def _line(name: str, value: float, unit: str, ratio: float | None, note: str) -> dict[str, object]:
    return {
        "name": name, "value": round(value, 1), "unit": unit,
        "ratio": None if ratio is None else round(ratio, 2),
        "peer": "pysunspec2, one device" if ratio is not None else "", "note": note,
    }  # fmt: skip


async def _agent(ports: list[int], seconds: float) -> tuple[float, float, float]:
    from kapelle.adapters.sunspec.link import Line
    from kapelle.adapters.sunspec.settings import DeviceSettings
    from kapelle.adapters.sunspec.unit import Unit
    from kapelle.edge import wire
    from kapelle.runtime.clock import SystemClock

    clock = SystemClock()
    before = _resident_kb()
    lines = [Line("127.0.0.1", port, answer_s=10.0) for port in ports]
    units = [
        Unit(line, DeviceSettings(f"d{n}", "127.0.0.1", port), clock)
        for n, (line, port) in enumerate(zip(lines, ports, strict=True))
    ]
    for unit in units:
        await unit.poll(float("nan"))
    size_kb = (_resident_kb() - before) / len(units)
    count = 0
    ends = time.perf_counter() + seconds
    cpu = time.process_time()

    async def poll(unit: Unit) -> None:
        nonlocal count
        while time.perf_counter() < ends:
            values, at_ns = await unit.poll(float("nan"))
            wire.telemetry(values, at_ns, 1, count)
            count += 1

    async with asyncio.TaskGroup() as group:
        for unit in units:
            group.create_task(poll(unit))
    cpu_us = (time.process_time() - cpu) / count * 1e6
    for line in lines:
        line.close()
    return count / seconds, cpu_us, size_kb


def _pysunspec2(port: int, seconds: float) -> float:
    """Return how often a second pysunspec2 reads the same models of one device."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

        device = SunSpecModbusClientDeviceTCP(slave_id=UNIT, ipaddr="127.0.0.1", ipport=port)
        device.connect()
        device.scan(connect=False)
        count, ends = 0, time.perf_counter() + seconds
        while time.perf_counter() < ends:
            for model in MODELS:
                device.models[model][0].read()
            count += 1
        device.disconnect()
    return count / seconds


def _buffer(folder: Path, count: int) -> tuple[float, float]:
    from kapelle.edge.buffer import Buffer
    from kapelle.edge.settings import BufferSettings
    from kapelle.model.enums import Metric

    now_ns = time.time_ns()
    buffer = Buffer(BufferSettings(folder / "edge.db", rows_max=10_000_000), now_ns)
    values = {Metric.POWER_W: -2_000.0, Metric.SOC: 0.5, Metric.IMPORT_WH: 1e6}

    def keep() -> None:
        for _ in range(count // 1_000):
            for _ in range(1_000):
                buffer.add("a", values, now_ns)
            buffer.flush(now_ns)

    def send() -> None:
        while rows := buffer.stored("a", 150):
            buffer.confirm("a", rows)

    rates = count / _timed(keep), count / _timed(send)
    buffer.close(now_ns)
    return rates


def _timed(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _resident_kb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024


async def _answer(count: int) -> None:
    """Be the devices: read requests only, from registers that do not move."""
    from tests.adapters.sunspec.inverter import Inverter

    inverter = Inverter()
    raw = b"".join(word.to_bytes(2, "big") for word in inverter.registers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(12):
            at = 2 * (int.from_bytes(asked[8:10], "big") - inverter.base)
            size = 2 * int.from_bytes(asked[10:12], "big")
            head = asked[:4] + (size + 3).to_bytes(2, "big") + asked[6:7]
            writer.write(head + bytes([3, size]) + raw[at : at + size])

    servers = [await asyncio.start_server(serve, "127.0.0.1", 0) for _ in range(count)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    # Until whoever started it is gone.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_answer(int(sys.argv[1])))
