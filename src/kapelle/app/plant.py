"""All roles in one process, on the embedded journal."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

from kapelle.adapters.openadr.upstream import Ven
from kapelle.api import server
from kapelle.api.history_desk import HistoryDesk
from kapelle.api.quarantine_desk import QuarantineDesk
from kapelle.api.service import Api
from kapelle.api.sources import Disk, Sources
from kapelle.api.token import load_token
from kapelle.api.watch import Watch
from kapelle.app.adapters import Adapters, make_adapters
from kapelle.app.certificates import check_certificates
from kapelle.app.doors import Doors
from kapelle.app.roles import run_dispatch, run_fleet, run_gateway, run_quarantine, run_recorder
from kapelle.app.utility import follow, make_utility
from kapelle.config import API_TOKEN, Config
from kapelle.dispatch.idle import depends_on_time
from kapelle.history.quarantine import Quarantine
from kapelle.history.quarantine_service import QuarantineFollower
from kapelle.history.reader import Reader
from kapelle.journal.directories import newest_snapshots
from kapelle.journal.lock import take_directories
from kapelle.journal.sqlite import SqliteJournal, open_journal
from kapelle.journal.store import check_moved
from kapelle.model.ids import PLANT
from kapelle.registry.directory import Directory as Enrolments
from kapelle.registry.persons import People
from kapelle.registry.service import OutboxPump, PeopleWatch
from kapelle.registry.store import Registry
from kapelle.runtime.archive import noted_backup_ns
from kapelle.runtime.clock import SystemClock

HOLD_FILE = "HOLD"
"""In the data directory; `touch` is enough."""
_CLOCK_LOOK_S = 1.0


class Plant:
    """All roles in one process, on the embedded journal."""

    def __init__(
        self,
        doors: Doors,
        registry: Registry,
        api: Api,
        watch: Watch,
        people: People,
        utility: Ven | None = None,
    ) -> None:
        self.utility = utility
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
            if self.utility is not None:
                tasks.create_task(follow(self.utility, self.doors), name="utility")

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
        Invalid: The registry belongs to a plant with other partitions, or cannot be opened; or
            TLS cannot be done with the files named for it.
    """
    check_certificates(config)
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
        adapters = make_adapters(config, directory, clock, token)
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
            adapters.all,
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
            telemetry=adapters.telemetry,
            webhooks=adapters.webhooks,
            counters=doors.counters,
            sessions=adapters.sessions,
            quarantine=QuarantineDesk(
                follower=follower,
                replay=adapters.replay,
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
            sources=_sources(doors, adapters, settings.directory, journal, clock),
            stop=doors.stop,
            safety=config.safety,
            dispatch=config.dispatch,
        )
        api = Api(application=application, watch=watch, settings=config.api)
        utility = make_utility(config, journal, watch, clock)
        yield Plant(doors, registry, api, watch, people, utility)


def _sources(
    doors: Doors, adapters: Adapters, directory: Path, journal: SqliteJournal, clock: SystemClock
) -> Sources:
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
        outages=lambda: {one.name: one.outage for one in adapters.clouds if one.outage},
        unserved=lambda: _unserved(doors),
        journal=journal.metrics,
        disk=disk,
        clock_ahead_s=clock.ahead_s,
        snapshot_at_ns=lambda: newest_snapshots(directory / "snapshots"),
        backup_at_ns=lambda: noted_backup_ns(doors.config.plant.data_dir),
        backup_age_s_max=doors.config.plant.backup_age_s_max,
    )


def _unserved(doors: Doors) -> Mapping[str, int]:
    """Return how many devices each adapter would have that is not configured, or misspelt."""
    served = {adapter.name for adapter in doors.adapters}
    return {name: n for name, n in doors.directory.adapters().items() if name not in served}


def _history_desk(doors: Doors) -> HistoryDesk | None:
    if not doors.config.history.enabled:
        return None
    return HistoryDesk(Reader(doors.config.history_directory), doors.ledger)
