"""The simulated device's MQTT client keeps what is not acknowledged and returns with patience."""

import asyncio
import random

import pytest

from kapelle.sim.peers import packets
from kapelle.sim.peers.mqtt import UNACKED_MAX, Client
from kapelle.sim.peers.packets import Malformed, split
from kapelle.sim.peers.swarm import Swarm


class Wire(asyncio.Transport):
    """A transport that remembers what was written."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client
        self.written = b""
        self.open = True

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.open = False
        self.client.connection_lost(None)

    def close(self) -> None:
        self.open = False

    def is_closing(self) -> bool:
        return not self.open

    def sent(self) -> list[packets.Received]:
        arrived, rest = split(self.written)
        assert rest == b""
        self.written = b""
        return arrived


class Told:
    def __init__(self) -> None:
        self.up: list[str] = []
        self.down: list[str] = []
        self.commands: list[bytes] = []
        self.acked = 0

    def on_up(self, client: Client) -> None:
        self.up.append(client.name)

    def on_down(self, client: Client, reason: str) -> None:
        self.down.append(reason)

    def on_command(self, client: Client, payload: bytes) -> None:
        self.commands.append(payload)

    def on_acked(self, client: Client, waited_s: float) -> None:
        self.acked += 1


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def connected(client: Client, *, kept: bool = False) -> Wire:
    wire = Wire(client)
    client.connection_made(wire)
    assert [p.kind for p in wire.sent()] == [1]
    properties = b"\0" if client.version == packets.V5 else b""
    body = bytes([kept, 0]) + properties
    client.data_received(bytes([0x20, len(body)]) + body)
    return wire


@pytest.fixture(params=[packets.V311, packets.V5])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(0, "dev-1", "secret", Told(), version=request.param, now=Time())


def payloads(sent: list[packets.Received], version: int) -> list[bytes]:
    return [packets.delivery(p, version).payload for p in sent if p.kind == packets.PUBLISH]


def test_what_is_not_acknowledged_is_sent_again_on_the_next_connection(client: Client) -> None:
    wire = connected(client)
    client.publish(b"one")
    client.publish(b"two")
    sent = wire.sent()
    assert payloads(sent, client.version) == [b"one", b"two"]
    assert sent[0].kind == 8, "it subscribes first"
    client.data_received(b"\x40\x02\x00\x01")
    assert client.waiting == 1
    wire.abort()
    client.publish(b"three")
    again = connected(client, kept=True).sent()
    assert payloads(again, client.version) == [b"two", b"three"]
    assert [bool(p.flags & 8) for p in again if p.kind == packets.PUBLISH] == [True, False]
    assert client.repeated == 1
    wire = connected(client, kept=False)
    assert not any(p.flags & 8 for p in wire.sent() if p.kind == packets.PUBLISH)


def test_a_command_is_acknowledged_and_handed_over(client: Client) -> None:
    wire = connected(client)
    wire.sent()
    client.data_received(
        packets.publish(packets.prefixed("v1/dev-1/cmd"), b"{}", 7, client.version)
    )
    assert client._listener.commands == [b"{}"]
    assert [(p.kind, p.body) for p in wire.sent()] == [(packets.PUBACK, b"\0\x07")]


def test_packets_may_arrive_in_any_pieces(client: Client) -> None:
    wire = connected(client)
    wire.sent()
    topic = packets.prefixed("v1/dev-1/cmd")
    stream = b"".join(packets.publish(topic, b"x" * n, 7, client.version) for n in (1, 200, 3))
    for place in range(0, len(stream), 3):
        client.data_received(stream[place : place + 3])
    assert [len(c) for c in client._listener.commands] == [1, 200, 3]


def test_a_full_memory_forgets_the_oldest(client: Client) -> None:
    for number in range(UNACKED_MAX + 5):
        client.publish(str(number).encode())
    assert (client.waiting, client.forgotten) == (UNACKED_MAX, 5)
    assert payloads(connected(client).sent(), client.version)[0] == b"5"


def test_a_slow_server_gets_each_publication_once(client: Client) -> None:
    wire = connected(client)
    client.pause_writing()
    client.publish(b"one")
    wire.sent()
    client.resume_writing()
    assert payloads(wire.sent(), client.version) == [b"one"]
    client.resume_writing()
    assert wire.sent() == []


def test_it_pings_when_idle_and_gives_up_on_a_silent_server(client: Client) -> None:
    time = client._now
    wire = connected(client)
    wire.sent()
    time.now = 31.0
    client.tend(31.0)
    assert [p.kind for p in wire.sent()] == [12]
    time.now = 91.0
    client.tend(91.0)
    assert not wire.open
    assert client._listener.down == ["the server is silent"]


def test_garbage_and_refusals_end_the_connection(client: Client) -> None:
    wire = connected(client)
    client.data_received(b"\x30\xff\xff\xff\xff\x01")
    assert not wire.open
    wire = Wire(client)
    client.connection_made(wire)
    client.data_received(b"\x20\x02\x00\x05")
    assert client._listener.down[-1] == "refused by the server (0x05)"
    with pytest.raises(Malformed):
        packets.refusal(packets.Received(2, 0, b""))


def test_pauses_grow_and_are_spread_and_capped() -> None:
    time = Time()
    swarm = Swarm(("127.0.0.1", 1), random.Random(1), connects_per_s=100, now=time)
    pauses: list[list[float]] = []
    for attempt in range(12):
        row = []
        for _ in range(200):
            client = Client(0, "d", "s", swarm, now=time)
            client.attempts = attempt
            swarm.on_down(client, "gone")
            row.append(swarm._due.pop(swarm._due.index(max(swarm._due, key=lambda d: d[1])))[0])
        pauses.append(row)
    assert max(map(max, pauses)) <= 120
    assert all(min(row) < 0.1 * max(row) for row in pauses), "full jitter"
    assert max(pauses[6]) > 50
    assert max(pauses[0]) <= 1


def test_back_off_starts_afresh_only_after_a_quiet_minute() -> None:
    time = Time()
    swarm = Swarm(("127.0.0.1", 1), random.Random(1), connects_per_s=100, now=time)
    client = Client(0, "d", "s", swarm, now=time)
    for lived_s, expected in ((5.0, 6), (61.0, 1)):
        client.attempts = 5
        wire = connected(client)
        time.now += lived_s
        wire.abort()
        assert client.attempts == expected
        client.wanted = False
