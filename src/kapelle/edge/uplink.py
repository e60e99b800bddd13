"""A device's session with the plant: aiomqtt against the plant's own MQTT endpoint."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiomqtt

from kapelle.edge.settings import UplinkSettings
from kapelle.errors import LinkLost
from kapelle.runtime.supervise import leave_if_asked

_REFUSED = 0x80
_CONNECTING_MAX = 4
_COMMANDS_MAX = 64
"""Commands that wait to be looked at; the newest of a device is the only one that counts."""


class Session:
    """An open connection, subscribed to the device's commands."""

    def __init__(self, client: aiomqtt.Client, device: str) -> None:
        self._client = client
        self._device = device

    async def commands(self) -> AsyncIterator[bytes]:
        """Yield what the plant sends. Raises LinkLost."""
        try:
            async for message in self._client.messages:
                if isinstance(message.payload, bytes):
                    yield message.payload
        except aiomqtt.MqttError as error:
            raise LinkLost(_name(self._device), str(error)) from error

    async def telemetry(self, payload: bytes) -> None:
        """Return once the plant has acknowledged readings: they are durable there."""
        await self._publish("tel", payload)

    async def answer(self, payload: bytes) -> None:
        """Return once the plant has acknowledged an answer."""
        await self._publish("ack", payload)

    async def _publish(self, kind: str, payload: bytes) -> None:
        try:
            await self._client.publish(f"v1/{self._device}/{kind}", payload, qos=1)
        except aiomqtt.MqttError as error:
            raise LinkLost(_name(self._device), str(error)) from error
        # Up to Python 3.11 `asyncio.wait_for`, which aiomqtt waits with, forgets that it was
        # cancelled when the answer comes at the same moment.
        leave_if_asked()


class _Closing(ssl.SSLSocket):
    """Closes when its handshake fails: paho leaves it open until it is collected as garbage."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class Uplink:
    """The way to the plant for one device."""

    def __init__(
        self, device: str, secret: str, settings: UplinkSettings, turns: asyncio.Semaphore
    ) -> None:
        """Make it.

        Args:
            device: Its name, and user name.
            secret: Its password.
            settings: Where the plant is.
            turns: Of whoever connects, shared by all devices; see `turns_to_connect`.
        """
        self.name = _name(device)
        self._device = device
        self._secret = secret
        self._settings = settings
        self._turns = turns

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Session]:
        """Connect as the device and subscribe to its commands. Raises LinkLost."""
        try:
            client = self._client()
            async with self._turns:
                code = await _to_its_end(self._enter(client))
            try:
                leave_if_asked()
                if code >= _REFUSED:
                    raise LinkLost(self.name, "the plant refused the subscription")
                yield Session(client, self._device)
            finally:
                await client.__aexit__(None, None, None)
        except (aiomqtt.MqttError, OSError) as error:
            settings = self._settings
            why = str(error) or type(error).__name__
            where = f"the plant at {settings.host}:{settings.port}"
            raise LinkLost(self.name, f"{where}: {why}") from error

    def _client(self) -> aiomqtt.Client:
        settings = self._settings
        tls = None
        if settings.tls:
            tls = ssl.create_default_context(cafile=settings.tls_authority or None)
            tls.sslsocket_class = _Closing
        # MQTT 3.1.1: there a PUBACK means stored and nothing else, and aiomqtt reads no more.
        return aiomqtt.Client(
            settings.host,
            settings.port,
            identifier=self._device,
            username=self._device,
            password=self._secret,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=True,
            keepalive=settings.keep_alive_s,
            timeout=settings.answer_s,
            tls_context=tls,
            max_queued_incoming_messages=_COMMANDS_MAX,
        )

    async def _enter(self, client: aiomqtt.Client) -> int:
        """Connect and subscribe; return what the plant answered."""
        await client.__aenter__()
        try:
            (code,) = await client.subscribe(f"v1/{self._device}/cmd", qos=1)
        except BaseException:
            await client.__aexit__(None, None, None)
            raise
        return code if isinstance(code, int) else code.value


def turns_to_connect() -> asyncio.Semaphore:
    """Return who of an agent's devices may connect now: each attempt takes a thread of its own."""
    return asyncio.Semaphore(_CONNECTING_MAX)


async def _to_its_end(work: Coroutine[Any, Any, int]) -> int:
    """Return what some work comes to, although whoever waits is cancelled meanwhile.

    aiomqtt that is cancelled while it connects leaves a thread, a task and a socket behind, which
    nobody ends. It has deadlines of its own. Whoever calls asks `leave_if_asked` afterwards.
    """
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_caught(work))
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    made = task.result()
    if isinstance(made, Exception):
        raise made
    return made


async def _caught(work: Coroutine[Any, Any, int]) -> int | Exception:
    # Through a task group its error would arrive wrapped.
    try:
        return await work
    except (aiomqtt.MqttError, OSError) as error:
        return error


def _name(device: str) -> str:
    return f"plant/{device}"
