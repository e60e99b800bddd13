"""An endpoint with a directory of ten devices and a consumer that confirms, holds or declines."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kapelle.adapters.mqtt import reader, writer
from kapelle.adapters.mqtt.bridge import BrokerClient
from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.mqtt.packets import Disconnect, Packet, SubAck, parse
from kapelle.adapters.mqtt.reader import Reason
from kapelle.adapters.mqtt.settings import BrokerSettings, MqttSettings
from kapelle.errors import LinkLost
from kapelle.model.blocks import Commands, Sessions
from kapelle.ports import Batch
from kapelle.runtime.clock import SystemClock

VERSIONS = pytest.mark.parametrize("version", [4, 5])


def tel(version: int, power_w: int, packet_id: int, *, qos: int = 1, number: int = 0) -> bytes:
    """Return a publication of power by a device."""
    topic = f"v1/dev-{number}/tel".encode()
    return writer.publish(version, topic, b'{"power_w": %d}' % power_w, qos, packet_id)


class FakeDirectory:
    """Devices dev-0 … dev-9; the secret of each is its name and `!`."""

    partitions = 4
    count = 10
    version = 0

    def __init__(self) -> None:
        self.generations = np.zeros(self.count, np.int32)

    def remove_from(self, device_no: int) -> None:
        self.count = device_no
        self.version += 1

    def rotate(self, device_no: int) -> None:
        """Replace a secret; nobody here tries to come back, so the new one is the old one."""
        self.generations[device_no] += 1
        self.version += 1

    def resolve(self, names: Sequence[str]) -> np.ndarray:
        known = {f"dev-{number}": number for number in range(self.count)}
        return np.array([known.get(name, -1) for name in names], np.int32)

    def name(self, device_no: int) -> str:
        return f"dev-{device_no}"

    def authenticate(self, name: str, secret: str) -> int | None:
        number = int(self.resolve([name])[0])
        return number if number >= 0 and secret == f"{name}!" else None

    def generation(self, device_no: np.ndarray) -> np.ndarray:
        return np.where(device_no < self.count, self.generations[device_no], -1)

    def nameplate(self, device_no: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(device_no), 5e3), np.full(len(device_no), 5e3)


class Raw:
    """A client that sends exactly the bytes it is told to."""

    def __init__(self, stream: asyncio.StreamReader, out: asyncio.StreamWriter, version: int):
        self.stream, self.out, self.version = stream, out, version
        self.buffer = b""

    def send(self, *packets: bytes) -> None:
        self.out.write(b"".join(packets))

    async def next(self, wait_s: float = 5.0) -> Packet | None:
        """Return the next packet, None at the end of the connection."""
        async with asyncio.timeout(wait_s):
            while True:
                if self.buffer:
                    body, stop = reader.frame(self.buffer, 0, 1 << 20)
                    if stop <= len(self.buffer):
                        packet = parse(self.buffer, 0, body, stop, self.version)
                        self.buffer = self.buffer[stop:]
                        return packet
                try:
                    more = await self.stream.read(65_536)
                except ConnectionError:
                    return None
                if not more:
                    return None
                self.buffer += more

    async def hears_the_end(self, reason: Reason) -> None:
        """Expect to be told that the connection ends, and why."""
        last = await self.next()
        assert isinstance(last, Disconnect)
        assert last.code == reason

    async def silent(self, for_s: float = 0.15) -> bool:
        try:
            await self.next(for_s)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self.out.close()


class Plant:
    """The endpoint, and what a consumer got from it."""

    def __init__(self, endpoint: Any, link: Any, clients: list[Raw]) -> None:
        self.endpoint, self.link, self.clients = endpoint, link, clients
        self.mode: str | Callable[[Batch], dict[int, str]] = "confirm"
        self.batches: list[Batch] = []
        self.held: list[Batch] = []
        self.power_w: list[float] = []
        self.acks: list[tuple[int, int, int, int]] = []
        self.sessions: list[tuple[int, int]] = []
        self.session_blocks: list[Sessions] = []
        self.reasons: list[str] = []
        self.raw: list[bytes] = []
        self.lost = ""
        self.gate = asyncio.Event()
        """Cleared, the consumer asks for nothing more."""
        self.gate.set()

    @property
    def port(self) -> int:
        return self.endpoint.port

    @property
    def counters(self) -> Any:
        return self.endpoint.counters

    async def consume(self) -> None:
        try:
            await self._consume()
        except LinkLost as error:
            self.lost = error.reason

    async def _consume(self) -> None:
        async for batch in self.link.receive():
            await self.gate.wait()
            self.batches.append(batch)
            if batch.readings is not None:
                for values in batch.readings.values.values():
                    self.power_w += values.tolist()
                self.raw += [batch.raw(row) for row in range(len(batch.readings))]
            if batch.acks is not None:
                a = batch.acks
                self.acks += zip(
                    a.device_no.tolist(),
                    a.revision.tolist(),
                    a.epoch.tolist(),
                    a.status.tolist(),
                    strict=True,
                )
            if batch.sessions is not None:
                s = batch.sessions
                self.session_blocks.append(s)
                self.sessions += zip(s.device_no.tolist(), s.event.tolist(), strict=True)
            if batch.unreadable is not None:
                self.reasons += [reason.decode() for reason in batch.unreadable.reason]
            if self.mode == "confirm":
                self.link.confirm(batch, {})
            elif self.mode == "decline":
                self.link.decline(batch, "journal full")
            elif self.mode == "hold":
                self.held.append(batch)
            else:
                self.link.confirm(batch, self.mode(batch))

    async def until(self, condition: Callable[[], bool], wait_s: float = 5.0) -> None:
        async with asyncio.timeout(wait_s):
            while not condition():  # noqa: ASYNC110  (anything may be waited for)
                await asyncio.sleep(0.005)

    async def raw_client(self, version: int = 4) -> Raw:
        stream, out = await asyncio.open_connection("127.0.0.1", self.port)
        client = Raw(stream, out, version)
        self.clients.append(client)
        return client

    async def device(self, number: int = 0, version: int = 4, **more: Any) -> Raw:
        """Connect as a device and expect to be accepted."""
        client = await self.raw_client(version)
        name = f"dev-{number}"
        client.send(writer.connect(version, name, username=name, password=f"{name}!", **more))
        answer = await client.next()
        assert answer is not None
        assert answer.code == 0  # type: ignore[union-attr]  # CONNACK
        return client

    async def obedient(self, number: int = 0, version: int = 4, qos: int = 1) -> Raw:
        """Connect as a device that listens to its commands."""
        device = await self.device(number, version=version)
        device.send(writer.subscribe(version, 5, [(f"v1/dev-{number}/cmd", qos)]))
        assert await device.next() == SubAck(reader.SUBACK, 5, bytes((qos,)))
        return device


def commands(*device_no: int, revision: int = 1, ttl_s: float = 60.0) -> Commands:
    count = len(device_no)

    def whole(value: int, dtype: type = np.int64) -> np.ndarray:
        return np.full(count, value, dtype)

    now_ns = SystemClock().now_ns()
    return Commands(
        device_no=np.array(device_no, np.int32),
        order_no=whole(3, np.int32),
        revision=whole(revision),
        epoch=whole(2),
        attempt=whole(1, np.int32),
        setpoint_w=np.full(count, 1500.0),
        issued_at_ns=whole(now_ns),
        not_after_ns=whole(now_ns + int(ttl_s * 1e9)),
        ttl_s=np.full(count, ttl_s),
        revert_s=np.full(count, 300.0),
    )


OpenPlant = Callable[..., AbstractAsyncContextManager[Plant]]


@asynccontextmanager
async def _running(adapter: Any) -> AsyncIterator[Plant]:
    clients: list[Raw] = []
    try:
        async with adapter.open() as link, asyncio.TaskGroup() as tasks:
            plant = Plant(adapter, link, clients)
            consumer = tasks.create_task(plant.consume())
            try:
                yield plant
            finally:
                consumer.cancel()
    finally:
        await asyncio.sleep(0.01)
        for client in clients:
            client.out.transport.abort()
        await asyncio.sleep(0.01)


def _opener(adapter: Callable[..., Any], usual: MqttSettings | BrokerSettings) -> OpenPlant:
    def opened(**changes: Any) -> AbstractAsyncContextManager[Plant]:
        settings = replace(usual, **changes)
        return _running(adapter(settings=settings, directory=FakeDirectory(), clock=SystemClock()))

    return opened


@pytest.fixture
def open_plant() -> OpenPlant:
    return _opener(MqttEndpoint, MqttSettings(port=0, linger_s=0.001))


@pytest.fixture
def open_broker_client() -> OpenPlant:
    return _opener(BrokerClient, BrokerSettings(linger_s=0.001))


@pytest.fixture
def make_commands() -> Callable[..., Commands]:
    return commands


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a self-signed certificate for localhost and its key."""
    import shutil
    import subprocess

    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command: it makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return cert, key
