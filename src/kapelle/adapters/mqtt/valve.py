"""Stops and resumes reading from one connection, for several reasons at once."""

import asyncio

FULL, INFLIGHT, RATE = "intake full", "too many unanswered", "above its rate"
"""Why a connection is not read for a while."""


class Valve:
    """Open until somebody holds it; open again when the last reason is gone."""

    __slots__ = ("_transport", "reasons")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.reasons: tuple[str, ...] = ()

    def hold(self, why: str) -> bool:
        """Stop reading; return whether this reason is new."""
        if why in self.reasons:
            return False
        if not self.reasons and not self._transport.is_closing():
            self._transport.pause_reading()
        self.reasons = (*self.reasons, why)
        return True

    def release(self, why: str) -> bool:
        """Take a reason back; return whether reading goes on now and did not before."""
        if why not in self.reasons:
            return False
        self.reasons = tuple(other for other in self.reasons if other != why)
        if self.reasons or self._transport.is_closing():
            return False
        self._transport.resume_reading()
        return True
