"""Clients nobody here wrote: paho and aiomqtt in both versions, mosquitto's tools, TLS, uvloop."""

import asyncio
import json
import shutil
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
import uvloop
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from tests.adapters.mqtt.conftest import VERSIONS

from kapelle.model.enums import AckStatus, SessionEvent

pytestmark = pytest.mark.integration

LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Paho:
    """A paho client with its own thread, as integrators use it."""

    def __init__(self, version: int, name: str = "dev-1", authority: Path | None = None) -> None:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=version)
        self.client.username_pw_set(name, f"{name}!")
        if authority is not None:
            self.client.tls_set(str(authority))
        self.commands: list[dict[str, Any]] = []
        self.reasons: list[Any] = []
        self.connected, self.gone, self.subscribed = (threading.Event() for _ in range(3))
        self.client.on_connect = lambda *_: self.connected.set()
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_disconnect = self._ended
        self.client.on_message = lambda _c, _u, m: self.commands.append(json.loads(m.payload))

    def _ended(self, _client: Any, _user: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.reasons.append(reason)
        self.gone.set()

    async def connect(self, port: int) -> None:
        await asyncio.to_thread(self.client.connect, "localhost", port, 30)
        self.client.loop_start()
        assert await asyncio.to_thread(self.connected.wait, 5)

    async def publish(self, topic: str, payload: str, qos: int, properties: Any = None) -> None:
        told = self.client.publish(topic, payload, qos, properties=properties)
        await asyncio.to_thread(told.wait_for_publish, 5)
        assert told.is_published()

    async def stop(self) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)


@LOOPS
@VERSIONS
def test_paho(open_plant: Any, make_commands: Any, run: Callable[..., None], version: int) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            device = Paho(version)
            device.client.will_set("v1/dev-1/evt", "gone", 1)
            await device.connect(plant.port)
            for qos in (0, 1):
                await device.publish("v1/dev-1/tel", f'{{"power_w": {qos}}}', qos)
            if version == 4:
                await device.publish("v1/dev-1/tel", '{"power_w": 2}', 2)
            else:
                properties = Properties(paho.PacketTypes.PUBLISH)
                properties.ContentType = "application/json"
                properties.UserProperty = ("a", "b")
                await device.publish("v1/dev-1/tel", '{"power_w": 2}', 1, properties)
            await plant.until(lambda: sorted(plant.power_w) == [0, 1, 2])
            device.client.subscribe("v1/dev-1/cmd", 1)
            assert await asyncio.to_thread(device.subscribed.wait, 5)
            assert (await plant.link.send(make_commands(1))).all()
            await plant.until(lambda: plant.acks == [(1, 1, -1, AckStatus.RECEIVED)])
            await plant.until(lambda: len(device.commands) == 1)
            assert device.commands[0]["setpoint_w"] == 1500.0
            answer = '{"revision": 1, "epoch": 2, "status": "applied"}'
            await device.publish("v1/dev-1/ack", answer, 1)
            assert plant.acks[-1] == (1, 1, 2, AckStatus.APPLIED)
            device.client._sock_close()  # cut, without a goodbye
            await plant.until(lambda: (1, SessionEvent.WILL) in plant.sessions)
            await device.stop()

    run(check())


@VERSIONS
def test_paho_is_taken_over(open_plant: Any, version: int) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            older, newer = Paho(version), Paho(version)
            older.client.reconnect_delay_set(60, 60)
            await older.connect(plant.port)
            await newer.connect(plant.port)
            assert await asyncio.to_thread(older.gone.wait, 5)
            if version == 5:
                assert older.reasons[0].value == 0x8E
            await newer.publish("v1/dev-1/tel", '{"power_w": 1}', 1)
            assert plant.counters.takeovers == 1
            await older.stop()
            await newer.stop()

    asyncio.run(check())


@LOOPS
@VERSIONS
def test_paho_over_tls(
    open_plant: Any, certificate: tuple[Path, Path], run: Callable[..., None], version: int
) -> None:
    cert, key = certificate

    async def check() -> None:
        tls = {"tls_certificate": str(cert), "tls_key": str(key)}
        async with open_plant(host="0.0.0.0", **tls) as plant:
            device = Paho(version, authority=cert)
            await device.connect(plant.port)
            await device.publish("v1/dev-1/tel", '{"power_w": 1}', 1)
            # Plaintext on a TLS port, and a client that does not trust us: counted, no harm.
            stream, out = await asyncio.open_connection("127.0.0.1", plant.port)
            out.write(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
            assert not (await stream.read(100)).startswith(b"\x20")
            out.close()
            with pytest.raises(ssl.SSLError):
                await asyncio.open_connection(
                    "localhost", plant.port, ssl=ssl.create_default_context()
                )
            await plant.until(lambda: plant.counters.refused["TLS handshake"] >= 1)
            await device.publish("v1/dev-1/tel", '{"power_w": 2}', 1)
            assert plant.power_w == [1, 2]
            await device.stop()

    run(check())


@LOOPS
@pytest.mark.parametrize("version", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
def test_aiomqtt(
    open_plant: Any, make_commands: Any, run: Callable[..., None], version: aiomqtt.ProtocolVersion
) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            async with aiomqtt.Client(
                "127.0.0.1",
                plant.port,
                identifier="dev-2",
                username="dev-2",
                password="dev-2!",
                protocol=version,
            ) as device:
                await device.publish("v1/dev-2/tel", '[{"power_w": 1}, {"power_w": 2}]', qos=1)
                assert plant.power_w == [1, 2]
                await device.subscribe("v1/dev-2/cmd", qos=1)
                await plant.link.send(make_commands(2))
                message = await anext(aiter(device.messages))
                assert json.loads(message.payload)["revision"] == 1
                await plant.until(lambda: plant.acks == [(2, 1, -1, AckStatus.RECEIVED)])
            await plant.until(lambda: (2, SessionEvent.DOWN) in plant.sessions)
            with pytest.raises(aiomqtt.MqttError):
                async with aiomqtt.Client("127.0.0.1", plant.port, protocol=version):
                    pass

    run(check())


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_pub_and_sub(open_plant: Any, make_commands: Any, version: str) -> None:
    if shutil.which("mosquitto_pub") is None:
        pytest.skip("needs mosquitto_pub and mosquitto_sub (Debian: mosquitto-clients)")

    async def mosquitto(what: str, port: int, *more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            f"mosquitto_{what}", "-V", version, "-p", str(port), "-i", "dev-3", "-u", "dev-3",
            "-P", "dev-3!", "-q", "1", *more,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def check() -> None:
        async with open_plant() as plant:
            report = ("-t", "v1/dev-3/tel", "-m", '{"power_w": 5}')
            told = await mosquitto("pub", plant.port, *report)
            await told.communicate()
            assert told.returncode == 0
            assert plant.power_w == [5]
            waiting = await mosquitto("sub", plant.port, "-t", "v1/dev-3/cmd", "-C", "1")
            async with asyncio.timeout(5):
                while not (await plant.link.send(make_commands(3)))[0]:  # noqa: ASYNC110  (SUBSCRIBE tells nobody)
                    await asyncio.sleep(0.02)
                out, _ = await waiting.communicate()
            assert json.loads(out)["revision"] == 1
            await plant.until(lambda: plant.acks == [(3, 1, -1, AckStatus.RECEIVED)])
            for topic in ("#", "v1/+/tel"):
                spy = await mosquitto("sub", plant.port, "-t", topic, "-W", "1", "-d")
                out, err = await spy.communicate()
                assert b"received SUBACK" not in out + err
            assert plant.counters.refused["subscribe with wildcard"] >= 2

    asyncio.run(check())
