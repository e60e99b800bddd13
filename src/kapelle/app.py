"""Joins the rooms: the only file that knows them all. Each role needs only the journal to work."""

import asyncio
import logging
import os
import random
import shutil
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from kapelle.adapters.http.route import HttpTelemetry
from kapelle.adapters.mqtt.bridge import BrokerClient
from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.replay.link import Replay
from kapelle.api import server
from kapelle.api.history_desk import HistoryDesk
from kapelle.api.quarantine_desk import QuarantineDesk
from kapelle.api.service import Api
from kapelle.api.sources import Disk, LinkState, Sources
from kapelle.api.token import load_token
from kapelle.api.watch import Watch
from kapelle.config import API_TOKEN, Config
from kapelle.dispatch.delivery import decide
from kapelle.dispatch.idle import depends_on_time
from kapelle.dispatch.service import Dispatcher
from kapelle.errors import JournalDamaged, JournalFailed
from kapelle.fleet.service import PartitionOwner
from kapelle.fleet.timings import Timings
from kapelle.history.counters import Counters as HistoryCounters
from kapelle.history.ledger import Ledger
from kapelle.history.quarantine import Quarantine
from kapelle.history.quarantine_service import QuarantineFollower
from kapelle.history.reader import Reader
from kapelle.history.service import READER, Recorder
from kapelle.ingest.breaker import Breaker
from kapelle.ingest.service import Counters, Ingest
from kapelle.journal.directories import newest_snapshots
from kapelle.journal.lock import take_directories
from kapelle.journal.sqlite import SqliteJournal, open_journal
from kapelle.journal.store import check_moved
from kapelle.model.ids import NS_PER_S, PLANT, partition_topic
from kapelle.ports import Adapter, Clock, Directory, Journal, Link
from kapelle.registry.directory import Directory as Enrolments
from kapelle.registry.persons import People
from kapelle.registry.service import OutboxPump, PeopleWatch
from kapelle.registry.store import Registry
from kapelle.runtime.archive import noted_backup_ns
from kapelle.runtime.clock import SystemClock
from kapelle.runtime.progress import Progress
from kapelle.runtime.supervise import keep_open, leave_if_asked
from kapelle.safety.service import LastHop

HOLD_FILE = "HOLD"
"""In the data directory; `touch` is enough."""
_RECORDER_PAUSE_S = 1.0
_RECORDER_PAUSE_S_MAX = 60.0
_NEVER = 2**31
_CLOCK_LOOK_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Doors:
    """What a role stands on: its settings, and who is behind each port."""

    config: Config
    clock: Clock
    journal: Journal
    directory: Directory
    adapters: Sequence[Adapter]
    counters: dict[str, Counters] = field(default_factory=dict)
    """What ingest counted, by adapter."""
    breakers: dict[str, Breaker] = field(default_factory=dict)
    """Who is muted, by adapter."""
    quarantine: QuarantineFollower | None = None
    """None where this process keeps no quarantine."""
    timings: Timings = field(default_factory=Timings)
    """How long commands took, of the owners here."""
    blocked: Counter[str] = field(default_factory=Counter)
    """Commands the safety envelope stopped, by rule."""
    opened: dict[str, LinkState] = field(default_factory=dict)
    """Whether each adapter's link is open."""
    owners: dict[int, PartitionOwner] = field(default_factory=dict)
    """Who keeps each partition, where this process does."""
    history: HistoryCounters = field(default_factory=HistoryCounters)
    """What the recorder counted."""
    ledger: Progress = field(default_factory=Progress)
    """A step for each time the recorder let the ledger work."""
    hold_file: Path | None = None
    """While it is there, the plant is held."""
    last_hops: list[LastHop] = field(default_factory=list)
    """Those that run in this process."""
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}/{os.getpid()}")
    """Named to whoever finds our leases taken."""

    def stop(self, reason: str, by: str, *, told: bool = False) -> bool:
        """Hold the plant at once, without waiting for the journal; see `LastHop.stop`.

        Returns:
            Whether a last hop of this process took it; others hear of it from the journal.
        """
        for last_hop in self.last_hops:
            last_hop.stop(reason, by, told=told)
        return bool(self.last_hops)


async def run_gateway(doors: Doors) -> None:
    """Bring what devices say into the journal, and commands through the last hop to them."""
    config = doors.config
    last_hop = LastHop(
        journal=doors.journal,
        directory=doors.directory,
        clock=doors.clock,
        settings=config.safety,
        partitions=config.plant.partitions,
        hold_file=doors.hold_file,
    )

    last_hop.refused = doors.blocked

    async def serve(name: str, link: Link) -> None:
        # What an operator lets out of quarantine mutes nobody.
        unmuted = replace(config.ingest, bad_per_minute=_NEVER, unresolved_per_minute=_NEVER)
        ingest = Ingest(
            journal=doors.journal,
            directory=doors.directory,
            clock=doors.clock,
            settings=unmuted if name == Replay.name else config.ingest,
        )
        ingest.counters = doors.counters.setdefault(name, ingest.counters)
        ingest.breaker = doors.breakers.setdefault(name, ingest.breaker)
        last_hop.links.append(link)
        doors.opened[name] = LinkState(True, doors.clock.now_ns())
        try:
            await ingest.run(link)
        finally:
            doors.opened[name] = LinkState(False, doors.clock.now_ns())
            last_hop.links.remove(link)

    draw = random.Random(doors.holder)
    for adapter in doors.adapters:
        doors.opened.setdefault(adapter.name, LinkState(False, doors.clock.now_ns()))
    doors.last_hops.append(last_hop)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(last_hop.run(), name="last hop")
            for adapter in doors.adapters:
                use = partial(serve, adapter.name)
                opened = keep_open(adapter, use, clock=doors.clock, draw=draw)
                tasks.create_task(opened, name=f"adapter {adapter.name}")
    finally:
        doors.last_hops.remove(last_hop)


async def run_fleet(doors: Doors) -> None:
    """Own every partition."""
    config = doors.config
    async with asyncio.TaskGroup() as tasks:
        for partition in range(config.plant.partitions):
            owner = PartitionOwner(
                partition=partition,
                partitions=config.plant.partitions,
                journal=doors.journal,
                clock=doors.clock,
                settings=config.fleet,
                decide=lambda fleet, epoch: decide(fleet, config.dispatch, epoch),
                holder=doors.holder,
                timings=doors.timings,
                caps=config.dispatch.caps,
                vendor_share_max=config.dispatch.vendor_share_max,
            )
            doors.owners[partition] = owner
            tasks.create_task(owner.run(), name=f"owner {partition}")


async def run_dispatch(doors: Doors) -> None:
    """Turn orders into signals."""
    await Dispatcher(
        journal=doors.journal,
        clock=doors.clock,
        settings=doors.config.dispatch,
        partitions=doors.config.plant.partitions,
        holder=doors.holder,
    ).run()


async def run_recorder(doors: Doors) -> None:
    """Keep the long record.

    Where that fails, be it a disk or an entry it cannot use, the plant goes on, and the recorder
    is started again after a pause: the journal keeps for it what it has not taken over.
    """
    config = doors.config
    if not config.history.enabled:
        await _let_go(doors)
        return
    pause_s = _RECORDER_PAUSE_S
    failing_ns = 0
    while True:
        began_ns = doors.clock.now_ns()
        try:
            await Recorder(
                journal=doors.journal,
                clock=doors.clock,
                settings=config.history,
                directory=config.history_directory,
                partitions=config.plant.partitions,
                counters=doors.history,
                ledger=lambda store: Ledger(store, config.plant.partitions),
                drawn=doors.ledger,
            ).run()
        except (JournalFailed, JournalDamaged):
            raise
        except Exception as failed:
            leave_if_asked()
            # Whatever it is, dispatch goes on.
            if not doors.history.reason:
                log.error("the history is not written", exc_info=failed)
                failing_ns = doors.clock.now_ns()
            doors.history.failures += 1
            doors.history.reason = str(failed) or type(failed).__name__
            if doors.clock.now_ns() - failing_ns > config.history.hold_s * NS_PER_S:
                log.error("the journal goes on without the history")
                await _let_go(doors)
        if doors.clock.now_ns() - began_ns > _RECORDER_PAUSE_S_MAX * NS_PER_S:
            pause_s = _RECORDER_PAUSE_S
        await doors.clock.sleep(pause_s)
        pause_s = min(2 * pause_s, _RECORDER_PAUSE_S_MAX)


async def run_quarantine(doors: Doors) -> None:
    """Keep what could not be used where it can be looked at."""
    if doors.quarantine is not None:
        await doors.quarantine.run()


async def _let_go(doors: Doors) -> None:
    for topic in [partition_topic(p) for p in range(doors.config.plant.partitions)] + [PLANT]:
        await doors.journal.unmark(topic, READER)


class Plant:
    """All roles in one process, on the embedded journal."""

    def __init__(
        self, doors: Doors, registry: Registry, api: Api, watch: Watch, people: People
    ) -> None:
        self.people = people
        self.doors = doors
        self.registry = registry
        self.api = api
        self.watch = watch

    async def run(self) -> None:
        """Run until cancelled, or until something fails that the plant must not survive."""
        enrolments = self.doors.directory
        assert isinstance(enrolments, Enrolments)
        pump = OutboxPump(
            registry=self.registry,
            journal=self.doors.journal,
            directory=enrolments,
            clock=self.doors.clock,
            settings=self.doors.config.registry,
        )
        # Whoever connects first must be known already.
        await pump.turn()
        tokens = PeopleWatch(registry=self.registry, people=self.people, clock=self.doors.clock)
        await tokens.turn()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pump.run(), name="registry outbox")
            tasks.create_task(tokens.run(), name="registry persons")
            tasks.create_task(run_fleet(self.doors), name="fleet")
            tasks.create_task(run_dispatch(self.doors), name="dispatch")
            tasks.create_task(run_gateway(self.doors), name="gateway")
            tasks.create_task(run_recorder(self.doors), name="history")
            tasks.create_task(run_quarantine(self.doors), name="quarantine")
            tasks.create_task(self.api.run(), name="api")
            tasks.create_task(self._free_clock(), name="clock")

    async def _free_clock(self) -> None:
        """Let the plant's time follow a host clock that was set, where no order depends on it."""
        clock, watch = self.doors.clock, self.watch
        assert isinstance(clock, SystemClock)
        # Nobody knows what runs before everything was read that was asked for before the start.
        known = await self.doors.journal.last(PLANT)
        while watch.view.position < known:
            await clock.sleep(_CLOCK_LOOK_S)
        clock.free = lambda now_ns: not depends_on_time(watch.view, now_ns)


@asynccontextmanager
async def open_plant(config: Config) -> AsyncIterator[Plant]:
    """Open journal and registry in the data directory and join the rooms.

    Raises:
        DataDirectoryHeld: Another process runs a plant there.
        JournalFailed, JournalDamaged: The disk cannot be used; the message says why.
        Invalid: The registry belongs to a plant with other partitions, or cannot be opened.
    """
    data_dir = Path(config.plant.data_dir)
    async with AsyncExitStack() as opened:
        settings = replace(config.journal, directory=config.journal_directory)
        check_moved(data_dir / "journal", settings.directory)
        places = data_dir, config.history_directory
        for held in take_directories(places, settings.directory, SystemClock().now_ns()):
            opened.callback(held.release)
        clock = SystemClock(data_dir / "clock.json")
        token = load_token(config.token_file, data_dir / API_TOKEN)
        settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = await opened.enter_async_context(open_journal(settings, clock))
        registry = opened.enter_context(
            Registry(config.registry.database_url(data_dir), partitions=config.plant.partitions)
        )
        directory = Enrolments(config.plant.partitions)
        telemetry = HttpTelemetry(
            settings=config.http, directory=directory, clock=clock, token=token
        )
        endpoint = MqttEndpoint(settings=config.mqtt, directory=directory, clock=clock)
        adapters: list[Adapter] = [endpoint]
        sessions = {endpoint.name: endpoint.counters}
        if config.http.enabled:
            adapters.append(telemetry)
        if config.broker is not None:
            broker = BrokerClient(settings=config.broker, directory=directory, clock=clock)
            adapters.append(broker)
            sessions[broker.name] = broker.counters
        replay = Replay()
        adapters.append(replay)
        file = config.history_directory / "quarantine.db"
        quarantine = opened.enter_context(closing(Quarantine(file, config.quarantine)))
        follower = QuarantineFollower(
            journal=journal,
            quarantine=quarantine,
            partitions=config.plant.partitions,
            clock=clock,
        )
        doors = Doors(
            config,
            clock,
            journal,
            directory,
            adapters,
            quarantine=follower,
            hold_file=data_dir / HOLD_FILE,
        )
        watch = Watch(journal=journal, clock=clock, partitions=config.plant.partitions)
        people = People()
        application = server.build(
            journal=journal,
            watch=watch,
            people=people,
            clock=clock,
            settings=config.api,
            token=token,
            telemetry=telemetry if config.http.enabled else None,
            counters=doors.counters,
            sessions=sessions,
            quarantine=QuarantineDesk(
                follower=follower,
                replay=replay,
                journal=journal,
                directory=directory,
                clock=clock,
                ingest=config.ingest,
                breakers=doors.breakers,
                lock=asyncio.Lock(),
            ),
            history=_history_desk(doors),
            directory=directory,
            fleets=lambda: {k: o.fleet for k, o in doors.owners.items() if o.ready.is_set()},
            sources=_sources(doors, settings.directory, journal, clock),
            stop=doors.stop,
            safety=config.safety,
            dispatch=config.dispatch,
        )
        api = Api(application=application, watch=watch, settings=config.api)
        yield Plant(doors, registry, api, watch, people)


def _sources(doors: Doors, directory: Path, journal: SqliteJournal, clock: SystemClock) -> Sources:
    """Return what status and metrics of a plant in one process are drawn from."""

    def disk() -> Disk:
        usage = shutil.disk_usage(directory)
        return Disk(usage.free, usage.total)

    return Sources(
        timings=doors.timings,
        blocked=doors.blocked,
        breakers=doors.breakers,
        quarantine=doors.quarantine,
        history=doors.history if doors.config.history.enabled else None,
        links=doors.opened,
        journal=journal.metrics,
        disk=disk,
        clock_ahead_s=clock.ahead_s,
        snapshot_at_ns=lambda: newest_snapshots(directory / "snapshots"),
        backup_at_ns=lambda: noted_backup_ns(doors.config.plant.data_dir),
        backup_age_s_max=doors.config.plant.backup_age_s_max,
    )


def _history_desk(doors: Doors) -> HistoryDesk | None:
    if not doors.config.history.enabled:
        return None
    return HistoryDesk(Reader(doors.config.history_directory), doors.ledger)
