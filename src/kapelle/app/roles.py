"""The roles of a plant: each runs until cancelled and needs only the journal to work."""

import asyncio
import logging
import random
from dataclasses import replace
from functools import partial

from kapelle.adapters.replay.link import Replay
from kapelle.api.sources import LinkState
from kapelle.app.doors import Doors
from kapelle.app.polling import Polling
from kapelle.dispatch.delivery import decide
from kapelle.dispatch.service import Dispatcher
from kapelle.errors import JournalDamaged, JournalFailed
from kapelle.fleet.columns import Fleet
from kapelle.fleet.service import PartitionOwner
from kapelle.history.ledger import Ledger
from kapelle.history.service import READER, Recorder
from kapelle.ingest.service import Ingest
from kapelle.model.entries import Body
from kapelle.model.ids import NS_PER_S, PLANT, partition_topic
from kapelle.ports import Link
from kapelle.runtime.supervise import apart, keep_open, leave_if_asked
from kapelle.safety.service import LastHop

_RECORDER_PAUSE_S = 1.0
_RECORDER_PAUSE_S_MAX = 60.0
_NEVER = 2**31

log = logging.getLogger(__name__)


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
    polling = Polling(doors)

    def decided(fleet: Fleet, epoch: int) -> list[Body]:
        return decide(fleet, config.dispatch, epoch, polling.later_s(fleet))

    async with asyncio.TaskGroup() as tasks:
        for partition in range(config.plant.partitions):
            owner = PartitionOwner(
                partition=partition,
                partitions=config.plant.partitions,
                journal=doors.journal,
                clock=doors.clock,
                settings=config.fleet,
                decide=decided,
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
            recorder = Recorder(
                journal=doors.journal,
                clock=doors.clock,
                settings=config.history,
                directory=config.history_directory,
                partitions=config.plant.partitions,
                counters=doors.history,
                ledger=lambda store: Ledger(store, config.plant.partitions),
                drawn=doors.ledger,
            )
            await apart(recorder.run(), "record")
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
