"""S-24: whatever stops the plant stops it at once, needs nothing else, and outlives a restart."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from kapelle.errors import JournalFull
from kapelle.journal.memory import MemoryJournal
from kapelle.model.blocks import Commands
from kapelle.model.entries import Body, Kind
from kapelle.model.ids import NS_PER_S, PLANT, Flags
from kapelle.model.orders import Hold, Order
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock
from kapelle.safety.service import LastHop
from kapelle.safety.settings import SafetySettings

DEVICES = 2000
SETTINGS = SafetySettings(send_at_once=100)


class Wire:
    """Takes every command, and stands still in the midst of one if it is told to."""

    def __init__(self) -> None:
        self.sent = 0
        self.stands_still = False
        self.stood = asyncio.Event()

    async def send(self, commands: Commands) -> Flags:
        if self.stands_still:
            self.stood.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0.001)
        self.sent += len(commands)
        return np.ones(len(commands), np.bool_)


class FullJournal(MemoryJournal):
    """Has no room on the plant's topic for a while."""

    full = False

    async def append(
        self,
        topic: str,
        bodies: "tuple[Body, ...] | list[Body]",  # type: ignore[override]  # what is used here
        *,
        writer: str,
        epoch: int = 0,
        expected: int | None = None,
    ) -> int:
        if self.full and topic == PLANT:
            raise JournalFull("no room")
        return await super().append(topic, bodies, writer=writer, epoch=epoch, expected=expected)


class Stage:
    """A last hop with 2,000 devices, an order in force and somebody who never stops commanding."""

    def __init__(self, hold_file: Path | None = None) -> None:
        self.clock = SystemClock()
        self.journal = FullJournal(self.clock)
        self.wire = Wire()
        self.hold_file = hold_file
        self.hop = self.new_hop()

    def new_hop(self) -> LastHop:
        hop = LastHop(
            journal=self.journal,
            directory=Directory.build(
                1, [Bearer(n, f"d{n}", True, 5e3, 5e3) for n in range(DEVICES)]
            ),
            clock=self.clock,
            settings=SETTINGS,
            partitions=1,
            hold_file=self.hold_file,
        )
        hop.links.append(self.wire)  # type: ignore[arg-type]  # only send is used
        return hop

    def commands(self) -> Commands:
        now_ns = self.clock.now_ns()
        return Commands(
            device_no=np.arange(DEVICES, dtype=np.int32),
            order_no=np.ones(DEVICES, np.int32),
            revision=np.full(DEVICES, now_ns, np.int64),
            epoch=np.ones(DEVICES, np.int64),
            attempt=np.ones(DEVICES, np.int32),
            setpoint_w=np.full(DEVICES, 3000.0),
            issued_at_ns=np.full(DEVICES, now_ns, np.int64),
            not_after_ns=np.full(DEVICES, now_ns + 10 * NS_PER_S, np.int64),
            ttl_s=np.full(DEVICES, 10.0),
            revert_s=np.full(DEVICES, 120.0),
        )

    async def command(self) -> None:
        await self.journal.append("p/0", [self.commands()], writer="owner")

    async def last_hold(self) -> Hold | None:
        entries = await self.journal.read(PLANT, 0, 1000, {Kind.HOLD})
        bodies = [entry.body for entry in entries if isinstance(entry.body, Hold)]
        return bodies[-1] if bodies else None

    async def told(self, reason: str) -> Hold:
        """Wait until the journal says that the plant is held for this."""
        async for entries in self.journal.follow(PLANT, 0, {Kind.HOLD}):
            for entry in entries:
                if isinstance(entry.body, Hold) and reason in entry.body.reason:
                    return entry.body
        raise AssertionError

    async def release(self) -> None:
        await self.journal.append(PLANT, [Hold(False, self.clock.now_ns())], writer="api")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  # what is waited for sets no event of ours
            await asyncio.sleep(0.005)


def play(stage_: Callable[[], Stage], act: Callable[[Stage], Awaitable[None]]) -> None:
    """Act beside a running last hop."""

    async def main() -> None:
        stage = stage_()
        now_ns = stage.clock.now_ns()
        order = Order(1, "all", 1e6, now_ns, now_ns + 3600 * NS_PER_S, now_ns)
        await stage.journal.append(PLANT, [order], writer="api")
        async with asyncio.TaskGroup() as group:
            running = group.create_task(stage.hop.run())
            await asyncio.sleep(0.05)
            await act(stage)
            running.cancel()

    asyncio.run(main())


def check_stops(stage_: Callable[[], Stage], stop: Callable[[Stage], object], reason: str) -> None:
    """A stop in the midst of a block of commands ends it, is in the journal, and can be lifted."""

    async def act(stage: Stage) -> None:
        await stage.command()
        await until(lambda: stage.wire.sent > 0)
        stop(stage)
        await until(lambda: stage.hop.held)
        sent = stage.wire.sent
        await stage.command()
        await until(lambda: stage.hop.refused.total() >= DEVICES)
        # What was being handed over at that moment may still have gone.
        assert stage.wire.sent <= sent + SETTINGS.send_at_once
        async with asyncio.timeout(20):
            assert (await stage.told(reason)).held
            if stage.hold_file is not None and stage.hold_file.exists():
                await stage.release()
                assert (await stage.told("still there")).held
                stage.hold_file.unlink()
        assert stage.hop.held, "nothing but a release lifts it"
        sent = stage.wire.sent
        await stage.release()
        await until(lambda: not stage.hop.held)
        await stage.command()
        await until(lambda: stage.wire.sent > sent)

    play(stage_, act)


def test_a_call_stops_it() -> None:
    check_stops(Stage, lambda stage: stage.hop.stop("SIGUSR1", "signal"), "SIGUSR1")


def test_a_file_stops_it(tmp_path: Path) -> None:
    file = tmp_path / "HOLD"
    check_stops(lambda: Stage(file), lambda stage: file.touch(), "HOLD")


def test_a_file_stops_it_from_the_first_command_on(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        await stage.command()
        await until(lambda: stage.hop.refused.total() == DEVICES)
        assert stage.wire.sent == 0

    (tmp_path / "HOLD").touch()
    play(lambda: Stage(tmp_path / "HOLD"), act)


def test_a_transport_that_stands_still_does_not_keep_it_from_stopping() -> None:
    async def act(stage: Stage) -> None:
        stage.wire.stands_still = True
        await stage.command()
        await stage.wire.stood.wait()
        stage.hop.stop("drill", "test")
        # Without waiting for the deadline of the hand-over: the rest is refused.
        await until(lambda: stage.hop.refused.total() == DEVICES - SETTINGS.send_at_once)
        assert stage.wire.sent == 0

    play(Stage, act)


def test_it_stops_with_a_journal_that_takes_nothing_and_tells_it_later() -> None:
    async def act(stage: Stage) -> None:
        stage.journal.full = True
        stage.hop.stop("drill", "test")
        await stage.command()
        await until(lambda: stage.hop.refused.total() == DEVICES)
        assert await stage.last_hold() is None
        stage.journal.full = False
        async with asyncio.timeout(20):
            hold = await stage.told("drill")
        assert (hold.held, hold.issued_by) == (True, "test")
        again = stage.new_hop()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(again.run())
            await until(lambda: again.held)
            running.cancel()

    play(Stage, act)


def test_a_release_that_is_older_than_the_stop_lifts_nothing() -> None:
    async def act(stage: Stage) -> None:
        earlier_ns = stage.clock.now_ns() - 1
        stage.hop.stop("drill", "test")
        await stage.journal.append(PLANT, [Hold(False, earlier_ns)], writer="api")
        await stage.command()
        await until(lambda: stage.hop.refused.total() == DEVICES)
        assert stage.hop.held

    play(Stage, act)


def test_a_hold_the_journal_had_no_room_for_holds_nobody_after_its_release() -> None:
    async def act(stage: Stage) -> None:
        stage.journal.full = True
        stage.hop.stop("drill", "signal")
        await asyncio.sleep(0.05)
        # Another process could write.
        release = Hold(False, stage.clock.now_ns())
        await MemoryJournal.append(stage.journal, PLANT, [release], writer="api")
        await until(lambda: not stage.hop.held)
        stage.journal.full = False
        await asyncio.sleep(1.2)
        assert not stage.hop.held
        assert await stage.last_hold() == release

    play(Stage, act)
