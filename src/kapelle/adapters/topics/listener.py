"""What is done with each publication on other people's topics, and who is there."""

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from kapelle.adapters import quantities
from kapelle.adapters.cloud.mapping import Broken
from kapelle.adapters.errands import Command, Said
from kapelle.adapters.inbox import Answer, Heard, Inbox, Report, Unreadable
from kapelle.adapters.mqtt.client import Connection
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.mqtt.packets import Publish
from kapelle.adapters.topics import discovery
from kapelle.adapters.topics.codec import Payload
from kapelle.adapters.topics.devices import Device, Devices, Part, stranger
from kapelle.adapters.topics.orders import shows, telling
from kapelle.adapters.topics.settings import DEVICE, DISCOVERED, TopicsSettings
from kapelle.model.enums import AckStatus, Metric, SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Directory

NAME = "topics"
_LOOK_S = 0.2
"""How often it is looked who is enrolled, what is to be heard too, and who did not come. [s]"""
_STRANGERS_MAX = 10_000
_RAW_MAX = 4_096
_SUBSCRIBE_MAX = 100
"""Topics in one SUBSCRIBE."""
_SUBSCRIBES = 10
"""At one look."""


class _Asked(NamedTuple):
    """A setpoint that was published, and not shown yet."""

    command: Command
    echo: str
    until_ns: int


class Topics:
    """Listens to one connection with a broker."""

    connection: Connection

    def __init__(
        self,
        settings: TopicsSettings,
        *,
        inbox: Inbox,
        directory: Directory,
        clock: Clock,
        counters: Counters,
    ) -> None:
        self.up: set[int] = set()
        """Devices that can be told something."""
        self._settings = settings
        self._inbox = inbox
        self._directory = directory
        self._clock = clock
        self._counters = counters
        self._devices = Devices(settings.schemes, settings.discovery)
        self._subscribed = dict.fromkeys(self.filters())
        self._wanted: dict[str, None] = {}
        self._version = -1
        self._unsure: dict[int, int] = {}
        """Devices an earlier connection may have left as present, and until when they may come."""
        self._strangers: dict[str, None] = {}
        self._asked: dict[int, _Asked] = {}
        self._ask_at_ns = {scheme.name: 0 for scheme in settings.schemes if scheme.ask_topic}
        self._number = 0
        self._is_held = False
        self._answered = asyncio.Event()
        """Set when the broker has acknowledged a command."""

    def filters(self) -> list[str]:
        """Return what is subscribed to from the beginning."""
        topics: list[str] = []
        for scheme in self._settings.schemes:
            topics += [value.topic for value in scheme.values]
            topics += [one.topic for one in scheme.availability]
            topics += [scheme.state_topic] if scheme.state_topic else []
        filters = [topic.replace(DEVICE, "+") for topic in topics]
        if self._settings.discovery.entities:
            prefix = self._settings.discovery.prefix
            filters += [f"{prefix}/+/+/config", f"{prefix}/+/+/+/config"]
        return list(dict.fromkeys(filters))

    # What the connection calls.

    def on_made(self, connection: Connection) -> None:
        """Remember the way back."""
        self.connection = connection

    def on_published(self, publish: Publish, answer: bytes, now_ns: int) -> None:
        """Take in one publication."""
        self._counters.publications += 1
        self._look_up(now_ns)
        heard = self._heard(publish, now_ns)
        if heard is None:
            self.connection.acknowledge([answer])
            return
        self._hand_in(heard, answer)

    def on_read(self) -> None:
        """Read no more where too much waits."""
        if self._inbox.full and self.connection.hold():
            self._is_held = True

    def on_answered(self) -> None:
        """Let the next command go: the broker has one, which says nothing of the device."""
        self._answered.set()

    def on_lost(self, reason: str) -> None:
        """End the link: nobody behind the broker can be told anything, at once."""
        self.leave("broker lost")
        self._answered.set()
        self._inbox.lose(reason)

    # What the endpoint calls.

    def come(self) -> None:
        """Have devices announce themselves, where that is ours to say."""
        if self._settings.discovery.entities and self._settings.discovery.birth:
            self.connection.publish(f"{self._settings.discovery.prefix}/status", b"online", qos=0)

    def leave(self, why: str = "left") -> None:
        """End every session."""
        for number in sorted(self.up):
            self._went(number, why)

    async def keep_looking(self) -> None:
        """Look again and again."""
        while True:
            self.look()
            await self._clock.sleep(_LOOK_S)

    def look(self) -> None:
        """Hear what is new, ask who must be asked, and see who did not come."""
        now_ns = self._clock.now_ns()
        self._look_up(now_ns)
        for _ in range(_SUBSCRIBES):
            topics = list(islice(self._wanted, _SUBSCRIBE_MAX))
            if not topics or not self.connection.subscribe(topics):
                break
            for topic in topics:
                del self._wanted[topic]
                self._subscribed[topic] = None
        for number in [no for no, until_ns in self._unsure.items() if now_ns >= until_ns]:
            del self._unsure[number]
            self._session(number, SessionEvent.DOWN)
        for scheme in self._settings.schemes:
            if scheme.ask_topic and now_ns >= self._ask_at_ns[scheme.name]:
                self._ask_at_ns[scheme.name] = now_ns + int(scheme.ask_s * NS_PER_S)
                for topic in self._devices.named(scheme.name, scheme.ask_topic):
                    self.connection.publish(topic, scheme.ask_payload.encode(), qos=0)

    async def carry_out(self, command: Command) -> Said | None:
        """Publish a setpoint; what the device shows will be the evidence of it."""
        device = self._devices.by_number.get(command.device_no)
        if device is None:
            return Said(AckStatus.REJECTED, "is not enrolled any more")
        told = telling(device.orders, command.setpoint_w)
        if isinstance(told, str):
            return Said(AckStatus.REJECTED, told)
        while True:
            await self.connection.room()
            if command.device_no not in self.up:
                raise ConnectionError("the device has gone")
            now_ns = self._clock.now_ns()
            ttl_s = (command.not_after_ns - now_ns) / NS_PER_S
            # The broker's PUBACK is no evidence: a device may not even have subscribed.
            if self.connection.publish(
                told.topic, told.payload, ttl_s, retain=told.retain, qos=told.qos
            ):
                break
            self._answered.clear()
            await self._answered.wait()
        self._asked.pop(command.device_no, None)
        if told.echo:
            until_ns = now_ns + int(self._settings.echo_s * NS_PER_S)
            self._asked[command.device_no] = _Asked(command, told.echo, until_ns)
        return None

    def _hand_in(self, heard: Heard, answer: bytes = b"") -> None:
        def stored(durable: bool) -> None:
            if not durable:
                self._counters.declined += 1
                self.connection.leave("the journal did not take what was published")
                return
            self._counters.acknowledged += bool(answer)
            self.connection.acknowledge([answer])
            if self._is_held and not self._inbox.full:
                self._is_held = False
                self.connection.resume()

        self._inbox.hand_in(heard, stored)

    def _look_up(self, now_ns: int) -> None:
        """Learn who is enrolled."""
        if self._version == self._directory.version:
            return
        self._version = self._directory.version
        before = set(self._devices.by_number)
        faults = self._devices.enrol(self._directory.reached_by(NAME))
        for number in sorted(self.up.difference(self._devices.by_number)):
            self._went(number, "not enrolled any more")
        for number in [no for no in self._unsure if no not in self._devices.by_number]:
            del self._unsure[number]
        until_ns = now_ns + int(self._settings.settle_s * NS_PER_S)
        for number, device in self._devices.by_number.items():
            if number not in before:
                self._unsure[number] = until_ns
                self._want(device)
        self._tell(faults, "enrolment", b"")

    def _want(self, device: Device) -> None:
        if device.address.startswith(f"{DISCOVERED}/"):
            new = (topic for topic in device.topics if topic not in self._subscribed)
            self._wanted.update(dict.fromkeys(new))

    def _tell(self, faults: Sequence[str], peer: str, raw: bytes, number: int = -1) -> None:
        """Put into quarantine, each once, what an operator can mend."""
        new = [fault for fault in faults if fault not in self._strangers]
        for fault in new:
            if len(self._strangers) >= _STRANGERS_MAX:
                self._strangers.pop(next(iter(self._strangers)))
            self._strangers[fault] = None
        if new:
            self._counters.unreadable += len(new)
            unreadable = [Unreadable(number, fault) for fault in new]
            self._hand_in(Heard(peer, raw[:_RAW_MAX], (), (), unreadable))

    def _heard(self, publish: Publish, now_ns: int) -> Heard | None:
        topic, raw = publish.topic, bytes(publish.payload)
        if self._settings.discovery.entities:
            component = discovery.place(topic, self._settings.discovery.prefix)
            if component is not None:
                self._announced(component, topic, raw)
                return None
        uses = self._devices.at(topic)
        if not uses:
            self._tell([stranger(one) for one in self._devices.strange(topic)], topic, b"")
            return None
        if len(raw) > self._settings.payload_size_max:
            what = f"payload-size: {topic[:80]}: has {len(raw)} bytes; mend what the device sends"
            faults = [Unreadable(device.number, what) for device, _ in uses]
            self._counters.unreadable += len(faults)
            return Heard(topic, raw[:_RAW_MAX], (), (), faults)
        payload = Payload(raw)
        reports: list[Report] = []
        answers: list[Answer] = []
        unreadable: list[Unreadable] = []
        for device, part in uses:
            report, faults = self._read(device, part, payload, is_kept=bool(publish.retain))
            reports += report
            unreadable += faults
            if part.state is not None and not publish.retain:
                answers += self._shown(device.number, payload, part, now_ns)
            self._see(device, part, payload, is_kept=bool(publish.retain))
        if not reports and not answers and not unreadable:
            return None
        self._counters.unreadable += len(unreadable)
        return Heard(topic, raw[:_RAW_MAX], reports, answers, unreadable)

    def _announced(self, component: str, topic: str, raw: bytes) -> None:
        """Take an announcement, and listen to what it names."""
        if len(raw) > self._settings.payload_size_max:
            size = f"payload-size: {topic[:80]}: has {len(raw)} bytes; announce less at once"
            self._tell([size], topic, b"")
            return
        entities = discovery.read(component, raw)
        if isinstance(entities, Broken):
            self._tell([f"{entities.reason} ({topic[:80]})"], topic, raw)
            entities = []
        faults = self._devices.announce(topic, entities)
        self._tell(faults, topic, raw)
        for device in self._devices.announced_by(entities):
            self._want(device)
            self._settle(device)

    def _read(
        self, device: Device, part: Part, payload: Payload, *, is_kept: bool
    ) -> tuple[list[Report], list[Unreadable]]:
        """Return what a payload says of a device, one report for each time it was measured at."""
        by_time: dict[int, dict[Metric, float]] = {}
        faults: list[Unreadable] = []
        for meant in part.values:
            if is_kept and meant.time is None:
                # The broker's memory: it may be days old, and would look fresh.
                continue
            value = payload.number(meant.spot)
            at_ns: int | Broken = 0
            if isinstance(value, float) and meant.time is not None:
                at_ns = payload.moment(meant.time, meant.time_form)
            broken = (told for told in (value, at_ns) if isinstance(told, Broken))
            faults += [Unreadable(device.number, told.reason) for told in broken]
            if isinstance(value, float) and not isinstance(at_ns, Broken):
                ours = quantities.ours(value, meant.unit, meant.positive)
                by_time.setdefault(at_ns, {})[meant.metric] = ours
        reports = [Report(device.number, values, at_ns) for at_ns, values in by_time.items()]
        return reports, list(dict.fromkeys(faults))

    def _see(self, device: Device, part: Part, payload: Payload, *, is_kept: bool) -> None:
        """Learn whether a device is there; what is kept by the broker of that, is true."""
        device.is_heard |= bool(part.values or part.state) and not is_kept
        for one in part.availability:
            said = payload.text(one.spot)
            if said in (one.online, one.offline):
                device.said[one] = said == one.online
        self._settle(device)

    def _settle(self, device: Device) -> None:
        if device.is_there and device.number not in self.up:
            self.up.add(device.number)
            self._unsure.pop(device.number, None)
            self._counters.connected += 1
            self._counters.sessions += 1
            self._session(device.number, SessionEvent.UP)
        elif not device.is_there and device.number in self.up:
            self._went(device.number, "not available")

    def _shown(self, number: int, payload: Payload, part: Part, now_ns: int) -> list[Answer]:
        asked = self._asked.get(number)
        if asked is None or part.state is None or not shows(payload, part.state, asked.echo):
            return []
        del self._asked[number]
        if now_ns > asked.until_ns:
            return []
        self._counters.commands_received += 1
        command = asked.command
        return [Answer(number, command.revision, AckStatus.APPLIED, "", command.epoch)]

    def _went(self, number: int, why: str) -> None:
        self.up.discard(number)
        self._asked.pop(number, None)
        self._counters.sessions -= 1
        self._counters.dropped[why] += 1
        self._session(number, SessionEvent.DOWN)

    def _session(self, number: int, event: SessionEvent) -> None:
        # Numbers also rise over restarts, as long as UTC does.
        self._number = max(self._number + 1, self._clock.now_ns())
        self._inbox.session(number, event, self._number)
