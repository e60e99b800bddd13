"""How commands reach a device, and what counts as evidence that they did."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.adapters.mqtt.conftest import VERSIONS

from kapelle.adapters.mqtt import reader, writer
from kapelle.adapters.mqtt.packets import Answer, Publish, SubAck
from kapelle.model.enums import AckStatus


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1])
def test_commands_reach_the_device_and_its_puback_is_evidence(
    open_plant: Any, make_commands: Callable[..., Any], version: int, qos: int
) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            device = await plant.device(3, version=version)
            assert (await plant.link.send(make_commands(3, 4))).tolist() == [False, False]
            device.send(writer.subscribe(version, 5, [("v1/dev-3/cmd", qos)]))
            assert await device.next() == SubAck(reader.SUBACK, 5, bytes((qos,)))
            assert (await plant.link.send(make_commands(3, 4))).tolist() == [True, False]
            command = await device.next()
            assert isinstance(command, Publish)
            assert (command.topic, command.qos, command.retain) == ("v1/dev-3/cmd", qos, False)
            payload = json.loads(command.payload)
            assert payload["key"] == "3/3/1"
            assert payload["setpoint_w"] == 1500.0
            assert plant.acks == []  # writing to a socket is not delivery
            if qos:
                device.send(writer.answer(version, reader.PUBACK, b"\0\x01"))
                await plant.until(lambda: plant.acks == [(3, 1, -1, AckStatus.RECEIVED)])
            applied = b'{"revision":1,"epoch":2,"status":"applied"}'
            device.send(writer.publish(version, b"v1/dev-3/ack", applied, 1, 2))
            assert await device.next() == Answer(reader.PUBACK, 2)
            assert plant.acks[-1] == (3, 1, 2, AckStatus.APPLIED)
            device.send(
                writer.packet(
                    reader.UNSUBSCRIBE << 4 | 2,
                    b"\0\x07",
                    b"\0" if version == 5 else b"",
                    writer.text("v1/dev-3/cmd"),
                )
            )
            assert await device.next() == SubAck(reader.UNSUBACK, 7, b"\0" if version == 5 else b"")
            assert (await plant.link.send(make_commands(3))).tolist() == [False]

    asyncio.run(check())


def test_one_command_is_unanswered_and_none_waits_where_a_hold_cannot_reach(
    open_plant: Any, make_commands: Callable[..., Any]
) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            device = await plant.obedient()
            for revision, is_sent in ((1, True), (2, False), (3, False)):
                sent = await plant.link.send(make_commands(0, revision=revision))
                assert sent.tolist() == [is_sent]
            assert (plant.counters.commands_sent, plant.counters.commands_unsent) == (1, 2)
            first = await device.next()
            assert isinstance(first, Publish)
            assert json.loads(first.payload)["revision"] == 1
            device.send(writer.answer(4, reader.PUBACK, first.packet_id.to_bytes(2, "big")))
            assert await device.silent()
            assert (await plant.link.send(make_commands(0, revision=3))).tolist() == [True]
            second = await device.next()
            assert isinstance(second, Publish)
            assert json.loads(second.payload)["revision"] == 3

    asyncio.run(check())


def test_a_command_left_unanswered_drops_the_device(
    open_plant: Any, make_commands: Callable[..., Any]
) -> None:
    async def check() -> None:
        async with open_plant(command_ack_s=0.2) as plant:
            device = await plant.obedient()
            await plant.link.send(make_commands(0))
            assert isinstance(await device.next(), Publish)
            assert await device.next() is None
            assert plant.counters.dropped == {"command unanswered": 1}

    asyncio.run(check())


def test_evidence_of_receipt_is_exact_and_outlives_a_declined_batch(
    open_plant: Any, make_commands: Callable[..., Any]
) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            device = await plant.obedient(version=5)
            await plant.link.send(make_commands(0, revision=4))
            command = await device.next()
            assert isinstance(command, Publish)
            device.send(writer.answer(5, reader.PUBACK, b"\x0b\xad"))  # answers nothing
            device.send(writer.PINGREQ)
            await device.next()
            assert plant.counters.commands_received == 0
            plant.mode = "decline"
            device.send(writer.answer(5, reader.PUBACK, command.packet_id.to_bytes(2, "big"), 0x83))
            await plant.until(lambda: len(plant.acks) >= 1)
            plant.acks.clear()
            plant.mode = "confirm"
            await plant.until(lambda: bool(plant.acks))
            assert plant.acks == [(0, 4, -1, AckStatus.REJECTED)]
            assert plant.batches[-1].acks.reason == (b"mqtt reason code 0x83",)

    asyncio.run(check())
