"""Whatever is committed reaches the journal and the directory, wherever the pump dies."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from kapelle.errors import JournalConflict, JournalFailed, JournalFull, RegistryUnavailable
from kapelle.journal.memory import MemoryJournal
from kapelle.model.blocks import Enrolled
from kapelle.model.entries import Body
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import partition_topic
from kapelle.model.plant import Members
from kapelle.registry.device import Device
from kapelle.registry.directory import Directory
from kapelle.registry.outbox import Due
from kapelle.registry.service import WRITER, OutboxPump, at_once
from kapelle.registry.settings import RegistrySettings
from kapelle.registry.store import Cursor, Registry


class FixedClock:
    def now_ns(self) -> int:
        return 1

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what another task does, at most ten seconds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  # the pump announces nothing
            await asyncio.sleep(0.01)


def battery(name: str, **more: object) -> Device:
    described = {"nameplate_up_w": 5000.0, "nameplate_down_w": 4000.0, "energy_wh": 1e4} | more
    return Device(name, DeviceKind.BATTERY, **described)


def pump_of(
    registry: Registry, journal: MemoryJournal, directory: Directory | None = None
) -> OutboxPump:
    return OutboxPump(
        registry=registry,
        journal=journal,
        directory=directory or Directory(registry.partitions),
        clock=FixedClock(),
        settings=RegistrySettings(poll_s=0.02, page_rows=3),
        offload=at_once,
    )


async def told(journal: MemoryJournal, partitions: int) -> tuple[dict[int, tuple], dict]:
    """Return what a fleet would hold: the last row of each device and each resource's members."""
    devices: dict[int, tuple[object, ...]] = {}
    members: dict[tuple[str, int], list[int]] = {}
    for partition in range(partitions):
        for entry in await journal.read(partition_topic(partition), 0, 10_000):
            assert entry.writer == WRITER
            if isinstance(entry.body, Enrolled):
                for row, device_no in enumerate(entry.body.device_no.tolist()):
                    assert device_no % partitions == partition
                    values = [getattr(entry.body, name)[row] for name in Enrolled.COLUMNS]
                    devices[device_no] = tuple(map(str, values))
            else:
                assert isinstance(entry.body, Members)
                assert set(entry.body.device_nos) <= set(devices), "members nobody enrolled"
                members[entry.body.resource, partition] = entry.body.device_nos
    return devices, members


def held(registry: Registry) -> tuple[dict[int, tuple], dict]:
    """Return the same from the registry."""
    from kapelle.registry.rows import to_enrolled

    devices = {}
    for row in registry.changed(Cursor(0, -1), 10_000):
        block = to_enrolled([row])
        values = [getattr(block, name)[0] for name in Enrolled.COLUMNS]
        devices[row.device_no] = tuple(map(str, values))
    members = {
        (resource.name, partition): registry.members(resource.name, partition).tolist()
        for resource in registry.resources()
        for partition in range(registry.partitions)
    }
    return devices, members


def some_changes(registry: Registry) -> None:
    registry.put_resource("sun", "vendor:Sun", 1)
    registry.put_devices([battery(f"b{i}", vendor="Sun" if i % 2 else "Moon") for i in range(8)], 1)
    registry.put_resource("everything", "all", 2)
    registry.remove_devices(["b1"], 3)
    registry.put_devices([battery("b2", vendor="Sun", energy_wh=2e4)], 4)


def check_told(registry: Registry, journal: MemoryJournal) -> None:
    assert asyncio.run(told(journal, registry.partitions)) == held(registry)
    assert registry.due().rows == 0


def test_changes_reach_journal_and_directory(registry: Registry) -> None:
    journal, directory = MemoryJournal(FixedClock()), Directory(3)
    pump = pump_of(registry, journal, directory)
    some_changes(registry)
    asyncio.run(pump.turn())
    check_told(registry, journal)
    names = [f"b{i}" for i in range(8)]
    numbers = directory.resolve(names).tolist()
    assert numbers[1] == -1
    assert numbers[0] == registry.device("b0").device_no
    registry.remove_resource("sun", 5)
    registry.put_devices([battery("late")], 6)
    asyncio.run(pump.turn())
    assert directory.resolve(["late"])[0] == registry.device("late").device_no
    _, members = asyncio.run(told(journal, 3))
    assert members.pop(("sun", 0)) == members.pop(("sun", 1)) == members.pop(("sun", 2)) == []
    assert members == held(registry)[1]


def test_nothing_changed_writes_nothing(registry: Registry) -> None:
    journal = MemoryJournal(FixedClock())
    pump = pump_of(registry, journal)
    some_changes(registry)

    async def twice() -> tuple[list[int], list[int]]:
        await pump.turn()
        before = [await journal.last(partition_topic(k)) for k in range(3)]
        registry.put_devices([battery("b0", vendor="Moon")], 9)
        registry.rotate_credential("b0", 9)
        await pump.turn()
        return before, [await journal.last(partition_topic(k)) for k in range(3)]

    before, after = asyncio.run(twice())
    assert before == after


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """Counts the steps of a pump and kills it at one, before or after the step was done."""

    def __init__(self, journal: MemoryJournal, at: int, done: bool) -> None:
        self._journal, self._left, self._done = journal, at, done
        self.last = journal.last

    async def append(self, topic: str, bodies: Sequence[Body], **more: object) -> int:
        self._step(before=True)
        position = await self._journal.append(topic, bodies, **more)
        self._step(before=False)
        return position

    async def offload(self, function: Callable[..., object], /, *args: object) -> object:
        self._step(before=True)
        result = function(*args)
        self._step(before=False)
        return result

    def _step(self, *, before: bool) -> None:
        if before:
            self._left -= 1
        if self._left < 0 and before != self._done:
            raise Killed


@pytest.mark.parametrize("done", [False, True])
def test_a_pump_killed_at_any_step_loses_nothing(registry: Registry, done: bool) -> None:
    """Every death is followed by another change, so that old and new have to be told apart."""
    journal = MemoryJournal(FixedClock())
    some_changes(registry)
    survived = False
    for step in range(200):
        mortal = Mortal(journal, step, done)
        pump = OutboxPump(
            registry=registry,
            journal=mortal,
            directory=Directory(3),
            clock=FixedClock(),
            settings=RegistrySettings(page_rows=3),
            offload=mortal.offload,
        )
        try:
            asyncio.run(pump.turn())
        except Killed:
            registry.put_devices([battery(f"n{step % 5}", vendor=("Sun", "Moon")[step % 2])], step)
        else:
            survived = True
            break
    assert survived
    check_told(registry, journal)


class Witness(MemoryJournal):
    """Notes which devices it was told of, and insists that members are among them."""

    def __init__(self) -> None:
        super().__init__(FixedClock())
        self.told: set[int] = set()

    async def append(self, topic: str, bodies: Sequence[Body], **more: object) -> int:
        for body in bodies:
            if isinstance(body, Members):
                assert set(body.device_nos) <= self.told, "members nobody enrolled"
        position = await super().append(topic, bodies, **more)
        for body in bodies:
            if isinstance(body, Enrolled):
                self.told.update(body.device_no.tolist())
        return position


def test_a_change_at_any_step_of_a_turn_keeps_the_order(registry: Registry) -> None:
    """No members before devices, no names before both, and nothing is forgotten."""
    journal, directory = Witness(), Directory(3)
    some_changes(registry)
    names: list[str] = []
    left = -1

    def change() -> None:
        names.append(f"n{len(names)}")
        registry.put_devices([battery(names[-1], vendor="Sun")], 1)

    async def meddling(function: Callable[..., object], /, *args: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            change()
        result = function(*args)
        numbers = directory.resolve(names).tolist()
        assert {number for number in numbers if number >= 0} <= journal.told
        return result

    pump = OutboxPump(
        registry=registry,
        journal=journal,
        directory=directory,
        clock=FixedClock(),
        settings=RegistrySettings(page_rows=3),
        offload=meddling,
    )
    for step in range(1, 200):
        left = 0
        asyncio.run(pump.turn())
        assert directory.resolve(names).tolist() == [registry.device(n).device_no for n in names]
        change()
        left = step
        asyncio.run(pump.turn())
        if left > 0:
            break
    assert step > 10
    check_told(registry, journal)


def test_two_pumps_end_with_the_newest(registry: Registry) -> None:
    """The slower of two pumps reads, sleeps while the other writes newer, and is refused."""
    journal = MemoryJournal(FixedClock())
    registry.put_devices([battery("a", vendor="old")], 1)
    fast = pump_of(registry, journal)

    class Overtaken(Mortal):
        async def append(self, topic: str, bodies: Sequence[Body], **more: object) -> int:
            registry.put_devices([battery("a", vendor="new")], 2)
            await fast.turn()
            return await self._journal.append(topic, bodies, **more)

    slow = OutboxPump(
        registry=registry,
        journal=Overtaken(journal, 1, False),
        directory=Directory(3),
        clock=FixedClock(),
        offload=at_once,
    )
    with pytest.raises(JournalConflict):
        asyncio.run(slow.turn())
    check_told(registry, journal)


def test_a_full_journal_is_tried_again_and_does_not_keep_the_removed_in(
    registry: Registry,
) -> None:
    journal, directory = MemoryJournal(FixedClock()), Directory(3)
    pump = pump_of(registry, journal, directory)
    secret = registry.put_devices([battery("a"), battery("b")], 1).credentials["b"]

    async def scene() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(pump.run())
            await until(lambda: directory.count() == 2)
            journal.refusing = JournalFull("no space")
            registry.remove_devices(["a"], 2)
            registry.put_devices([battery("c")], 2)
            fresh = registry.rotate_credential("b", 2)
            await until(
                lambda: (
                    directory.resolve(["a"])[0] < 0 and directory.authenticate("b", secret) is None
                )
            )
            assert directory.authenticate("b", fresh) is not None
            assert directory.resolve(["c"])[0] == -1, "the fleet does not know it yet"
            assert registry.due().rows
            journal.refusing = None
            await until(lambda: directory.resolve(["c"])[0] >= 0)
            running.cancel()

    asyncio.run(scene())
    check_told(registry, journal)


def test_a_failed_journal_stops_the_pump(registry: Registry) -> None:
    journal = MemoryJournal(FixedClock())
    journal.refusing = JournalFailed("fsync")
    registry.put_devices([battery("a")], 1)
    with pytest.raises(JournalFailed):
        asyncio.run(pump_of(registry, journal).run())
    assert registry.due().rows


def test_a_database_that_goes_away_is_waited_for(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, directory = MemoryJournal(FixedClock()), Directory(3)
    pump = pump_of(registry, journal, directory)
    registry.put_devices([battery("a")], 1)
    due, refusals = registry.due, 3

    def away() -> Due:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise RegistryUnavailable("away")
        return due()

    monkeypatch.setattr(registry, "due", away)

    async def scene() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(pump.run())
            await until(lambda: directory.count() > 0)
            running.cancel()

    asyncio.run(scene())
    assert not refusals


def test_another_process_changes_the_registry(url: str) -> None:
    with Registry(url, 3) as ours, Registry(url) as theirs:
        journal, directory = MemoryJournal(FixedClock()), Directory(3)
        pump = OutboxPump(
            registry=ours,
            journal=journal,
            directory=directory,
            clock=FixedClock(),
            settings=RegistrySettings(poll_s=0.02),
        )

        async def scene() -> str:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(pump.run())
                put = await asyncio.to_thread(theirs.put_devices, [battery("a")], 1)
                await until(lambda: directory.count() > 0)
                old = put.credentials["a"]
                assert directory.authenticate("a", old) is not None
                fresh = await asyncio.to_thread(theirs.rotate_credential, "a", 2)
                await until(lambda: directory.authenticate("a", old) is None)
                running.cancel()
                return fresh

        fresh = asyncio.run(scene())
        assert directory.authenticate("a", fresh) == ours.device("a").device_no
        check_told(ours, journal)


def test_a_kick_is_heard_at_once(registry: Registry) -> None:
    directory = Directory(3)
    pump = OutboxPump(
        registry=registry,
        journal=MemoryJournal(FixedClock()),
        directory=directory,
        clock=FixedClock(),
        settings=RegistrySettings(poll_s=3600),
        offload=at_once,
    )

    async def scene() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(pump.run())
            await asyncio.sleep(0.05)
            registry.put_devices([battery("a")], 1)
            pump.kick()
            await until(lambda: directory.count() > 0)
            running.cancel()

    asyncio.run(scene())


def test_a_new_journal_is_told_everything(registry: Registry) -> None:
    some_changes(registry)
    asyncio.run(pump_of(registry, MemoryJournal(FixedClock())).turn())
    registry.resend()
    journal = MemoryJournal(FixedClock())
    asyncio.run(pump_of(registry, journal).turn())
    check_told(registry, journal)
