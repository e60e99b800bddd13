"""The Sparkplug host: on a broker the user already runs, with STATE as birth and will."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kapelle.adapters.errands import Errands
from kapelle.adapters.inbox import Inbox
from kapelle.adapters.link import ConversationLink
from kapelle.adapters.mqtt.client import Will, connected, exposed
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.sparkplug.codec import NAMESPACE, encode_state, state_topic
from kapelle.adapters.sparkplug.host import NAME, Host
from kapelle.adapters.sparkplug.settings import SparkplugSettings
from kapelle.errors import Invalid
from kapelle.ports import Clock, Directory, Link
from kapelle.runtime.background import background

_COMMAND_S = 5.0
_KINDS = ("NBIRTH/+", "NDEATH/+", "NDATA/+", "DBIRTH/+/+", "DDEATH/+/+", "DDATA/+/+")


class SparkplugEndpoint:
    """Adapter for edge nodes and the devices behind them."""

    name = NAME

    def __init__(self, *, settings: SparkplugSettings, directory: Directory, clock: Clock) -> None:
        """Make it. Raises Invalid where the password would cross a network in clear."""
        problems = exposed("sparkplug", settings)
        if problems:
            raise Invalid("[sparkplug] cannot be used", problems)
        self.counters = Counters()
        self._settings = settings
        self._directory = directory
        self._clock = clock

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Connect, say that the host is there, and ask every enrolled edge node for its birth."""
        settings, clock = self._settings, self._clock
        inbox = Inbox(self.name, clock=clock)
        host = Host(
            settings, inbox=inbox, directory=self._directory, clock=clock, counters=self.counters
        )
        filters = [f"{NAMESPACE}/{group}/{kind}" for group in settings.groups for kind in _KINDS]
        state = state_topic(settings.host_id)
        will = Will(state, encode_state(False, host.born_ms), retain=True)
        async with (
            background() as beside,
            connected(
                self.name,
                settings,
                [state, *filters],
                host,
                clock=clock,
                counters=self.counters,
                will=will,
            ),
        ):
            errands = Errands(
                inbox, beside, clock=clock, carry_out=host.carry_out, answer_s=_COMMAND_S
            )
            host.come()
            beside.start(host.ask_for_births(), "sparkplug rebirths")
            try:
                yield ConversationLink(inbox, errands, host.up, self.counters)
            finally:
                host.leave()
