"""A bound on how often something may be done."""

from collections import deque
from dataclasses import dataclass, field

from kapelle.model.ids import NS_PER_S

_MINUTE_NS = 60 * NS_PER_S


@dataclass(slots=True)
class Quota:
    """At most so many a minute, over any minute."""

    per_minute: int
    _at_ns: deque[int] = field(default_factory=deque)

    def step(self, now_ns: int) -> float:
        """Take one and return 0, or take none and return how long to wait. [s]"""
        while self._at_ns and now_ns - self._at_ns[0] >= _MINUTE_NS:
            self._at_ns.popleft()
        if len(self._at_ns) < self.per_minute:
            self._at_ns.append(now_ns)
            return 0.0
        return (self._at_ns[0] + _MINUTE_NS - now_ns) / NS_PER_S
