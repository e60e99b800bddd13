"""Which devices a vendor's cloud reaches: one outage for all of them, or one of a device. Pure."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from kapelle.model.enums import SessionEvent

_FOREVER = 2**63 - 1
_NEVER = -1


class Change(NamedTuple):
    """A device that can, or can no longer, be reached."""

    device_no: int
    event: SessionEvent
    reason: str


class Presence:
    """What is known of a cloud and of the devices behind it.

    A device is present while the cloud answers, names it, and does not say itself that it cannot
    reach it. A cloud is out when every request has failed for `noticed_s`, or none was answered
    for a cadence and as long: then all its devices go at once, so that dispatch replaces the group
    and not one after the other.
    """

    def __init__(self, *, noticed_ns: int, silence_ns: int, now_ns: int) -> None:
        """Begin. `silence_ns`: longest time between two answers, 0 where none is expected."""
        self.up: set[int] = set()
        """Devices that can be reached."""
        self.is_out = False
        self.why = ""
        """What came of the last request that was not answered."""
        self._noticed_ns = noticed_ns
        self._silence_ns = silence_ns
        self._began_ns = self._answered_ns = now_ns
        self._failing_since_ns = _NEVER
        self._until_ns: dict[int, int] = {}
        """Until when each device that was named counts as known."""
        self._said_ns: dict[int, int] = {}
        """Of when the newest word about each device is."""
        self._told_down: set[int] = set()

    def answered(self, at_ns: int) -> bool:
        """Note that the cloud answered at a moment; return whether that ends an outage."""
        if at_ns < self._answered_ns:
            return False
        self._answered_ns = at_ns
        self._failing_since_ns = _NEVER
        was_out, self.is_out = self.is_out, False
        return was_out

    def failed(self, since_ns: int, why: str) -> None:
        """Note that a request, made at a moment, was not answered, and what came instead."""
        self.why = why
        if self._failing_since_ns == _NEVER:
            self._failing_since_ns = since_ns

    def named(self, device_no: int, reachable: bool | None, at_ns: int, lasts_ns: int) -> None:
        """Note what the cloud said of a device at a moment. `lasts_ns`: for how long; 0 for good.

        A word older than the newest changes nothing, however late it comes, or comes again.
        """
        if at_ns < self._said_ns.get(device_no, 0):
            return
        self._said_ns[device_no] = at_ns
        if reachable is False:
            self._until_ns[device_no] = _NEVER
        else:
            until_ns = at_ns + lasts_ns if lasts_ns else _FOREVER
            self._until_ns[device_no] = max(until_ns, self._until_ns.get(device_no, _NEVER))

    def step(self, enrolled: Collection[int], now_ns: int) -> list[Change]:
        """Return who has come and gone since the last time.

        Whoever is not seen in time is told down once, too: an earlier process may have left it as
        present.
        """
        if not self.is_out and self._is_silent(now_ns):
            self.is_out = True
            self._until_ns.clear()
        for number in [n for n in self._said_ns if n not in enrolled]:
            del self._said_ns[number]
            self._until_ns.pop(number, None)
        removed = sorted(self.up.difference(enrolled))
        changes = [self._down(number, "removed") for number in removed]
        self._told_down.intersection_update(enrolled)
        for number in sorted(enrolled):
            changes.extend(self._step_one(number, now_ns))
        return changes

    def _step_one(self, number: int, now_ns: int) -> Iterable[Change]:
        until_ns = self._until_ns.get(number)
        # A webhook may go on while the API is out: no command would reach the device.
        if until_ns is not None and until_ns >= now_ns and not self.is_out:
            if number not in self.up:
                self.up.add(number)
                self._told_down.discard(number)
                yield Change(number, SessionEvent.UP, "")
        elif number in self.up or (
            number not in self._told_down and self._is_lost(until_ns, now_ns)
        ):
            why = "unreachable" if until_ns == _NEVER else "not named"
            yield self._down(number, "outage" if self.is_out else why)

    def _is_lost(self, until_ns: int | None, now_ns: int) -> bool:
        patience_ns = self._silence_ns + self._noticed_ns
        return self.is_out or until_ns is not None or now_ns - self._began_ns >= patience_ns

    def _down(self, number: int, reason: str) -> Change:
        self.up.discard(number)
        self._told_down.add(number)
        return Change(number, SessionEvent.DOWN, reason)

    def _is_silent(self, now_ns: int) -> bool:
        failing_ns = self._failing_since_ns
        if failing_ns != _NEVER and now_ns - failing_ns >= self._noticed_ns:
            return True
        silent_ns = now_ns - self._answered_ns
        return bool(self._silence_ns) and silent_ns >= self._silence_ns + self._noticed_ns
