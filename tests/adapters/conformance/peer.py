"""A device of some protocol, as far as the promises need one.

Each protocol has one, made of a client nobody here wrote where there is such a client.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from kapelle.ports import Adapter
from kapelle.registry.directory import Directory


class Peer(Protocol):
    """The battery `plant.DEVICE`, 5 kW both ways. Powers here are positive towards the grid."""

    async def report(self, power_w: float) -> bool:
        """Say what is measured in the protocol's own words; return whether it was acknowledged.

        False where the plant did not take it: refused, or no answer within a second.
        """

    async def babble(self) -> None:
        """Send what no device should, with the device's own credentials."""

    async def told(self) -> list[float | None]:
        """Return what it was told since it connected, oldest first, translated back.

        None where it was released to its own schedule.
        """

    async def cut(self) -> None:
        """Break the connection without a word."""


class Trial(Protocol):
    """How one protocol is tried."""

    name: str
    commands: bool
    """It can tell devices something. False: it only reads."""
    sessions: bool
    """It knows of connections that come and go."""

    def adapter(self) -> tuple[Adapter, Directory]:
        """Return an adapter on a free loopback port, and a directory that knows the device."""

    def connect(self, adapter: Adapter) -> AbstractAsyncContextManager[Peer]:
        """Connect the device; returns when the plant may speak to it."""

    def stranger(self, adapter: Adapter) -> AbstractAsyncContextManager[Peer]:
        """Connect somebody with wrong credentials; raises ConnectionError where he is refused."""
