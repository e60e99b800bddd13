"""What a connection needs from whoever listens for connections."""

from typing import Protocol, TypeVar

from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.mqtt.intake import Intake
from kapelle.adapters.mqtt.packets import Connect
from kapelle.adapters.mqtt.settings import MqttSettings
from kapelle.ports import Clock

Peer = TypeVar("Peer", contravariant=True)


class Host(Protocol[Peer]):
    """Admits connections and keeps watch over them."""

    settings: MqttSettings
    clock: Clock
    counters: Counters
    intake: Intake

    def greeted(self, session: Peer) -> None:
        """Expect CONNECT from a new connection."""

    def admit(self, session: Peer, connect: Connect) -> None:
        """Answer CONNECT."""

    def awaits_answer(self, session: Peer, awaits: bool) -> None:
        """Expect the PUBACK of a command within its time, or no more."""

    def hold_everybody(self) -> None:
        """Stop reading from every device until the intake has room."""

    def ended(self, session: Peer) -> None:
        """Forget a connection."""
