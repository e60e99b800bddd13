"""One connection of one device as bytes: what is written, what holds reading back, how it ends."""

import asyncio
from typing import Never, cast

from kapelle.adapters.mqtt.host import Host
from kapelle.adapters.mqtt.valve import FULL, Valve

_GOODBYE_S = 5.0


class Wire(asyncio.Protocol):
    """What a `Session` writes to, and is read from."""

    __slots__ = ("_endpoint", "_transport", "_valve", "closed", "heard_ns", "silence_ns_max")

    def __init__(self, endpoint: "Host[Never]") -> None:
        self._endpoint = endpoint
        self._transport: asyncio.Transport | None = None
        self._valve: Valve | None = None
        self.closed = False
        self.heard_ns = 0
        self.silence_ns_max = 0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(self._endpoint.settings.write_buffer_max)
        self._valve = Valve(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, whoever ended it."""
        self.closed = True
        self._transport = self._valve = None

    def pause_writing(self) -> None:
        """Drop a device that does not read: what waits for it must not fill our memory."""
        self.drop("slow reader")

    def resume_writing(self) -> None:
        """Nothing to do: a slow reader is gone by then."""

    # Reading less.

    def _hold(self, why: str) -> None:
        if self._valve is not None and not self.closed and self._valve.hold(why):
            self._endpoint.counters.held[why] += 1

    def _release(self, why: str) -> None:
        if self._valve is not None and not self.closed and self._valve.release(why):
            # While we did not read, the device could not be heard.
            self.heard_ns = self._endpoint.clock.now_ns()

    def hold_full(self) -> None:
        """Stop reading until the intake has room."""
        if self._valve is not None and FULL not in self._valve.reasons:
            self._hold(FULL)
            self._endpoint.intake.when_room(lambda: self._release(FULL))

    def overdue(self, now_ns: int) -> bool:
        """Tell whether the device has been silent for longer than its keep-alive allows."""
        held = self._valve is not None and self._valve.reasons
        return not held and now_ns - self.heard_ns > self.silence_ns_max

    # Writing, and the end.

    def write(self, packet: bytes) -> None:
        """Write to the device, if it is still there."""
        if self._transport is not None and not self.closed and packet:
            self._endpoint.counters.sent_size += len(packet)
            self._transport.write(packet)

    def drop(self, why: str) -> None:
        """Cut the connection at once."""
        if self._transport is not None:
            self._endpoint.counters.dropped[why] += 1
            self.closed = True
            self._transport.abort()

    def _closing(self) -> None:
        """Let whoever listens forget it."""

    def _close(self, last: bytes) -> None:
        if self._transport is None or self.closed:
            return
        self.write(last)
        self.closed = True
        self._closing()
        self._transport.close()
        # A peer that does not read our last words would keep the socket for many minutes.
        asyncio.get_running_loop().call_later(_GOODBYE_S, self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
