"""Plain topics on trial: a battery on aiomqtt, over mosquitto."""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import aiomqtt
from tests.adapters.broker import lasting_mosquitto
from tests.adapters.conformance.plant import enrolled, until

from kapelle.adapters.topics.endpoint import TopicsEndpoint
from kapelle.adapters.topics.settings import (
    TopicAvailability,
    TopicCommand,
    TopicScheme,
    TopicsSettings,
    TopicValue,
)
from kapelle.ports import Adapter
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock

_places = itertools.count()


def scheme(place: str) -> TopicScheme:
    """Return batteries that count charging upwards, in kW."""
    return TopicScheme(
        "battery",
        values=(TopicValue(f"{place}/{{device}}/state", "power_w", "kW", "grid.kw", "import"),),
        availability=(TopicAvailability(f"{place}/{{device}}/online", "true", "false"),),
        commands=(
            TopicCommand(f"{place}/{{device}}/set", "auto", "release", echo="auto"),
            TopicCommand(
                f"{place}/{{device}}/set", '{"kw": $value}',
                unit="kW", positive="import", echo="$value",
            ),
        ),
        state_topic=f"{place}/{{device}}/is-set",
    )  # fmt: skip


class TopicsPeer:
    """A device on topics of its own. It publishes at QoS 1, so that it shows what is stored."""

    def __init__(self, client: aiomqtt.Client, adapter: TopicsEndpoint, place: str) -> None:
        self._client = client
        self._adapter = adapter
        self._place = place
        self._told: list[float | None] = []

    async def listen(self) -> None:
        with suppress(aiomqtt.MqttError):
            async for message in self._client.messages:
                assert isinstance(message.payload, bytes)
                said = message.payload.decode()
                kw = None if said == "auto" else json.loads(said)["kw"]
                self._told.append(None if kw is None else -1e3 * kw)
                await self.say("is-set", "auto" if kw is None else str(kw))

    async def report(self, power_w: float) -> bool:
        before = self._adapter.counters.acknowledged
        await self.say("state", json.dumps({"grid": {"kw": power_w / -1e3}}))

        def stored() -> bool:
            return self._adapter.counters.acknowledged > before

        try:
            await until(stored, 1.0)
        except TimeoutError:
            return False
        return True

    async def babble(self) -> None:
        for garbage in (b"\xff\x00{", b"", b"[" * 30_000, b'{"grid": "\xc3"}', b'{"grid": []}'):
            for name in ("state", "online", "is-set"):
                await self.say(name, garbage)

    async def told(self) -> list[float | None]:
        return list(self._told)

    async def cut(self) -> None:
        # aiomqtt has no way to break a connection, which is what it is for.
        stream = self._client._client.socket()
        assert stream is not None
        stream.shutdown(socket.SHUT_RDWR)

    async def say(self, name: str, payload: str | bytes, *, retain: bool = False) -> None:
        topic = f"{self._place}/{name}"
        try:
            await self._client.publish(topic, payload, qos=1, retain=retain, timeout=5.0)
        except aiomqtt.MqttError as error:
            raise ConnectionError(str(error)) from error


class TopicsTrial:
    name = "topics"
    commands = True
    sessions = True

    def adapter(self) -> tuple[Adapter, Directory]:
        place = f"place-{next(_places)}"
        directory = enrolled("topics", "battery/bat-1")
        settings = TopicsSettings(
            port=lasting_mosquitto(), client_id=place, schemes=(scheme(place),)
        )
        endpoint = TopicsEndpoint(settings=settings, directory=directory, clock=SystemClock())
        return endpoint, directory

    def connect(self, adapter: Adapter) -> AbstractAsyncContextManager[TopicsPeer]:
        return _connected(adapter, "bat-1")

    def stranger(self, adapter: Adapter) -> AbstractAsyncContextManager[TopicsPeer]:
        return _connected(adapter, "somebody-else")


@asynccontextmanager
async def _connected(adapter: Adapter, device: str) -> AsyncIterator[TopicsPeer]:
    assert isinstance(adapter, TopicsEndpoint)
    place = f"{adapter._settings.client_id}/{device}"
    client = aiomqtt.Client(
        "127.0.0.1", lasting_mosquitto(), will=aiomqtt.Will(f"{place}/online", b"false", 1, True)
    )
    await client.__aenter__()
    try:
        await client.subscribe(f"{place}/set", qos=1)
        peer = TopicsPeer(client, adapter, place)
        listening = asyncio.ensure_future(peer.listen())
        try:
            await peer.say("online", "true", retain=True)
            if device == "bat-1":
                await until(lambda: adapter.counters.sessions)
            yield peer
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
    finally:
        with suppress(aiomqtt.MqttError):
            await client.__aexit__(None, None, None)
