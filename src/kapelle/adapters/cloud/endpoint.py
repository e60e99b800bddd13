"""The adapter of one vendor's cloud: polls it, hears its webhook, and tells it what to do."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kapelle.adapters.cloud import mapping
from kapelle.adapters.cloud.actions import Actions
from kapelle.adapters.cloud.commands import request
from kapelle.adapters.cloud.counters import Counters
from kapelle.adapters.cloud.intake import Intake
from kapelle.adapters.cloud.polling import Polling
from kapelle.adapters.cloud.presence import Presence
from kapelle.adapters.cloud.requests import Requests, opened
from kapelle.adapters.cloud.settings import CloudSettings
from kapelle.adapters.cloud.webhook import Webhook, refuse
from kapelle.adapters.errands import Command, Errands, Said
from kapelle.adapters.http.problems import Refused
from kapelle.adapters.http.route import Receive, Send
from kapelle.adapters.inbox import Inbox
from kapelle.adapters.link import ConversationLink
from kapelle.model.enums import AckStatus, SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Directory, Link
from kapelle.runtime.background import background

log = logging.getLogger("kapelle.cloud")
_LOOK_S = 0.5
"""How often it is looked who can be reached."""


class Cloud:
    """One vendor's cloud, and the ASGI application of its webhook."""

    def __init__(
        self,
        *,
        settings: CloudSettings,
        directory: Directory,
        clock: Clock,
        file: Path | None = None,
    ) -> None:
        """Make it. `file`: keeps an owner's refresh token; without one it is given again."""
        self.name = settings.name
        self.webhook_path = f"/v1/webhooks/{settings.name}" if settings.webhook.events else ""
        """Route of the API; empty: the vendor delivers nothing."""
        self.counters = Counters()
        self.outage = ""
        """Why it counts as out; empty: it does not."""
        self._settings = settings
        self._directory = directory
        self._clock = clock
        self._file = file
        self._webhook: Webhook | None = None
        self._number = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Begin to poll, and to take deliveries: before and after they are answered 503.

        A cloud that does not answer ends nothing here: its devices count as unreachable.
        """
        settings, clock = self._settings, self._clock
        inbox = Inbox(self.name, clock=clock)
        intake = Intake(self.name, inbox, self._directory, self.counters)
        actions = Actions(settings.actions, inbox.answered)
        presence = Presence(
            noticed_ns=int(settings.noticed_s * NS_PER_S),
            silence_ns=int(self._silence_s() * NS_PER_S),
            now_ns=clock.now_ns(),
        )
        async with (
            opened(settings, self.counters, clock, self._file) as requests,
            background() as beside,
        ):
            polling = Polling(
                settings,
                requests=requests,
                intake=intake,
                presence=presence,
                actions=actions,
                directory=self._directory,
                clock=clock,
            )
            longest_s = max((polling.cadence_s(poll) for poll in settings.polls), default=0.0)
            lasts_s = longest_s + settings.noticed_s if longest_s else 0.0

            async def carry_out(command: Command) -> Said | None:
                return await self._carry_out(command, requests, actions, intake)

            errands = Errands(
                inbox,
                beside,
                clock=clock,
                carry_out=carry_out,
                answer_s=settings.command_s,
                at_once=settings.at_once,
            )
            for poll in settings.polls:
                beside.start(polling.run(poll), f"{self.name} {poll.path}")
            if settings.actions.path:
                beside.start(polling.follow_actions(), f"{self.name} actions")
            beside.start(self._watch(presence, inbox), f"{self.name} presence")
            self._webhook = Webhook(
                settings,
                intake=intake,
                presence=presence,
                actions=actions,
                lasts_ns=int(lasts_s * NS_PER_S),
                counters=self.counters,
                clock=clock,
            )
            try:
                yield ConversationLink(inbox, errands, presence.up, self.counters)
            finally:
                self._webhook = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one delivery of the webhook."""
        if self._webhook is None:
            await refuse(
                send, Refused(503, "not-open", "the plant starts or stops; deliver it again")
            )
            return
        await self._webhook(scope, receive, send)

    def _silence_s(self) -> float:
        settings = self._settings
        if settings.polls:
            return max(min(poll.every_s for poll in settings.polls), 1 / settings.requests_per_s)
        return settings.webhook.heartbeat_s

    async def _watch(self, presence: Presence, inbox: Inbox) -> None:
        """Tell who comes and goes."""
        while True:
            was_out = presence.is_out
            enrolled = set(self._directory.reached_by(self.name).values())
            now_ns = self._clock.now_ns()
            changes = presence.step(enrolled, now_ns)
            if changes:
                # Numbers also rise over restarts, as long as UTC does.
                self._number = max(self._number + 1, now_ns)
            for change in changes:
                inbox.session(change.device_no, change.event, self._number)
            down = Counter(c.reason for c in changes if c.event is SessionEvent.DOWN)
            self.counters.drops.update(down)
            self.counters.connected += len(changes) - down.total()
            self.counters.sessions = len(presence.up)
            silent = presence.why or "nothing is heard of it"
            self.outage = silent if presence.is_out else ""
            if presence.is_out and not was_out:
                self.counters.outages += 1
                log.warning(
                    "a cloud does not answer: its devices count as unreachable",
                    extra={"cloud": self.name, "devices": down.total(), "reason": silent},
                )
            await self._clock.sleep(_LOOK_S)

    async def _carry_out(
        self, command: Command, requests: Requests, actions: Actions, intake: Intake
    ) -> Said | None:
        """Tell a device, by one request. Raises OSError where nobody knows whether it was told."""
        seen = intake.seen(command.device_no)
        if seen is None:
            raise ConnectionError("the cloud does not reach it by this name")
        made = request(
            self._settings.commands,
            setpoint_w=command.setpoint_w,
            revert_s=command.revert_s,
            revision=command.revision,
            address=seen.address,
            shape=seen.shape,
        )
        if isinstance(made, str):
            return Said(AckStatus.REJECTED, made)
        response = await requests.command(made, command.not_after_ns)
        if response is None:
            return Said(AckStatus.EXPIRED, "expired while the vendor's quota was used up")
        if response.is_of_the_cloud:
            raise ConnectionError(f"HTTP {response.status}")
        if not response.is_taken:
            return Said(AckStatus.REJECTED, f"the vendor answers {response.status}")
        self.counters.commands_received += 1
        return actions.begin(command, mapping.decode(response.body), self._clock.now_ns())
