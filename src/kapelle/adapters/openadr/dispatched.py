"""The events that carry commands: one per device and order, replaced, ended, expired.

A device has at most one that is in force. A newer command of the same order replaces its event; one
of another order makes a new event before the old one goes; a release ends it. A gateway that has
not fetched a command's event before the command expired never sees it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from kapelle.adapters.errands import Command, Said
from kapelle.adapters.inbox import Answer
from kapelle.adapters.openadr import codec
from kapelle.adapters.openadr.clients import Gateways
from kapelle.adapters.openadr.codec import Asked
from kapelle.adapters.openadr.desk import Desk
from kapelle.adapters.openadr.objects import OURS, Kept, Objects
from kapelle.adapters.openadr.periods import duration_s, moment_ns
from kapelle.adapters.openadr.shapes import Event, IntervalPeriod
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock


@dataclass(slots=True)
class _Told:
    """The newest command of a device."""

    asked: Asked
    event_id: str
    not_after_ns: int


class DispatchEvents:
    """What devices are told by events."""

    def __init__(
        self,
        *,
        desk: Callable[[], Desk],
        objects: Objects,
        gateways: Gateways,
        clock: Clock,
        answered: Callable[[Answer], None],
        ended_s: float,
    ) -> None:
        """Make it. `ended_s`: an event that has ended stays so long. [s]"""
        self._desk = desk
        self._objects = objects
        self._gateways = gateways
        self._clock = clock
        self._answered = answered
        self._ended_ns = int(ended_s * NS_PER_S)
        self._told: dict[int, _Told] = {}
        self._by_event: dict[str, _Told] = {}
        self._ends_ns = {
            kept.id: ends_ns
            for kept in objects.all("EVENT")
            if _device_of(kept) >= 0 and (ends_ns := _ends_ns(kept)) is not None
        }
        """When each event of a command is over; worked out once, as reading times takes long."""
        self._in_force = {
            device_no: kept.id
            for kept in objects.all("EVENT")
            if (device_no := _device_of(kept)) >= 0 and not self.is_over(kept)
        }
        """The event each device has, ended ones left out; those of before a restart as well."""
        self._unseen: dict[str, _Told] = {}
        """Commands no gateway has fetched yet, by event."""

    async def carry_out(self, command: Command) -> Said | None:
        """Make the event of a command. That it is there is no evidence of anything."""
        found = self._gateways.of_device(command.device_no)
        if found is None:
            raise ConnectionResetError("its gateway is enrolled no more")
        gateway, resource = found
        device_no, now_ns = command.device_no, self._clock.now_ns()
        is_release = math.isnan(command.setpoint_w)
        before = self._in_force.get(device_no, "")
        event_id = before if is_release and before else f"d{device_no}-o{command.order_no}"
        body = codec.event(command, gateway.target(resource), now_ns)
        asked = Asked(device_no, command.revision, command.epoch, command.setpoint_w)
        self._forget(device_no)
        told = _Told(asked, event_id, command.not_after_ns)
        self._told[device_no] = self._by_event[event_id] = told
        old = self._objects.find("EVENT", event_id)
        kept = Kept("EVENT", event_id, OURS, now_ns, now_ns, body, by_plant=True)
        if old is not None:
            kept = replace(kept, made_at_ns=old.made_at_ns)
        self._unseen[event_id] = told
        self._ends_ns.pop(event_id, None)
        if (ends_ns := _ends_ns(kept)) is not None:
            self._ends_ns[event_id] = ends_ns
        self._desk().put("UPDATE" if old is not None else "CREATE", kept)
        if before and before != event_id:
            # The new one first: between them a gateway that looks must not find none.
            self._remove(before)
        self._in_force.pop(device_no, None)
        if not is_release:
            self._in_force[device_no] = event_id
        return None

    def asked(self, event_id: str) -> Asked | None:
        """Return what an event tells a device; None where it tells nobody anything (any more)."""
        told = self._by_event.get(event_id)
        return told.asked if told is not None else None

    def is_due(self, kept: Kept) -> bool:
        """Tell whether a gateway may be shown an event: not where it would see it too late."""
        told = self._by_event.get(kept.id)
        return told is None or kept.seen or self._clock.now_ns() <= told.not_after_ns

    def is_over(self, kept: Kept) -> bool:
        """Tell whether an event has transpired."""
        ends_ns = self._ends_ns.get(kept.id) or _ends_ns(kept)
        return ends_ns is not None and ends_ns <= self._clock.now_ns()

    def shown(self, client_id: str, kept: Kept) -> bool:
        """Note that a client fetched an event; return whether it is the gateway it commands, and
        had not seen it before."""
        if not self._is_meant(client_id, kept):
            return False
        kept = self._objects.find("EVENT", kept.id) or kept
        if kept.seen:
            return False
        self._unseen.pop(kept.id, None)
        self._desk().note(replace(kept, seen=True))
        return True

    def delivered(self, client_id: str, kept: Kept) -> bool:
        """Note that a client's callback took an event: the gateway has the command. As `shown`."""
        if not self._is_meant(client_id, kept):
            return False
        told = self._by_event.get(kept.id)
        is_same = isinstance(kept.body, Event) and _revision(kept.body) == (
            codec.interval_id(told.asked.revision) if told is not None else -1
        )
        if told is None or not is_same:
            return False
        is_new = self.shown(client_id, kept)
        asked = told.asked
        reason = "its callback was answered"
        self._answered(
            Answer(asked.device_no, asked.revision, AckStatus.RECEIVED, reason, asked.epoch)
        )
        return is_new

    def begin(self) -> None:
        """Withdraw what no gateway had seen before a restart: when it expires is not known."""
        for device_no, event_id in list(self._in_force.items()):
            if not self._is_seen(event_id):
                del self._in_force[device_no]
                self._remove(event_id)

    def sweep(self) -> int:
        """End what expired unseen, forget what ended long ago; return how many expired."""
        now_ns = self._clock.now_ns()
        late = [told for told in self._unseen.values() if now_ns > told.not_after_ns]
        for told in late:
            asked = told.asked
            self._forget(asked.device_no)
            self._in_force.pop(asked.device_no, None)
            self._remove(told.event_id)
            reason = "its gateway did not fetch it in time"
            self._answered(
                Answer(asked.device_no, asked.revision, AckStatus.EXPIRED, reason, asked.epoch)
            )
        self._forget_ended(now_ns)
        return len(late)

    def withdraw(self, device_no: int) -> None:
        """End whatever a device has: it is enrolled no more."""
        self._forget(device_no)
        if event_id := self._in_force.pop(device_no, ""):
            self._remove(event_id)

    def devices(self) -> list[int]:
        """Return the devices that have an event."""
        return list(self._in_force)

    def _forget_ended(self, now_ns: int) -> None:
        forgotten_ns = now_ns - self._ended_ns
        gone = [event_id for event_id, ends_ns in self._ends_ns.items() if ends_ns < forgotten_ns]
        for event_id in gone:
            told = self._by_event.get(event_id)
            if told is not None:
                self._forget(told.asked.device_no)
            device_no = _device_of_id(event_id)
            if self._in_force.get(device_no) == event_id:
                del self._in_force[device_no]
            self._remove(event_id)

    def _is_meant(self, client_id: str, kept: Kept) -> bool:
        """Tell whether this is the gateway an event commands: others may be allowed to see it."""
        found = self._gateways.of_device(_device_of(kept))
        return found is not None and found[0].name == client_id

    def _is_seen(self, event_id: str) -> bool:
        kept = self._objects.find("EVENT", event_id)
        return kept is None or kept.seen

    def _remove(self, event_id: str) -> None:
        self._ends_ns.pop(event_id, None)
        self._unseen.pop(event_id, None)
        kept = self._objects.find("EVENT", event_id)
        if kept is not None:
            self._desk().remove(kept)

    def _forget(self, device_no: int) -> None:
        told = self._told.pop(device_no, None)
        if told is not None:
            self._by_event.pop(told.event_id, None)
            self._unseen.pop(told.event_id, None)


def _device_of(kept: Kept) -> int:
    """Return whose command an event carries, -1 where it carries none."""
    return _device_of_id(kept.id) if kept.by_plant and kept.kind == "EVENT" else -1


def _device_of_id(event_id: str) -> int:
    device, is_one, _ = event_id.removeprefix("d").partition("-o")
    return int(device) if is_one and device.isdigit() else -1


def _revision(body: Event) -> int:
    intervals = body.intervals
    return intervals[0].id if isinstance(intervals, list) and intervals else -1


def _ends_ns(kept: Kept) -> int | None:
    """Return when an event is over; None where it has no end, or none that is known."""
    body = kept.body
    assert isinstance(body, Event)
    intervals = body.intervals if isinstance(body.intervals, list) else []
    own = [
        one.interval_period for one in intervals if isinstance(one.interval_period, IntervalPeriod)
    ]
    count = max(1, len(intervals))
    ends_ns = [_end_ns(one, kept.made_at_ns, 1) for one in own]
    if isinstance(body.interval_period, IntervalPeriod):
        period = body.interval_period
        if isinstance(body.duration, str):
            # Of the whole event: its intervals may be repeated until then.
            period, count = IntervalPeriod(start=period.start, duration=body.duration), 1
        ends_ns.append(_end_ns(period, kept.made_at_ns, count))
    latest_ns = max(ends_ns, default=math.inf)
    return int(latest_ns) if math.isfinite(latest_ns) else None


def _end_ns(period: IntervalPeriod, made_at_ns: int, count: int) -> float:
    if not isinstance(period.start, str) or not isinstance(period.duration, str):
        return math.inf
    start_ns = moment_ns(period.start)
    if start_ns is None:
        return math.inf
    return (start_ns or made_at_ns) + duration_s(period.duration) * NS_PER_S * count
