"""Many MQTT 3.1.1 devices in one process, as cheap as they can be: the same load for any server.

Each keeps a window of QoS 1 publications unanswered and sends one for each PUBACK, all that one
read brought in one write. Prints what it saw as JSON lines.

    python -m benchmarks.mqtt_load --port 1883 --connections 1000 --window 4 --seconds 10
"""

import argparse
import asyncio
import json
import resource
import sys
import time

import uvloop

HERE = "127.0.0.1"
CONNECTS_AT_ONCE = 200
PAYLOAD = (
    b'{"at_ns":%d,"boot":1,"seq":%%d,"power_w":-1234.5,"soc":0.5512,"export_wh":1234567.0}'
    % time.time_ns()
)


class Device(asyncio.Protocol):
    """One device."""

    def __init__(self, load: "Load", number: int) -> None:
        name = f"dev-{number}".encode()
        self.load = load
        self.topic = b"v1/" + name + b"/tel"
        # Sequence numbers of one width, so that every packet has the same header.
        self.seq = 1_000_000
        size = 2 + len(self.topic) + 2 + len(PAYLOAD % self.seq)
        length = bytes((size & 0x7F | 0x80, size >> 7)) if size > 127 else bytes((size,))
        self.head = b"\x32" + length + len(self.topic).to_bytes(2, "big") + self.topic
        fields = b"\x00\x04MQTT\x04\xc2\x0e\x10"
        for text in (name, name, load.secret):
            fields += len(text).to_bytes(2, "big") + text
        self.connect = b"\x10" + bytes((len(fields),)) + fields
        self.rest = b""
        self.up = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.connect)

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost += not self.load.ending

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        if not self.up:
            assert data[:4] == b"\x20\x02\x00\x00", f"refused: {data[:8]!r}"
            self.up = True
            self.load.connected += 1
            data = data[4:]
        whole = len(data) & ~3
        self.rest = data[whole:]
        load = self.load
        load.acked += whole >> 2
        if load.running:
            self.publish([data[at : at + 2] for at in range(2, whole, 4)])

    def publish(self, packet_ids: list[bytes]) -> None:
        if not packet_ids:
            return
        head, seq = self.head, self.seq
        self.transport.write(
            b"".join(
                [head + packet_id + PAYLOAD % (seq + n) for n, packet_id in enumerate(packet_ids)]
            )
        )
        self.seq = seq + len(packet_ids)


class Load:
    """What all devices share."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.acked = self.connected = self.lost = 0
        self.running = self.ending = False


def _tell(**told: object) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


async def _main(asked: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    load = Load(asked.secret.encode())
    devices = [Device(load, number) for number in range(asked.connections)]
    for start in range(0, len(devices), CONNECTS_AT_ONCE):
        some = devices[start : start + CONNECTS_AT_ONCE]
        await asyncio.gather(
            *(loop.create_connection(lambda d=d: d, HERE, asked.port) for d in some)
        )
        async with asyncio.timeout(60):
            while load.connected < start + len(some):  # noqa: ASYNC110  (told by protocols)
                await asyncio.sleep(0.001)
    _tell(connected=load.connected)
    await loop.run_in_executor(None, sys.stdin.readline)
    load.running = True
    window = [(n + 1).to_bytes(2, "big") for n in range(asked.window)]
    for device in devices:
        device.publish(window)
    await asyncio.sleep(asked.warm_up)
    _tell(started=True)
    before, began = load.acked, time.perf_counter()
    await asyncio.sleep(asked.seconds)
    took = time.perf_counter() - began
    _tell(acked=load.acked - before, seconds=took, lost=load.lost)
    load.running, load.ending = False, True


def main() -> None:
    """Run the load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--window", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up", type=float, default=1.0)
    parser.add_argument("--secret", default="benchmark-secret")
    asked = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(_main(asked))


if __name__ == "__main__":
    main()
