"""What a Sparkplug host does with each message, and what it says to edge nodes itself."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from kapelle.adapters import quantities
from kapelle.adapters.errands import Command, Said
from kapelle.adapters.inbox import Answer, Heard, Inbox, Unreadable
from kapelle.adapters.mqtt.client import Connection
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.mqtt.packets import Publish
from kapelle.adapters.sparkplug import codec
from kapelle.adapters.sparkplug.codec import BOOLEAN, NAMESPACE, REBIRTH, Place, Value
from kapelle.adapters.sparkplug.nodes import Nodes, Told, reports_of
from kapelle.adapters.sparkplug.rebirths import Rebirths
from kapelle.adapters.sparkplug.settings import SparkplugSettings
from kapelle.model.enums import AckStatus, SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Directory

NAME = "sparkplug"
_LOOK_S = 0.2
"""How often it is looked which births are to be asked for, and which did not come. [s]"""
_STRANGERS_MAX = 10_000
_RAW_MAX = 4_096
_NS_PER_MS = 1_000_000


class _Asked(NamedTuple):
    """A setpoint that was written, and not echoed yet."""

    command: Command
    wanted: Value | None
    until_ns: int


class Host:
    """Listens to one connection with a broker."""

    connection: Connection

    def __init__(
        self,
        settings: SparkplugSettings,
        *,
        inbox: Inbox,
        directory: Directory,
        clock: Clock,
        counters: Counters,
    ) -> None:
        self.born_ms = clock.now_ns() // _NS_PER_MS
        self.up: dict[int, str] = {}
        """Address of each device that can be spoken with."""
        self._settings = settings
        self._inbox = inbox
        self._directory = directory
        self._clock = clock
        self._counters = counters
        self._nodes = Nodes(settings.metrics)
        self._rebirths = Rebirths(settings, self._nodes, _LOOK_S)
        self._setpoint = next((m for m in settings.metrics if m.metric == "setpoint_w"), None)
        self._version = -1
        self._known: dict[str, int] = {}
        self._enrolled: dict[str, list[int]] = {}
        """By edge node: whoever is enrolled in it."""
        self._unsure: set[int] = set()
        """Devices an earlier connection may have left as present."""
        self._strangers: dict[str, None] = {}
        self._asked: dict[int, _Asked] = {}
        self._number = 0
        self._is_here = self._is_held = False

    # What the connection calls.

    def on_made(self, connection: Connection) -> None:
        """Remember the way back."""
        self.connection = connection

    def on_published(self, publish: Publish, answer: bytes, now_ns: int) -> None:
        """Take in one publication."""
        heard = None
        if publish.topic == codec.state_topic(self._settings.host_id):
            if self._is_here and codec.says_offline(publish.payload):
                # The will of our last connection, or what the broker has kept (5.7).
                self._say_state(online=True)
        elif (place := codec.place(publish.topic)) is not None and not publish.retain:
            # What the broker kept was said by nobody now; nothing but a STATE may be retained.
            self._counters.publications += 1
            heard = self._heard(place, bytes(publish.payload), now_ns)
        if heard is None:
            self.connection.acknowledge([answer])
            return

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

    def on_read(self) -> None:
        """Read no more where too much waits."""
        if self._inbox.full and self.connection.hold():
            self._is_held = True

    def on_answered(self) -> None:
        """Nothing follows from the broker's having our STATE."""

    def on_lost(self, reason: str) -> None:
        """End the link: nobody behind the broker can be told anything (5, STALE)."""
        for number in tuple(self.up):
            self._went(number, "broker lost")
        self._inbox.lose(reason)

    # What the endpoint calls.

    def come(self) -> None:
        """Say that the host is there."""
        self._is_here = True
        self._say_state(online=True)

    def leave(self) -> None:
        """Say that it is gone: a goodbye takes its will away (5.7)."""
        self._is_here = False
        self._say_state(online=False)
        for number in tuple(self.up):
            self._went(number, "host left")

    async def ask_for_births(self) -> None:
        """Ask edge nodes for their births, again and again."""
        while True:
            self.look()
            await self._clock.sleep(_LOOK_S)

    def look(self) -> None:
        """Ask for births where messages were missed, and see which did not come."""
        self._look_up()
        now_ns = self._clock.now_ns()
        for node in self._rebirths.due(now_ns):
            self._expect(node, now_ns)
            group, _, edge = node.partition("/")
            payload = codec.encode(REBIRTH, BOOLEAN, True, now_ns // _NS_PER_MS)
            self.connection.publish(f"{NAMESPACE}/{group}/NCMD/{edge}", payload, qos=0)
        for number in self._rebirths.overdue(now_ns):
            if number in self.up:
                # What it measures is still read: only a birth lets it be told something.
                self._went(number, "no birth")
            elif number in self._unsure:
                self._unsure.discard(number)
                self._session(number, SessionEvent.DOWN)

    async def carry_out(self, command: Command) -> Said | None:
        """Write a setpoint; the device's echo will be the evidence of it."""
        await self.connection.room()
        address = self.up.get(command.device_no)
        if address is None:
            raise ConnectionError("the device has gone")
        if self._setpoint is None:
            return Said(AckStatus.REJECTED, "no metric is mapped to setpoint_w")
        group, edge, *device = address.split("/")
        datatype = self._nodes.datatype(f"{group}/{edge}", address)
        if datatype is None:
            return Said(AckStatus.REJECTED, f"its birth has no metric {self._setpoint.name}")
        wanted: Value | None = None
        if not math.isnan(command.setpoint_w):
            setpoint = self._setpoint
            number = quantities.theirs(command.setpoint_w, setpoint.unit, setpoint.positive)
            wanted = codec.fitted(number, datatype)
            if wanted is None:
                return Said(AckStatus.REJECTED, f"the type of {setpoint.name} cannot carry it")
        now_ns = self._clock.now_ns()
        until_ns = now_ns + int(self._settings.echo_s * NS_PER_S)
        self._asked[command.device_no] = _Asked(command, wanted, until_ns)
        payload = codec.encode(self._setpoint.name, datatype, wanted, now_ns // _NS_PER_MS)
        topic = "/".join((NAMESPACE, group, "DCMD" if device else "NCMD", edge, *device))
        # Commands are QoS 0 (6.4.20): the broker keeps none for who is away.
        if not self.connection.publish(topic, payload, qos=0):
            raise ConnectionError("the broker does not take it")
        return None

    def _say_state(self, *, online: bool) -> None:
        topic = codec.state_topic(self._settings.host_id)
        # A birth has the timestamp of its will, so that one can be told from an older one.
        at_ms = self.born_ms if online else self._clock.now_ns() // _NS_PER_MS
        self.connection.publish(topic, codec.encode_state(online, at_ms), retain=True)

    def _expect(self, node: str, now_ns: int) -> None:
        """Have everybody of an edge node be born, who is up or may have been left as that."""
        numbers = self._enrolled.get(node, ())
        self._rebirths.expect(
            (number for number in numbers if number in self.up or number in self._unsure), now_ns
        )

    def _look_up(self) -> None:
        """Learn who is enrolled, and ask for the births of who is new."""
        if self._version == self._directory.version:
            return
        self._version = self._directory.version
        reached = self._directory.reached_by(NAME)
        known = {address: no for address, no in reached.items() if _is_address(address)}
        for address in known:
            if self._known.get(address) != known[address]:
                self._nodes.unborn.setdefault(_node(address))
                self._unsure.add(known[address])
        self._known = known
        self._enrolled = {}
        for address, number in known.items():
            self._enrolled.setdefault(_node(address), []).append(number)
        for number in [no for no, address in self.up.items() if known.get(address) != no]:
            self._went(number, "not enrolled any more")

    def _heard(self, place: Place, raw: bytes, now_ns: int) -> Heard | None:
        self._look_up()
        number = self._known.get(place.address, -1)
        faults: list[str] = []
        if number < 0 and (place.device or place.node not in self._enrolled):
            faults = self._stranger(place.address)
        told = Told()
        if place.node in self._enrolled:
            payload = codec.decode(raw)
            if isinstance(payload, str):
                faults = [payload]
            else:
                told = self._nodes.step(place, payload, is_known=number >= 0)
        for address in told.down:
            if (gone := self._known.get(address, -1)) in self.up:
                self._went(gone, "death")
        for address in told.up:
            if not place.device:
                self._expect(place.node, now_ns)
            if (come := self._known.get(address)) is not None:
                self._came(come, address)
        if number >= 0 and number not in self.up and place.kind in codec.DATA:
            # It measures, and can be told nothing: its edge node may not have heard us.
            self._nodes.unborn.setdefault(place.node)
        if number >= 0:
            faults = [*faults, *told.faults]
        reports = reports_of(told, number) if number >= 0 else []
        answers = self._echoed(number, told, now_ns)
        if not reports and not faults and not answers:
            return None
        self._counters.unreadable += len(faults)
        unreadable = [Unreadable(number, reason) for reason in faults]
        return Heard(place.address, raw[:_RAW_MAX], reports, answers, unreadable)

    def _echoed(self, number: int, told: Told, now_ns: int) -> Sequence[Answer]:
        asked = self._asked.get(number)
        if asked is None:
            return ()
        command, wanted = asked.command, asked.wanted
        if wanted is None or told.setpoint is None:
            echoed = wanted is None and told.released
        else:
            echoed = math.isclose(told.setpoint, wanted, rel_tol=1e-6, abs_tol=1e-9)
        if not echoed:
            return ()
        del self._asked[number]
        if now_ns > asked.until_ns:
            return ()
        self._counters.commands_received += 1
        return [Answer(number, command.revision, AckStatus.APPLIED, "", command.epoch)]

    def _stranger(self, address: str) -> list[str]:
        """Say once of each device that it is not enrolled: a broker may have others."""
        if address in self._strangers:
            return []
        if len(self._strangers) >= _STRANGERS_MAX:
            self._strangers.pop(next(iter(self._strangers)))
        self._strangers[address] = None
        return [f"device: {address}: is not enrolled; enrol it, or mend its name"]

    def _came(self, number: int, address: str) -> None:
        if number not in self.up:
            self._counters.connected += 1
            self._counters.sessions += 1
            self._session(number, SessionEvent.UP)
        self.up[number] = address
        self._unsure.discard(number)
        self._rebirths.settle(number)

    def _went(self, number: int, why: str) -> None:
        del self.up[number]
        self._asked.pop(number, None)
        self._rebirths.settle(number)
        self._counters.sessions -= 1
        self._counters.dropped[why] += 1
        self._session(number, SessionEvent.DOWN)

    def _session(self, number: int, event: SessionEvent) -> None:
        # Numbers also rise over restarts, as long as UTC does.
        self._number = max(self._number + 1, self._clock.now_ns())
        self._inbox.session(number, event, self._number)


def _node(address: str) -> str:
    return "/".join(address.split("/")[:2])


def _is_address(address: str) -> bool:
    steps = address.split("/")
    return len(steps) in (2, 3) and all(steps) and not set(address) & set("+#\0")
