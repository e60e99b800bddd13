"""A token bucket: a long-run rate with a burst. Pure; the caller brings the time."""

_SECOND_NS = 1_000_000_000


class TokenBucket:
    """Tokens that refill at a rate up to a burst; taking may go below zero."""

    __slots__ = ("_at_ns", "_burst", "_rate", "tokens")

    def __init__(self, rate: float, burst: float, now_ns: int) -> None:
        """Start full. `rate`: tokens per second."""
        self._rate = rate / _SECOND_NS
        self._burst = float(burst)
        self._at_ns = now_ns
        self.tokens = self._burst

    def take(self, count: int, now_ns: int) -> float:
        """Take tokens; return how long until none are owed. [s] 0 where there were enough."""
        tokens = self.tokens + (now_ns - self._at_ns) * self._rate
        if tokens > self._burst:
            tokens = self._burst
        self._at_ns = now_ns
        self.tokens = tokens = tokens - count
        return 0.0 if tokens >= 0 else -tokens / (self._rate * _SECOND_NS)
