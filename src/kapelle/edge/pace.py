"""How fast what was kept may be sent, beside what is new."""

from kapelle.model.ids import NS_PER_S


class Pace:
    """So many a second in the long run, and a second's worth at once."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left = per_s
        self._at_ns = 0

    def take(self, wanted: int, now_ns: int) -> int:
        """Return how many may be sent now, and count them as sent."""
        elapsed_s = max(0, now_ns - self._at_ns) / NS_PER_S
        self._at_ns = max(self._at_ns, now_ns)
        self._left = min(max(1.0, self._per_s), self._left + elapsed_s * self._per_s)
        given = min(wanted, int(self._left))
        self._left -= given
        return given
