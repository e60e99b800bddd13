"""A device's session with the plant: aiomqtt against the plant's own MQTT endpoint."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiomqtt

from kapelle.edge.settings import UplinkSettings
from kapelle.errors import LinkLost
from kapelle.runtime.supervise import leave_if_asked

_REFUSED = 0x80
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


class Uplink:
    """The way to the plant for one device."""

    def __init__(self, device: str, secret: str, settings: UplinkSettings) -> None:
        self.name = _name(device)
        self._device = device
        self._secret = secret
        self._settings = settings

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Session]:
        """Connect as the device and subscribe to its commands. Raises LinkLost."""
        settings = self._settings
        try:
            tls = None
            if settings.tls:
                tls = ssl.create_default_context(cafile=settings.tls_authority or None)
            # MQTT 3.1.1: there a PUBACK means stored and nothing else, and aiomqtt reads no more.
            async with aiomqtt.Client(
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
            ) as client:
                (code,) = await client.subscribe(f"v1/{self._device}/cmd", qos=1)
                if (code if isinstance(code, int) else code.value) >= _REFUSED:
                    raise LinkLost(self.name, "the plant refused the subscription")
                leave_if_asked()
                yield Session(client, self._device)
        except (aiomqtt.MqttError, OSError) as error:
            raise LinkLost(self.name, str(error) or type(error).__name__) from error


def _name(device: str) -> str:
    return f"plant/{device}"
