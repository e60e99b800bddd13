"""What one client of the small broker subscribed to, and what it has not acknowledged. Pure."""

import math
from collections import deque
from typing import NamedTuple, Protocol

INFLIGHT_MAX = 1_000
"""Messages at QoS 1 on their way to one client."""
WAITING_MAX = 10_000
"""Messages that wait for one client; a full queue takes no newer ones."""


class Wire(Protocol):
    """A connection with a client."""

    is_open: bool
    """Whether the client reads what is written."""

    def deliver(self, message: "Message", packet_id: int) -> None:
        """Write a message."""

    def abort(self) -> None:
        """Break the connection."""


class Message(NamedTuple):
    """One publication, on its way to one client."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    """To one client: it was there before the client subscribed."""
    at_s: float = math.nan
    """When a simulated device made it. [s]"""


class Subscriber:
    """What one client subscribed to, and what it has not acknowledged."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kept = False
        """It outlives its connection."""
        self.inflight_max = INFLIGHT_MAX
        self.connection: Wire | None = None
        self._filters: dict[str, tuple[list[str], int]] = {}
        self._waiting: deque[Message] = deque()
        self._unanswered: dict[int, Message] = {}
        self._last_id = 0

    def subscribe(self, name: str, qos: int) -> None:
        """Take in a filter, or another QoS for one."""
        self._filters[name] = name.split("/"), qos

    def unsubscribe(self, name: str) -> bool:
        """Forget a filter; return whether it was known."""
        return self._filters.pop(name, None) is not None

    def granted(self, topic: str) -> int:
        """Return the highest QoS a topic was subscribed to at; -1 for none."""
        return max((qos for at, qos in self._filters.values() if matches(at, topic)), default=-1)

    def take(self, message: Message) -> bool:
        """Send a message, or keep it until that can be; return whether there was room."""
        if self.connection is None and not message.qos:
            return True
        if len(self._waiting) >= WAITING_MAX:
            return False
        self._waiting.append(message)
        self.pour()
        return True

    def pour(self) -> None:
        """Send what waits, as far as the client takes it."""
        connection = self.connection
        while connection is not None and connection.is_open and self._waiting:
            packet_id = 0
            if self._waiting[0].qos:
                if len(self._unanswered) >= self.inflight_max:
                    return
                packet_id = self._next_id()
                self._unanswered[packet_id] = self._waiting[0]
            connection.deliver(self._waiting.popleft(), packet_id)

    def answered(self, packet_id: int) -> float:
        """Take a PUBACK; return when a device made its message, NaN where none did."""
        message = self._unanswered.pop(packet_id, None)
        self.pour()
        return message.at_s if message is not None else math.nan

    def leave(self) -> None:
        """Lose the connection; what was not acknowledged is first in line for the next."""
        self.connection = None
        self._waiting.extendleft(reversed(self._unanswered.values()))
        self._unanswered.clear()

    def _next_id(self) -> int:
        self._last_id = self._last_id % 0xFFFF + 1
        while self._last_id in self._unanswered:
            self._last_id = self._last_id % 0xFFFF + 1
        return self._last_id


def is_filter(name: str) -> bool:
    """Tell whether a filter can be subscribed to; shared ones cannot (MQTT 5.0, 4.7.1)."""
    steps = name.split("/")
    whole = all(len(step) == 1 for step in steps if set(step) & set("+#"))
    return bool(name) and whole and "#" not in steps[:-1] and steps[0] != "$share"


def matches(steps: list[str], topic: str) -> bool:
    """Tell whether a topic is one of a filter's (MQTT 5.0, 4.7)."""
    if topic[:1] == "$" and steps[0] in ("+", "#"):
        return False
    levels = topic.split("/")
    if steps[-1] == "#":
        steps = steps[:-1]
        levels = levels[: len(steps)]
    return len(steps) == len(levels) and all(
        step in ("+", level) for step, level in zip(steps, levels, strict=True)
    )
