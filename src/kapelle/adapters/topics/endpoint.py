"""A client of a broker the user already runs, for devices that speak words of their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kapelle.adapters.errands import Errands
from kapelle.adapters.inbox import Inbox
from kapelle.adapters.link import ConversationLink
from kapelle.adapters.mqtt.client import connected, exposed
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.topics.listener import NAME, Topics
from kapelle.adapters.topics.settings import TopicsSettings
from kapelle.errors import Invalid
from kapelle.ports import Clock, Directory, Link
from kapelle.runtime.background import background

_COMMAND_S = 5.0


class TopicsEndpoint:
    """Adapter for devices on other people's topics."""

    name = NAME

    def __init__(self, *, settings: TopicsSettings, directory: Directory, clock: Clock) -> None:
        """Make it. Raises Invalid where the password would cross a network in clear."""
        problems = exposed("topics", settings)
        if problems:
            raise Invalid("[topics] cannot be used", problems)
        self.counters = Counters()
        self._settings = settings
        self._directory = directory
        self._clock = clock

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Connect, and listen to what schemes and announcements name."""
        settings, clock, counters = self._settings, self._clock, self.counters
        inbox = Inbox(self.name, clock=clock)
        topics = Topics(
            settings, inbox=inbox, directory=self._directory, clock=clock, counters=counters
        )
        async with (
            background() as beside,
            connected(
                self.name, settings, topics.filters(), topics, clock=clock, counters=counters
            ),
        ):
            errands = Errands(
                inbox, beside, clock=clock, carry_out=topics.carry_out, answer_s=_COMMAND_S
            )
            topics.come()
            beside.start(topics.keep_looking(), "topics")
            try:
                yield ConversationLink(inbox, errands, topics.up, counters)
            finally:
                topics.leave()
