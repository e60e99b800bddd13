"""The Sparkplug host on trial: an edge node on aiomqtt, over mosquitto."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import aiomqtt
from tests.adapters.broker import lasting_mosquitto
from tests.adapters.conformance.plant import enrolled, until

from kapelle.adapters.sparkplug import codec
from kapelle.adapters.sparkplug.codec import DOUBLE, UINT64
from kapelle.adapters.sparkplug.endpoint import SparkplugEndpoint
from kapelle.adapters.sparkplug.settings import SparkplugMetric, SparkplugSettings
from kapelle.ports import Adapter
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock

_METRICS = (
    SparkplugMetric("Power", "power_w", "kW", "import"),
    SparkplugMetric("Setpoint", "setpoint_w", "kW", "import"),
)
_groups = itertools.count()


class SparkplugPeer:
    """A device behind an edge node. It publishes at QoS 1, so that it shows what is stored."""

    def __init__(self, client: aiomqtt.Client, adapter: SparkplugEndpoint, device: str) -> None:
        self._client = client
        self._adapter = adapter
        self._group = adapter._settings.groups[0]
        self._device = device
        self._told: list[float | None] = []

    async def born(self) -> None:
        await self._say("NBIRTH", codec.encode(codec.BDSEQ, UINT64, 0, 0))
        await self._say("DBIRTH", codec.encode("Setpoint", DOUBLE, None, 0))

    async def listen(self) -> None:
        with suppress(aiomqtt.MqttError):
            async for message in self._client.messages:
                assert isinstance(message.payload, bytes)
                payload = codec.decode(message.payload)
                assert isinstance(payload, codec.Payload)
                for metric in payload.metrics:
                    if metric.name == "Setpoint":
                        value = metric.value
                        self._told.append(None if value is None else -1e3 * value)

    async def report(self, power_w: float) -> bool:
        before = self._adapter.counters.acknowledged
        await self._say("DDATA", codec.encode("Power", DOUBLE, power_w / -1e3, 0))

        def stored() -> bool:
            return self._adapter.counters.acknowledged > before

        try:
            await until(stored, 1.0)
        except TimeoutError:
            return False
        return True

    async def babble(self) -> None:
        for garbage in (b"\xff\x00{", b"", b"\x12\x00" * 30_000, b"\x0b" * 1_000):
            await self._say("DDATA", garbage)

    async def told(self) -> list[float | None]:
        return list(self._told)

    async def cut(self) -> None:
        # aiomqtt has no way to break a connection, which is what it is for.
        stream = self._client._client.socket()
        assert stream is not None
        stream.shutdown(socket.SHUT_RDWR)

    async def _say(self, kind: str, payload: bytes) -> None:
        device = f"/{self._device}" if kind.startswith("D") else ""
        topic = f"spBv1.0/{self._group}/{kind}/edge{device}"
        try:
            await self._client.publish(topic, payload, qos=1, timeout=5.0)
        except aiomqtt.MqttError as error:
            raise ConnectionError(str(error)) from error


class SparkplugTrial:
    name = "sparkplug"
    commands = True
    sessions = True

    def adapter(self) -> tuple[Adapter, Directory]:
        group = f"group-{next(_groups)}"
        directory = enrolled("sparkplug", f"{group}/edge/battery")
        settings = SparkplugSettings(
            port=lasting_mosquitto(),
            client_id=group,
            host_id=group,
            groups=(group,),
            metrics=_METRICS,
        )
        endpoint = SparkplugEndpoint(settings=settings, directory=directory, clock=SystemClock())
        return endpoint, directory

    def connect(self, adapter: Adapter) -> AbstractAsyncContextManager[SparkplugPeer]:
        return _connected(adapter, "battery")

    def stranger(self, adapter: Adapter) -> AbstractAsyncContextManager[SparkplugPeer]:
        return _connected(adapter, "somebody-else")


@asynccontextmanager
async def _connected(adapter: Adapter, device: str) -> AsyncIterator[SparkplugPeer]:
    assert isinstance(adapter, SparkplugEndpoint)
    group = adapter._settings.groups[0]
    death = codec.encode(codec.BDSEQ, UINT64, 0, 0)
    client = aiomqtt.Client(
        "127.0.0.1", lasting_mosquitto(), will=aiomqtt.Will(f"spBv1.0/{group}/NDEATH/edge", death)
    )
    await client.__aenter__()
    try:
        await client.subscribe(f"spBv1.0/{group}/DCMD/edge/{device}", qos=0)
        peer = SparkplugPeer(client, adapter, device)
        listening = asyncio.ensure_future(peer.listen())
        try:
            await peer.born()
            if device == "battery":
                await until(lambda: adapter.counters.sessions)
            yield peer
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
    finally:
        with suppress(aiomqtt.MqttError):
            await client.__aexit__(None, None, None)
