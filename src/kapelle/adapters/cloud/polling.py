"""Asks a cloud for its documents, each at its cadence."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from kapelle.adapters.cloud import mapping
from kapelle.adapters.cloud.actions import Actions
from kapelle.adapters.cloud.commands import fill
from kapelle.adapters.cloud.documents import CloudPoll, CloudShape
from kapelle.adapters.cloud.intake import Intake
from kapelle.adapters.cloud.mapping import Broken, Item
from kapelle.adapters.cloud.presence import Presence
from kapelle.adapters.cloud.requests import Requests
from kapelle.adapters.cloud.settings import CloudSettings
from kapelle.adapters.inbox import NotStored
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Directory

log = logging.getLogger("kapelle.cloud")
_NONE: Mapping[str, str] = MappingProxyType({})
_PAUSE_S_FIRST = 1.0
_IDLE_S = 1.0
"""How often an empty list of devices is looked at again."""


class Polling:
    """Everything that is asked of one cloud without anybody waiting for it."""

    def __init__(
        self,
        settings: CloudSettings,
        *,
        requests: Requests,
        intake: Intake,
        presence: Presence,
        actions: Actions,
        directory: Directory,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._requests = requests
        self._intake = intake
        self._presence = presence
        self._actions = actions
        self._directory = directory
        self._clock = clock
        self._shapes = {shape.name: shape for shape in settings.shapes}
        self._pages_of = {poll.path: 1 for poll in settings.polls if not poll.is_by_device}
        """Pages of each list, as many as there ever were."""
        self._took_s: dict[str, float] = {}
        """How long a round of each poll takes: a vendor may be slower than its quota. [s]"""
        self._unseen = {shape.name: set(shape.paths) for shape in settings.shapes}
        """Per shape: paths no document has had so far."""
        self._looked: set[str] = set()
        """Shapes that came, and whose unseen paths are not said yet."""
        self._draw = random.Random(settings.base_url)

    def cadence_s(self, poll: CloudPoll) -> float:
        """Return how often a device is asked for, by what quota and vendor allow. [s]"""
        if not poll.is_by_device:
            count = sum(self._pages_of.values())
        else:
            count = len(self._directory.reached_by(self._settings.name))
        took_s = self._took_s.get(poll.path, 0.0)
        return max(poll.every_s, count / self._settings.requests_per_s, took_s)

    async def run(self, poll: CloudPoll) -> None:
        """Ask for one document for ever. What fails is tried again, later each time."""
        while True:
            began_ns = self._clock.now_ns()
            if poll.is_by_device:
                await self._every_device(poll)
            else:
                await self._whole_list(poll)
            rest_s = poll.every_s - self._since_s(began_ns)
            await self._say_unseen(poll)
            await self._clock.sleep(max(rest_s, 0.0))

    async def follow_actions(self) -> None:
        """Ask what became of commands the vendor has accepted."""
        actions = self._settings.actions
        while True:
            await self._clock.sleep(actions.every_s)
            for name in self._actions.under_way(self._clock.now_ns()):
                try:
                    path = fill(actions.path, action=name)
                except ValueError:
                    continue
                document = await self._document(path)
                if not isinstance(document, Broken):
                    self._actions.heard(document)

    async def _whole_list(self, poll: CloudPoll) -> None:
        pause_s = _PAUSE_S_FIRST
        while not await self._pages(poll):
            await self._clock.sleep(self._draw.uniform(pause_s / 2, pause_s))
            pause_s = min(2 * pause_s, self._settings.retry_s_max)

    async def _every_device(self, poll: CloudPoll) -> None:
        waiting = list(self._directory.reached_by(self._settings.name))
        if not waiting:
            await self._clock.sleep(_IDLE_S)
            return

        count, began_ns = len(waiting), self._clock.now_ns()

        def note() -> None:
            share = (count - len(waiting)) / count
            self._took_s[poll.path] = self._since_s(began_ns) / share

        async def work() -> None:
            while waiting:
                await self._one_device(poll, waiting.pop(), note)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self._settings.at_once, count)):
                tasks.create_task(work())

    async def _one_device(self, poll: CloudPoll, address: str, note: Callable[[], None]) -> None:
        try:
            path = fill(poll.path, address=address)
        except ValueError:
            return
        document = await self._document(path)
        if isinstance(document, Broken):
            return
        shape = self._shapes[poll.shape]
        found = mapping.at(document, poll.items)
        note()
        self._see(shape, [found])
        await self._take(poll, [mapping.read(found, shape, address)])

    async def _pages(self, poll: CloudPoll) -> bool:
        """Ask for a list, page after page; return whether all of it came."""
        shape, cursor, began_ns = self._shapes[poll.shape], "", self._clock.now_ns()
        for page in range(1, self._settings.pages_max + 1):
            params = {poll.next_parameter: cursor} if cursor else {}
            document = await self._document(poll.path, params, poll)
            if isinstance(document, Broken):
                return False
            found = mapping.parts(document, poll.items, self._settings.items_max)
            assert not isinstance(found, Broken)
            self._pages_of[poll.path] = max(self._pages_of[poll.path], page)
            self._see(shape, found)
            await self._take(poll, [mapping.read(item, shape) for item in found])
            after = mapping.text(document, poll.next) if poll.next else ""
            self._took_s[poll.path] = max(
                self._since_s(began_ns), self._took_s.get(poll.path, 0.0) if after else 0.0
            )
            if not after or after == cursor:
                return True
            cursor = after
        most = f"more than {self._settings.pages_max} pages; mend `next`, or raise `pages_max`"
        await self._keep(f"too-many: {poll.next}: leads to {most}", b"")
        return True

    def _see(self, shape: CloudShape, documents: Sequence[object]) -> None:
        """Note which paths of the mapping were met with; costs nothing once all were."""
        unseen = self._unseen[shape.name]
        if documents and unseen:
            self._looked.add(shape.name)
            unseen -= {path for path in unseen if any(mapping.has(d, path) for d in documents)}

    async def _say_unseen(self, poll: CloudPoll) -> None:
        """Say once, after the first documents, which paths of the mapping lead nowhere."""
        if poll.shape in self._looked:
            self._looked.discard(poll.shape)
            for path in sorted(self._unseen[poll.shape]):
                where = f"stands in no document that came for shape {poll.shape}"
                await self._keep(f"path: {path}: {where}; mend it in the mapping", b"")
            self._unseen[poll.shape].clear()

    async def _document(
        self, path: str, params: Mapping[str, str] = _NONE, listing: CloudPoll | None = None
    ) -> object:
        """Return a document, or `Broken` where none came. Notes whether the cloud answers.

        `listing`: it is to hold the list this poll asks for.
        """
        asked_ns = self._clock.now_ns()
        try:
            response = await self._requests.poll(path, params)
        except OSError as error:
            why = str(error) or type(error).__name__
            self._presence.failed(asked_ns, f"{path}: {why}")
            return Broken(why)
        if not response.is_taken:
            # An error about one device says that the cloud lives; about a list, that it is gone.
            if response.is_of_the_cloud or listing:
                self._presence.failed(asked_ns, f"{path}: HTTP {response.status}")
            else:
                self._answered()
            return Broken(f"HTTP {response.status}")
        document = mapping.decode(response.body)
        if listing and not isinstance(document, Broken):
            found = mapping.parts(document, listing.items, self._settings.items_max)
            document = found if isinstance(found, Broken) else document
        if isinstance(document, Broken):
            self._presence.failed(asked_ns, f"{path}: {document.reason}")
            await self._keep(document.reason, response.body)
            return document
        self._answered()
        return document

    def _since_s(self, began_ns: int) -> float:
        return (self._clock.now_ns() - began_ns) / NS_PER_S

    def _answered(self) -> None:
        if self._presence.answered(self._clock.now_ns()):
            log.info("a cloud answers again", extra={"cloud": self._settings.name})

    async def _take(self, poll: CloudPoll, items: Sequence[Item]) -> None:
        try:
            numbers = await self._intake.take(items)
        except NotStored:
            # The next poll brings it again.
            return
        now_ns = self._clock.now_ns()
        lasts_s = self.cadence_s(poll) + self._settings.noticed_s
        for number, item in zip(numbers, items, strict=True):
            if number >= 0:
                self._presence.named(number, item.reachable, now_ns, int(lasts_s * NS_PER_S))

    async def _keep(self, reason: str, raw: bytes) -> None:
        try:
            await self._intake.unreadable(reason, raw)
        except NotStored:
            log.debug("an unreadable document was not kept", extra={"cloud": self._settings.name})
