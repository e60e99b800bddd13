"""What the endpoint promises to devices: durable acknowledgements, commands, sessions."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kapelle.adapters.mqtt import reader, writer
from kapelle.adapters.mqtt.packets import Answer, ConnAck, Disconnect, Publish, SubAck
from kapelle.adapters.mqtt.reader import Property, Reason
from kapelle.errors import Invalid, LinkLost
from kapelle.fleet.columns import Fleet
from kapelle.fleet.reconciliation.conditions import step_conditions
from kapelle.fleet.sessions import apply_sessions
from kapelle.model.blocks import Sessions
from kapelle.model.enums import AckStatus, Condition, Metric, SessionEvent

VERSIONS = pytest.mark.parametrize("version", [4, 5])
POWER = b'{"power_w": %d}'


def tel(version: int, power_w: int, packet_id: int, *, qos: int = 1, number: int = 0) -> bytes:
    topic = f"v1/dev-{number}/tel".encode()
    return writer.publish(version, topic, POWER % power_w, qos, packet_id)


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
            last = await modern.next()
            assert isinstance(last, Disconnect)
            assert last.code == Reason.QOS_NOT_SUPPORTED

    asyncio.run(check())


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
            device = await plant.device()
            device.send(writer.subscribe(4, 5, [("v1/dev-0/cmd", 1)]))
            await device.next()
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
            device = await plant.device()
            device.send(writer.subscribe(4, 5, [("v1/dev-0/cmd", 1)]))
            await device.next()
            await plant.link.send(make_commands(0))
            assert isinstance(await device.next(), Publish)
            assert await device.next() is None
            assert plant.counters.dropped == {"command unanswered": 1}

    asyncio.run(check())


@VERSIONS
def test_sessions_come_and_go(open_plant: Any, version: int) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            device = await plant.device(2, version=version)
            device.send(writer.goodbye(version))
            await plant.until(lambda: len(plant.sessions) == 2)
            device = await plant.device(2, version=version)
            device.close()
            await plant.until(lambda: len(plant.sessions) == 4)
            up, down = (2, SessionEvent.UP), (2, SessionEvent.DOWN)
            assert plant.sessions == [up, down, up, down]
            numbers = [n for b in plant.batches if b.sessions for n in b.sessions.session.tolist()]
            assert numbers[0] == numbers[1] < numbers[2] == numbers[3]

    asyncio.run(check())


def with_will(version: int, topic: str, retain: bool = False) -> bytes:
    properties = b"\0" if version == 5 else b""
    flags = 0xC0 | 0x02 | 0x04 | (0x20 if retain else 0)
    return writer.packet(
        reader.CONNECT << 4,
        writer.text("MQTT"),
        bytes((version, flags, 0, 60)),
        properties,
        writer.text("dev-2"),
        properties,
        writer.text(topic),
        writer.text(b"gone"),
        writer.text("dev-2"),
        writer.text("dev-2!"),
    )


@VERSIONS
def test_a_will_speaks_when_the_connection_breaks_and_only_then(
    open_plant: Any, version: int
) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            for last, event in (
                (b"", SessionEvent.WILL),
                (writer.goodbye(version), SessionEvent.DOWN),
            ):
                device = await plant.raw_client(version)
                device.send(with_will(version, "v1/dev-2/evt"))
                answer = await device.next()
                assert isinstance(answer, ConnAck)
                assert answer.code == 0
                device.send(last)
                device.close()
                await plant.until(lambda: len(plant.sessions) % 2 == 0 and bool(plant.sessions))
                assert plant.sessions[-1] == (2, event)
                plant.sessions.clear()
            if version == 5:
                device = await plant.raw_client(version)
                device.send(with_will(version, "v1/dev-2/evt"))
                await device.next()
                device.send(writer.packet(reader.DISCONNECT << 4, b"\x04"))
                await plant.until(lambda: (2, SessionEvent.WILL) in plant.sessions)

    asyncio.run(check())


@VERSIONS
def test_the_newest_session_wins_and_flapping_raises_an_alarm(
    open_plant: Any, version: int
) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            older = await plant.device(1, version=version)
            for count in range(1, 5):
                newer = await plant.device(1, version=version)
                last = await older.next()
                if version == 5:
                    assert isinstance(last, Disconnect)
                    assert last.code == Reason.SESSION_TAKEN_OVER
                else:
                    assert last is None
                older.send(tel(version, 666, 1, number=1))  # fenced
                older = newer
                assert plant.counters.takeovers == count
                assert plant.counters.flaps == (count >= 3)
            older.send(tel(version, 5, 1, number=1))
            assert await older.next() == Answer(reader.PUBACK, 1)
            assert plant.power_w == [5.0]
            assert plant.sessions[-1] == (1, SessionEvent.UP)
            assert plant.counters.sessions == 1

    asyncio.run(check())


@VERSIONS
def test_two_sessions_with_one_credential_are_a_condition_of_the_device(
    open_plant: Any, version: int
) -> None:
    """R-25 to its end: what the endpoint tells is what the fleet counts; a third time is one."""

    async def check() -> None:
        async with open_plant() as plant:
            older = await plant.device(1, version=version)
            for count in range(1, 5):
                newer = await plant.device(1, version=version)
                last = await older.next()
                if version == 5:
                    assert isinstance(last, Disconnect)
                    assert last.code == 0x8E
                older = newer
                await plant.until(lambda count=count: len(plant.sessions) == 2 * count + 1)
                assert plant.sessions[-2:] == [(1, SessionEvent.TAKEN), (1, SessionEvent.UP)]
                assert _conditions(plant.session_blocks, 1) == (
                    Condition.CONTESTED if count >= 3 else 0
                )

    asyncio.run(check())


def _conditions(blocks: list[Sessions], row: int) -> int:
    fleet = Fleet.empty()
    fleet.reserve(row + 1)
    for block in blocks:
        apply_sessions(fleet, block)
    fleet.now_ns = int(blocks[-1].at_ns.max()) + 1
    step_conditions(fleet, np.empty(0, np.intp))
    return int(fleet.condition[row])


def test_keep_alive_is_enforced_at_one_and_a_half_times(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            silent = await plant.device(1, version=5, keep_alive_s=1)
            pinging = await plant.device(2, version=5, keep_alive_s=1)
            started = asyncio.get_running_loop().time()

            async def ping() -> None:
                while True:
                    pinging.send(writer.PINGREQ)
                    await asyncio.sleep(0.5)

            pings = asyncio.create_task(ping())
            last = await silent.next()
            waited_s = asyncio.get_running_loop().time() - started
            assert isinstance(last, Disconnect)
            assert last.code == Reason.KEEP_ALIVE_TIMEOUT
            assert 1.4 < waited_s < 4.0
            pings.cancel()
            assert plant.counters.dropped == {"keep-alive": 1}
            assert plant.counters.sessions == 1

    asyncio.run(check())


def test_mqtt_5_is_told_our_limits(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant(inflight_max=17, keep_alive_s_max=100) as plant:
            client = await plant.raw_client(5)
            client.send(
                writer.connect(
                    5,
                    "dev-0",
                    username="dev-0",
                    password="dev-0!",
                    keep_alive_s=0,
                    given={Property.SESSION_EXPIRY: 3600},
                )
            )
            answer = await client.next()
            assert isinstance(answer, ConnAck)
            told = answer.properties
            assert told[Property.RECEIVE_MAXIMUM] == 17
            assert told[Property.MAXIMUM_QOS] == 1
            assert told[Property.SERVER_KEEP_ALIVE] == 100
            assert told[Property.SESSION_EXPIRY] == 0
            assert told[Property.WILDCARD_AVAILABLE] == 0
            assert Property.TOPIC_ALIAS_MAXIMUM not in told

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


@pytest.mark.parametrize("bound", [{"waiting_max": 50}, {"waiting_size_max": 700}])
def test_many_rows_wait_boundedly_and_all_arrive(open_plant: Any, bound: dict[str, int]) -> None:
    """R-29: while the consumer does not ask, devices are not read; then nothing is missing."""

    async def check() -> None:
        async with open_plant(**bound, batch_big=10, batch_max=20) as plant:
            devices = [await plant.device(number) for number in range(10)]
            await plant.until(lambda: len(plant.sessions) == 10)
            plant.gate.clear()

            async def publish(number: int) -> None:
                for packet_id in range(1, 61):
                    devices[number].send(tel(4, packet_id, packet_id, number=number))
                    await asyncio.sleep(0.001)

            async with asyncio.TaskGroup() as tasks:
                for number in range(10):
                    tasks.create_task(publish(number))
            await asyncio.sleep(0.1)
            waiting = len(plant.endpoint.intake.messages)
            assert 40 <= waiting <= 150  # twice the bound stops everybody at once
            plant.gate.set()
            await plant.until(lambda: len(plant.power_w) == 600)
            assert sorted(plant.power_w) == sorted([*range(1, 61)] * 10)
            assert plant.counters.held["intake full"] > 0
            assert max(len(b.readings or ()) for b in plant.batches) <= 20

    asyncio.run(check())


def test_a_device_above_its_rate_is_read_later_not_lost(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant(publishes_per_s=200, publishes_burst=20) as plant:
            device = await plant.device()
            started = asyncio.get_running_loop().time()
            for packet_id in range(1, 121):
                device.send(tel(4, packet_id, packet_id))
                await asyncio.sleep(0)
            await plant.until(lambda: len(plant.power_w) == 120)
            device.send(tel(4, 0, 200))
            await plant.until(lambda: len(plant.power_w) == 121)
            assert asyncio.get_running_loop().time() - started > 0.4
            assert plant.counters.held["above its rate"] >= 1

    asyncio.run(check())


def test_more_unanswered_than_granted(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant(inflight_max=4) as plant:
            plant.mode = "hold"
            modern = await plant.device(1, version=5)
            modern.send(*(tel(5, n, n, number=1) for n in range(1, 6)))
            last = await modern.next()
            assert isinstance(last, Disconnect)
            assert last.code == Reason.RECEIVE_MAXIMUM_EXCEEDED
            older = await plant.device(2)
            older.send(*(tel(4, n, n, number=2) for n in range(1, 6)))
            await plant.until(lambda: plant.counters.held["too many unanswered"] == 1)
            older.send(tel(4, 6, 6, number=2))
            await asyncio.sleep(0.1)
            assert len(plant.power_w) == 10
            plant.mode = "confirm"
            for batch in plant.held:
                plant.link.confirm(batch, {})
            await plant.until(lambda: len(plant.power_w) == 11)

    asyncio.run(check())


def test_the_end_says_goodbye(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            device = await plant.device(version=5)
        last = await device.next()
        assert isinstance(last, Disconnect)
        assert last.code == Reason.SERVER_SHUTTING_DOWN

    asyncio.run(check())


def test_plaintext_is_refused_where_others_can_reach_it(open_plant: Any) -> None:
    with pytest.raises(Invalid, match="insecure"):
        open_plant(host="0.0.0.0")
    open_plant(host="0.0.0.0", insecure=True)
    open_plant(host="::1")
    with pytest.raises(Invalid, match="name both files"):
        open_plant(tls_certificate="cert.pem")


def test_a_taken_port_is_a_lost_link(open_plant: Any) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            with pytest.raises(LinkLost, match="cannot listen"):
                async with open_plant(port=plant.port):
                    pass

    asyncio.run(check())


def test_evidence_of_receipt_is_exact_and_outlives_a_declined_batch(
    open_plant: Any, make_commands: Callable[..., Any]
) -> None:
    async def check() -> None:
        async with open_plant() as plant:
            device = await plant.device(version=5)
            device.send(writer.subscribe(5, 5, [("v1/dev-0/cmd", 1)]))
            await device.next()
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
