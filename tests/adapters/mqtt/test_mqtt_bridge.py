"""Consuming from a broker the user runs: nothing is acknowledged before the journal has it."""

import asyncio
import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from tests.adapters.broker import mosquitto
from tests.adapters.mqtt.conftest import VERSIONS

from kapelle.adapters.mqtt.client import Connection, connected
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.mqtt.settings import ClientSettings
from kapelle.errors import Invalid, LinkLost
from kapelle.model.enums import AckStatus, SessionEvent
from kapelle.runtime.clock import SystemClock


@pytest.mark.integration
@VERSIONS
def test_unacknowledged_publications_come_again(open_broker_client: Any, version: int) -> None:
    async def check() -> None:
        async with (
            mosquitto() as port,
            aiomqtt.Client("127.0.0.1", port, identifier="gateway") as gateway,
        ):
            settings = {"port": port, "version": version}
            async with open_broker_client(**settings) as plant:
                await gateway.publish("v1/dev-1/tel", '{"power_w": 1}', qos=1)
                await gateway.publish("v1/nobody/tel", '{"power_w": 1}', qos=1)
                await gateway.publish("v1/dev-2/tel", "garbage", qos=1)
                await gateway.publish(
                    "v1/dev-1/ack", '{"revision": 4, "epoch": 2, "status": "applied"}', qos=1
                )
                await plant.until(lambda: len(plant.acks) == 1 and len(plant.reasons) == 2)
                assert plant.power_w == [1]
                assert plant.acks == [(1, 4, 2, AckStatus.APPLIED)]
                assert plant.reasons[0].startswith("device: nobody: is not enrolled")
                assert plant.sessions == [(1, SessionEvent.UP), (2, SessionEvent.UP)]
                plant.mode = "hold"
                for power_w in (2, 3):
                    await gateway.publish("v1/dev-1/tel", f'{{"power_w": {power_w}}}', qos=1)
                await plant.until(lambda: plant.power_w == [1, 2, 3])
                plant.link.broker.connection._transport.abort()  # as good as kill -9
                await plant.until(lambda: bool(plant.lost))
            await gateway.publish("v1/dev-1/tel", '{"power_w": 4}', qos=1)
            async with open_broker_client(**settings) as plant:
                await plant.until(lambda: plant.power_w == [2, 3, 4])
            async with open_broker_client(**settings) as plant:
                await asyncio.sleep(0.1)
                assert plant.power_w == []  # acknowledged once is gone
                plant.mode = "decline"
                await gateway.publish("v1/dev-1/tel", '{"power_w": 5}', qos=1)
                await plant.until(lambda: plant.counters.declined == 1 and bool(plant.lost))
            async with open_broker_client(**settings) as plant:
                await plant.until(lambda: plant.power_w == [5])

    asyncio.run(check())


@pytest.mark.integration
@VERSIONS
def test_commands_reach_devices_heard_before(
    open_broker_client: Any, make_commands: Any, version: int
) -> None:
    async def check() -> None:
        async with (
            mosquitto() as port,
            aiomqtt.Client("127.0.0.1", port, identifier="gateway") as gateway,
            open_broker_client(port=port, version=version) as plant,
        ):
            await gateway.subscribe("v1/dev-1/cmd", qos=1)
            assert not (await plant.link.send(make_commands(1))).any()
            await gateway.publish("v1/dev-1/tel", '{"power_w": 1}', qos=1)
            await plant.until(lambda: plant.power_w == [1])
            assert (await plant.link.send(make_commands(1, 2))).tolist() == [True, False]
            message = await anext(aiter(gateway.messages))
            assert json.loads(message.payload)["key"] == "3/1/1"
            assert not message.retain
            await plant.until(lambda: plant.counters.commands_received == 1)
            assert plant.acks == []  # the broker's word is not the device's

    asyncio.run(check())


def test_no_broker_is_a_lost_link(open_broker_client: Any) -> None:
    async def check() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            with pytest.raises(LinkLost):
                async with open_broker_client(port=free.getsockname()[1]):
                    pass

        async def hangs_up(_stream: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
            out.write(b"\x20\x02\x00\x05")
            out.close()

        server = await asyncio.start_server(hangs_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LinkLost, match="0x05"):
            async with open_broker_client(port=port, version=4):
                pass
        server.close()
        await server.wait_closed()

    asyncio.run(check())


class Slow(asyncio.Protocol):
    """A broker that takes us and our subscriptions, and reads what follows only when it is told."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.read = 0

    def data_received(self, data: bytes) -> None:
        self.read += len(data)
        if self.read == len(data):
            self.transport.write(b"\x20\x02\x00\x00\x90\x04\x00\x01\x01\x01")
            self.transport.pause_reading()


class Nobody:
    """Hears what a broker has, and only whether it is lost."""

    connection: Connection
    lost = ""

    def on_made(self, connection: Connection) -> None:
        self.connection = connection

    def on_published(self, *_: Any) -> None:
        raise AssertionError

    def on_read(self) -> None:
        """All of it."""

    def on_answered(self) -> None:
        raise AssertionError

    def on_lost(self, reason: str) -> None:
        self.lost = self.lost or reason


def test_a_burst_waits_for_a_broker_that_reads_slowly_and_one_that_does_not_is_lost() -> None:
    async def check() -> None:
        brokers: list[Slow] = []

        def accept() -> Slow:
            brokers.append(Slow())
            return brokers[-1]

        server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
        nobody, settings = Nobody(), ClientSettings(
            port=server.sockets[0].getsockname()[1], version=4, connect_s=1.5
        )  # fmt: skip
        async with (
            asyncio.timeout(20),
            server,
            connected(
                "test", settings, ["a", "b"], nobody, clock=SystemClock(), counters=Counters()
            ),
        ):
            wire, block = nobody.connection, bytes(100_000)
            while wire.publish("a", block, qos=0):
                pass
            brokers[0].transport.resume_reading()
            await wire.room()
            assert not nobody.lost
            assert wire.publish("a", block, qos=0)
            brokers[0].transport.pause_reading()
            while not nobody.lost:
                # The kernel takes some of it for a broker that does not read.
                wire.publish("a", block, qos=0)
                await wire.room()
                await asyncio.sleep(0)
            assert nobody.lost.startswith("the broker at 127.0.0.1:")
            assert nobody.lost.endswith("the broker does not read")
            brokers[0].transport.abort()

    asyncio.run(check())


@pytest.mark.integration
@pytest.mark.parametrize("version", [4, 5])
def test_a_broker_with_tls_and_a_password(
    open_broker_client: Any, certificate: tuple[Path, Path], tmp_path: Path, version: int
) -> None:
    authority, key = certificate
    words = tmp_path / "words"
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("needs mosquitto_passwd (Debian: mosquitto)")
    subprocess.run(["mosquitto_passwd", "-b", "-c", words, "plant", "a secret"], check=True)

    async def check() -> None:
        tls = (f"certfile {authority}", f"keyfile {key}")
        async with mosquitto(*tls, "allow_anonymous false", f"password_file {words}") as port:
            right = {
                "port": port, "tls": True, "tls_authority": str(authority), "version": version,
                "username": "plant", "password": "a secret",
            }  # fmt: skip
            async with open_broker_client(**right):
                pass
            for wrong in ({"password": "another"}, {"tls_authority": ""}, {"tls": False}):
                with pytest.raises(LinkLost) as lost:
                    async with open_broker_client(**{**right, "connect_s": 2.0, **wrong}):
                        pass
                assert "secret" not in str(lost.value)

    asyncio.run(check())


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"host": "broker.example"}, "broker.tls"),
        ({"telemetry_topic": "v1/tel"}, "broker.telemetry_topic"),
        ({"ack_topic": "+/+/ack"}, "broker.ack_topic"),
        ({"command_topic": "cmd"}, "broker.command_topic"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    open_broker_client: Any, changes: dict[str, Any], where: str
) -> None:
    with pytest.raises(Invalid, match=where):
        open_broker_client(**changes)
