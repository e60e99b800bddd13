"""What a device may take an acknowledgement for: its report is durable, or named as unusable."""

import asyncio
from typing import Any

from tests.adapters.mqtt.conftest import VERSIONS, tel

from kapelle.adapters.mqtt import reader, writer
from kapelle.adapters.mqtt.packets import Answer, ConnAck, Disconnect
from kapelle.adapters.mqtt.reader import Reason
from kapelle.model.enums import Metric, SessionEvent


@VERSIONS
def test_puback_comes_only_after_confirm(open_plant: Any, version: int) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            plant.mode = "hold"
            device = await plant.device(version=version)
            device.send(tel(version, 7, 1), tel(version, 8, 2))
            await plant.until(lambda: plant.power_w == [7.0, 8.0])
            assert await device.silent()
            for batch in plant.held:
                plant.link.confirm(batch, {})
            assert await device.next() == Answer(reader.PUBACK, 1)
            assert await device.next() == Answer(reader.PUBACK, 2)
            assert plant.counters.acknowledged == 2

    asyncio.run(check())


@VERSIONS
def test_declined_batches_are_not_acknowledged_and_come_again(
    open_plant: Any, version: int
) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            plant.mode = "decline"
            device = await plant.device(version=version)
            device.send(tel(version, 7, 1))
            last = await device.next()
            assert last == (
                None if version == 4 else Disconnect(Reason.SERVER_BUSY, last.properties)
            )
            plant.mode = "confirm"
            # What the transport itself knew was not lost with the batch.
            await plant.until(lambda: plant.sessions[-1] == (0, SessionEvent.DOWN))
            again = await plant.device(version=version)
            again.send(tel(version, 7, 1))
            assert await again.next() == Answer(reader.PUBACK, 1)
            assert plant.counters.declined >= 1

    asyncio.run(check())


def test_qos_0_needs_no_answer(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            device = await plant.device()
            device.send(tel(4, 5, 0, qos=0))
            await plant.until(lambda: plant.power_w == [5.0])
            assert await device.silent()

    asyncio.run(check())


def test_qos_2_is_exactly_once_in_311_and_not_granted_in_5(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            device = await plant.device()
            device.send(tel(4, 5, 9, qos=2))
            assert await device.next() == Answer(reader.PUBREC, 9)
            device.send(tel(4, 5, 9, qos=2))  # repeated: PUBREC was not seen
            assert await device.next() == Answer(reader.PUBREC, 9)
            device.send(writer.answer(4, reader.PUBREL, b"\0\x09"))
            assert await device.next() == Answer(reader.PUBCOMP, 9)
            assert plant.power_w == [5.0]
            device.send(tel(4, 6, 9, qos=2))
            assert await device.next() == Answer(reader.PUBREC, 9)
            assert plant.power_w == [5.0, 6.0]

            modern = await plant.device(1, version=5)
            modern.send(tel(5, 5, 9, qos=2, number=1))
            await modern.hears_the_end(Reason.QOS_NOT_SUPPORTED)

    asyncio.run(check())


def test_unusable_content_is_durable_in_quarantine_and_mqtt_5_hears_why(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            for version, number in ((4, 1), (5, 2)):
                device = await plant.device(number, version=version)
                topic = f"v1/dev-{number}/tel".encode()
                device.send(writer.publish(version, topic, b'{"soc": 80}', 1, 1))
                code = 0 if version == 4 else Reason.PAYLOAD_FORMAT_INVALID
                assert await device.next() == Answer(reader.PUBACK, 1, code)
                assert plant.reasons[-1].startswith("field: /soc: ")
                source = plant.batches[-1].unreadable.source
                assert source == (f"mqtt/dev-{number}".encode(),)

            plant.mode = lambda batch: {1: "power-unit: looks like kW"}
            rows = b'[{"power_w": 1}, {"power_w": 2}]'
            device.send(writer.publish(5, b"v1/dev-2/tel", rows, 1, 2))
            assert await device.next() == Answer(reader.PUBACK, 2, Reason.PAYLOAD_FORMAT_INVALID)
            assert plant.raw == [b'{"power_w": 1}', b'{"power_w": 2}']

    asyncio.run(check())


def test_reports_keep_device_time_number_and_order(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            device = await plant.device()
            payload = (
                b'{"readings":[{"at":"2026-01-01T00:00:00.5+01:00","power_w":1,"soc":0.5},'
                b'{"at_ns":5,"boot":2,"seq":3,"power_w":2}]}'
            )
            device.send(writer.publish(4, b"v1/dev-0/tel", payload, 1, 1))
            assert await device.next() == Answer(reader.PUBACK, 1)
            readings = next(b.readings for b in plant.batches if b.readings is not None)
            at_ns = 1_767_222_000_500_000_000
            assert readings.measured_at_ns.tolist() == [at_ns, 5]
            assert readings.order.tolist() == [at_ns, (2 << 32 | 3) - 2**63]
            assert readings.values[Metric.SOC][0] == 0.5
            assert readings.values[Metric.SOC][1] != readings.values[Metric.SOC][1]

    asyncio.run(check())


def test_packets_may_come_in_any_pieces(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            name = "dev-0"
            stream = writer.connect(5, name, username=name, password="dev-0!")
            stream += b"".join(tel(5, power_w, power_w) for power_w in range(1, 6))
            client = await plant.raw_client(5)
            for byte in stream:
                client.send(bytes((byte,)))
                await client.out.drain()
                await asyncio.sleep(0)
            assert isinstance(await client.next(), ConnAck)
            for packet_id in range(1, 6):
                assert await client.next() == Answer(reader.PUBACK, packet_id)
            assert plant.power_w == [1, 2, 3, 4, 5]

    asyncio.run(check())
