"""The adapter for devices behind a broker the user already runs, in the plant's own words."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import numpy as np

from kapelle.adapters.mqtt.client import Connection, connected, exposed
from kapelle.adapters.mqtt.codec import encode_commands
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.mqtt.intake import ACK, TELEMETRY, Intake, Limits, Message
from kapelle.adapters.mqtt.packets import Publish
from kapelle.adapters.mqtt.settings import BrokerSettings
from kapelle.errors import Invalid, Problem
from kapelle.model.blocks import Commands
from kapelle.model.enums import SessionEvent
from kapelle.model.ids import Flags, Ints
from kapelle.ports import Batch, Clock, Directory, Link


class BrokerClient:
    """Adapter for devices behind somebody else's broker."""

    name = "broker"

    def __init__(self, *, settings: BrokerSettings, directory: Directory, clock: Clock) -> None:
        _check(settings)
        self.settings = settings
        self.directory = directory
        self.clock = clock
        self.counters = Counters()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Connect and subscribe; the broker keeps for us what comes while we are away."""
        settings = self.settings
        link = BrokerLink(self)
        filters = settings.telemetry_topic, settings.ack_topic
        counters = self.counters
        async with connected(
            self.name, settings, filters, link.broker, clock=self.clock, counters=counters
        ):
            try:
                yield link
            finally:
                counters.sessions = 0


class BrokerLink:
    """What came from a broker, and the way to the devices behind it."""

    def __init__(self, client: BrokerClient) -> None:
        settings = client.settings
        self._settings = settings
        self._directory = client.directory
        self._counters = client.counters
        self._heard: set[int] = set()
        self._number = client.clock.now_ns()
        self._intake = Intake(
            client.name,
            clock=client.clock,
            limits=Limits(
                settings.waiting_max,
                settings.waiting_size_max,
                settings.batch_max,
                settings.batch_big,
                settings.linger_s,
            ),
            counters=client.counters,
            resolve=self._resolve,
        )
        self.broker = Broker(settings, self._intake)

    def receive(self) -> AsyncIterator[Batch]:
        """Yield what has arrived."""
        return self._intake.receive()

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Acknowledge to the broker, which then forgets."""
        self._intake.confirm(batch, {})

    def decline(self, batch: Batch, reason: str) -> None:
        """Leave the broker: it delivers again when we are back."""
        self._intake.decline(batch, reason)

    async def send(self, commands: Commands) -> Flags:
        """Publish commands for the devices heard on this connection."""
        written = np.zeros(len(commands), bool)
        numbers = commands.device_no.tolist()
        present = [row for row, number in enumerate(numbers) if number in self._heard]
        payloads = encode_commands(commands) if present else []
        publish = self.broker.connection.publish
        for row in present:
            topic = self._settings.command_topic.format(id=self._directory.name(numbers[row]))
            written[row] = publish(topic, payloads[row], float(commands.ttl_s[row]))
        sent = int(np.count_nonzero(written))
        self._counters.commands_sent += sent
        self._counters.commands_unsent += len(commands) - sent
        return written

    def _resolve(self, messages: list[Message]) -> Ints:
        numbers = self._directory.resolve([message[5] for message in messages])
        # A broker tells nobody who is connected: a device is up once it was heard.
        for number in dict.fromkeys(numbers.tolist()):
            if number >= 0 and number not in self._heard:
                self._heard.add(number)
                self._counters.sessions += 1
                self._intake.session(number, SessionEvent.UP, self._number)
        return numbers


class Broker:
    """The one peer of the intake: it publishes for all, and forgets what it was answered."""

    connection: Connection

    def __init__(self, settings: BrokerSettings, intake: Intake) -> None:
        self._intake = intake
        self._arrived = self._arrived_size = 0
        self._kinds = {
            TELEMETRY: _around_name(settings.telemetry_topic),
            ACK: _around_name(settings.ack_topic),
        }

    # What the connection calls.

    def on_made(self, connection: Connection) -> None:
        """Remember the way back."""
        self.connection = connection

    def on_published(self, publish: Publish, answer: bytes, now_ns: int) -> None:
        """Put one publication with those that wait."""
        topic = publish.topic
        for kind, (before, after) in self._kinds.items():
            if topic.startswith(before) and topic.endswith(after):
                name = topic[len(before) : len(topic) - len(after)]
                self._intake.messages.append((self, answer, kind, publish.payload, now_ns, name))
                self._arrived += 1
                self._arrived_size += len(publish.payload)
                return
        # Left over from a subscription of before: nobody wants it any more.
        self.connection.acknowledge([answer])

    def on_read(self) -> None:
        """Let ingest know, and read no more where too much waits."""
        if self._arrived:
            self._intake.arrived(self._arrived_size)
            self._arrived = self._arrived_size = 0
        if self._intake.full and self.connection.hold():
            self._intake.when_room(self.connection.resume)

    def on_answered(self) -> None:
        """Count it."""
        self._intake.counters.commands_received += 1

    def on_lost(self, reason: str) -> None:
        """End the link."""
        self._intake.lose(reason)

    # What the intake calls.

    def acknowledge(self, answers: list[bytes]) -> None:
        """Answer: the journal has what was published."""
        self.connection.acknowledge(answers)

    def correct(self, answer: bytes, reason: str) -> bytes:
        """Tell the broker the same as ever: it could not mend the content."""
        return answer

    def decline(self, reason: str) -> None:
        """Leave: the broker keeps what is not acknowledged."""
        self.connection.leave(reason)


def _around_name(topic: str) -> tuple[str, str]:
    before, _, after = topic.partition("+")
    return before, after


def _check(settings: BrokerSettings) -> None:
    problems = [
        Problem(
            f"broker.{name}", f"`{topic}` has not exactly one `+`", "put `+` where the name stands"
        )
        for name, topic in (
            ("telemetry_topic", settings.telemetry_topic),
            ("ack_topic", settings.ack_topic),
        )
        if topic.count("+") != 1 or "#" in topic
    ]
    if "{id}" not in settings.command_topic:
        problems.append(
            Problem("broker.command_topic", "has no `{id}`", "put `{id}` where the name stands")
        )
    problems += exposed("broker", settings)
    if problems:
        raise Invalid("the broker settings cannot be used", problems)
