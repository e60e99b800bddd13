"""The MQTT endpoint on trial, with aiomqtt as its device."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import aiomqtt
from tests.adapters.conformance.plant import DEVICE, SECRET, enrolled

from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.mqtt.settings import MqttSettings
from kapelle.ports import Adapter
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock


class MqttPeer:
    """A device that keeps to `docs/adapters/mqtt.md`."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._told: list[float | None] = []

    async def listen(self) -> None:
        clock = SystemClock()
        with suppress(aiomqtt.MqttError):
            async for message in self._client.messages:
                assert isinstance(message.payload, bytes)
                command = json.loads(message.payload)
                if command["not_after_ns"] >= clock.now_ns():
                    self._told.append(command["setpoint_w"])

    async def report(self, power_w: float) -> bool:
        try:
            payload = json.dumps({"power_w": power_w})
            await self._client.publish(f"v1/{DEVICE}/tel", payload, qos=1, timeout=1.0)
        except aiomqtt.MqttError:
            return False
        return True

    async def babble(self) -> None:
        for garbage in (b"\xff\x00{", b'{"power_w": "much"}', b"[" * 2_000):
            await self._client.publish(f"v1/{DEVICE}/tel", garbage, qos=0)

    async def told(self) -> list[float | None]:
        return list(self._told)

    async def cut(self) -> None:
        # aiomqtt has no way to break a connection, which is what it is for.
        stream = self._client._client.socket()
        assert stream is not None
        stream.shutdown(socket.SHUT_RDWR)


class MqttTrial:
    name = "mqtt"
    commands = True
    sessions = True

    def adapter(self) -> tuple[Adapter, Directory]:
        directory = enrolled("mqtt")
        settings = MqttSettings(port=0)
        return MqttEndpoint(settings=settings, directory=directory, clock=SystemClock()), directory

    def connect(self, adapter: Adapter) -> AbstractAsyncContextManager[MqttPeer]:
        return _connected(adapter, SECRET)

    def stranger(self, adapter: Adapter) -> AbstractAsyncContextManager[MqttPeer]:
        return _connected(adapter, "a wrong secret")


@asynccontextmanager
async def _connected(adapter: Adapter, secret: str) -> AsyncIterator[MqttPeer]:
    assert isinstance(adapter, MqttEndpoint)
    client = aiomqtt.Client(
        "127.0.0.1", adapter.port, identifier=DEVICE, username=DEVICE, password=secret
    )
    try:
        await client.__aenter__()
    except aiomqtt.MqttError as refused:
        raise ConnectionError(str(refused)) from refused
    try:
        await client.subscribe(f"v1/{DEVICE}/cmd", qos=1)
        peer = MqttPeer(client)
        listening = asyncio.ensure_future(peer.listen())
        try:
            yield peer
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
    finally:
        with suppress(aiomqtt.MqttError):
            await client.__aexit__(None, None, None)
