"""A last hop that restarts goes on with what the one before it had let through."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from kapelle.journal.memory import MemoryJournal
from kapelle.model.blocks import Commands, Phases
from kapelle.model.entries import Kind
from kapelle.model.enums import Phase
from kapelle.model.ids import NS_PER_S, PLANT, Flags
from kapelle.model.orders import Order
from kapelle.ports import Snapshot
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock
from kapelle.safety import accounts, restart
from kapelle.safety.gate import POWER, RAMP
from kapelle.safety.restart import Line
from kapelle.safety.service import LastHop
from kapelle.safety.settings import GroupLimit, SafetySettings

PARTITIONS = 2


class Wire:
    async def send(self, commands: Commands) -> Flags:
        return np.ones(len(commands), np.bool_)


class Stage:
    """A journal, and one last hop after another on it. Generators of 5 kW."""

    def __init__(self, *limits: GroupLimit) -> None:
        self.clock = SystemClock()
        self.journal = MemoryJournal(self.clock)
        self.limits = limits
        self.directory = Directory.build(
            PARTITIONS, [Bearer(n, f"d{n}", True, 5e3, 0.0) for n in range(8)]
        )
        self.hop = self.new_hop()

    def new_hop(self) -> LastHop:
        hop = LastHop(
            journal=self.journal,
            directory=self.directory,
            clock=self.clock,
            settings=SafetySettings(limits=self.limits),
            partitions=PARTITIONS,
        )
        hop.links.append(Wire())  # type: ignore[arg-type]  # only send is used
        return hop

    async def command(self, *device_no: int, revision: int = 1) -> None:
        count, now_ns = len(device_no), self.clock.now_ns()
        made = Commands(
            device_no=np.array(device_no, np.int32),
            order_no=np.ones(count, np.int32),
            revision=np.full(count, revision, np.int64),
            epoch=np.ones(count, np.int64),
            attempt=np.ones(count, np.int32),
            setpoint_w=np.full(count, 5e3),
            issued_at_ns=np.full(count, now_ns, np.int64),
            not_after_ns=np.full(count, now_ns + 10 * NS_PER_S, np.int64),
            ttl_s=np.full(count, 10.0),
            revert_s=np.full(count, 120.0),
        )
        await self.journal.append(f"p/{device_no[0] % PARTITIONS}", [made], writer="owner")

    async def life(self, *blocks: tuple[int, ...]) -> None:
        """Let the hop live, pass on these blocks, and end."""
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.hop.run())
            await asyncio.sleep(0.05)
            for revision, block in enumerate(blocks, 1):
                done = self.hop.sent + sum(self.hop.refused.values())
                await self.command(*block, revision=revision)
                async with asyncio.timeout(20):
                    while self.hop.sent + sum(self.hop.refused.values()) < done + len(block):  # noqa: ASYNC110  # it sets no event of ours
                        await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            running.cancel()


def play(
    stage: Callable[[], Stage], act: "Callable[[Stage], asyncio.Future[None] | object]"
) -> None:
    async def main() -> None:
        made = stage()
        now_ns = made.clock.now_ns()
        order = Order(1, "all", 1e6, now_ns, now_ns + 3600 * NS_PER_S, now_ns)
        await made.journal.append(PLANT, [order], writer="api")
        await act(made)  # type: ignore[misc]  # a coroutine function

    asyncio.run(main())


@pytest.mark.parametrize("is_saved", [True, False])
def test_what_was_sent_before_a_restart_counts_after_it(is_saved: bool) -> None:
    async def act(stage: Stage) -> None:
        await stage.life((0, 2))
        if not is_saved:
            await stage.journal.save_snapshot(accounts.TOPIC, Snapshot(9, {}, b"torn"))
        stage.hop = stage.new_hop()
        await stage.life((1, 3))
        assert stage.hop.refused == {POWER: 1}
        assert stage.hop.sent == 1

    play(lambda: Stage(GroupLimit(power_w=15e3)), act)


@pytest.mark.parametrize(
    ("limit", "refused"),
    [
        (GroupLimit(power_w=12e3), {POWER: 1}),
        (GroupLimit(power_w=20e3), {}),
        (GroupLimit(ramp_w_per_min=6e6), {}),
    ],
)
def test_a_device_that_was_removed_still_counts_and_locks_nobody_out(
    limit: GroupLimit, refused: dict[str, int]
) -> None:
    async def act(stage: Stage) -> None:
        await stage.life((0,))
        await stage.journal.save_snapshot(accounts.TOPIC, Snapshot(9, {}, b"torn"))
        stage.directory.apply([Bearer(0, "d0", False, 5e3, 0.0)])
        stage.hop = stage.new_hop()
        await stage.life((1,))
        assert stage.hop.refused == refused

    play(lambda: Stage(limit), act)


@pytest.mark.parametrize("name", ["passed/told", "rates/hour/part", "ledger/0/filled_ns"])
def test_accounts_that_do_not_fit_together_are_drawn_up_anew(name: str) -> None:
    async def act(stage: Stage) -> None:
        await stage.life((0, 2))
        saved = await stage.journal.load_snapshot(accounts.TOPIC)
        assert saved is not None
        columns = saved.columns | {name: saved.columns[name][:0]}
        torn = Snapshot(saved.position + 1, columns, saved.meta)
        await stage.journal.save_snapshot(accounts.TOPIC, torn)
        stage.hop = stage.new_hop()
        await stage.life((1, 3))
        assert stage.hop.refused == {POWER: 1}

    play(lambda: Stage(GroupLimit(power_w=15e3, ramp_w_per_min=6e6)), act)


def test_what_nobody_can_say_was_sent_counts_as_sent() -> None:
    async def act(stage: Stage) -> None:
        await stage.command(0, 2)
        await stage.life((1, 3))
        assert stage.hop.refused == {POWER: 1}
        assert stage.hop.sent == 1

    play(lambda: Stage(GroupLimit(power_w=15e3)), act)


def test_a_limit_that_is_new_begins_as_if_it_had_just_been_used_up() -> None:
    async def act(stage: Stage) -> None:
        await stage.life((0,))
        stage.limits = (GroupLimit(ramp_w_per_min=60e3),)
        stage.hop = stage.new_hop()
        await stage.life((2,))
        assert stage.hop.refused == {RAMP: 1}

    play(Stage, act)


def test_accounts_are_saved_once_and_their_topic_stays_short() -> None:
    async def act(stage: Stage) -> None:
        for _ in range(3):
            await stage.life((0,))
            stage.hop = stage.new_hop()
        entries = await stage.journal.read(accounts.TOPIC, 0, 100)
        assert [entry.kind for entry in entries] == [Kind.TICK]

    play(Stage, act)


def commands(*device_no: int, revision: int = 1) -> Commands:
    count = len(device_no)
    return Commands(
        device_no=np.array(device_no, np.int32),
        order_no=np.ones(count, np.int32),
        revision=np.full(count, revision, np.int64),
        epoch=np.ones(count, np.int64),
        attempt=np.ones(count, np.int32),
        setpoint_w=np.zeros(count),
        issued_at_ns=np.zeros(count, np.int64),
        not_after_ns=np.full(count, 100, np.int64),
        ttl_s=np.ones(count),
        revert_s=np.ones(count),
    )


def found(at_ns: int, revision: int = 1, **phases: Phase) -> Phases:
    device_no = np.array([int(name[1:]) for name in phases], np.int32)
    return Phases(
        device_no=device_no,
        revision=np.full(len(device_no), revision, np.int64),
        phase=np.array([*phases.values()], np.uint8),
        at_ns=np.full(len(device_no), at_ns, np.int64),
    )


def heard(*bodies: Commands | Phases, now_ns: int = 50) -> list[tuple[int, list[int], bool]]:
    line = Line(now_ns)
    left = [
        each
        for body in bodies
        for each in (line.take(body) if isinstance(body, Commands) else line.hear(body))
    ]
    return [(at_ns, c.device_no.tolist(), sure) for at_ns, c, sure in [*left, *line.end()]]


SENT, REFUSED = Phase.SENT, Phase.CANCELLED


def test_the_journal_tells_who_left_who_did_not_and_of_whom_nobody_knows() -> None:
    # 3 was taken by no transport, or its finding was lost.
    told = heard(commands(1, 2, 3), found(7, d1=SENT, d2=REFUSED))
    assert told == [(7, [1], True), (50, [3], False)]
    # In pieces; what follows ends the waiting for what came before.
    told = heard(
        commands(1, 2), found(7, d1=SENT), found(8, d2=SENT), commands(3), found(9, d3=REFUSED)
    )
    assert told == [(7, [1], True), (8, [2], True)]
    told = heard(commands(1), commands(2), found(9, d2=SENT))
    assert told == [(9, [1], False), (9, [2], True)]


def test_a_finding_that_may_be_about_either_of_two_takes_nothing_back() -> None:
    told = heard(commands(1), commands(1), found(9, d1=REFUSED))
    assert told == [(50, [1], False), (50, [1], False)]
    assert heard(commands(1, 1), found(9, d1=SENT)) == [(50, [1, 1], False)]
    assert heard(found(9, d1=SENT)) == []


def test_a_backlog_without_end_takes_no_memory_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restart, "_ROWS_MAX", 10)
    line, given_up = Line(50), 0
    for number in range(1000):
        given_up += sum(len(left.commands) for left in line.take(commands(number, number + 1)))
        assert 2 * (number + 1) - given_up <= 10
    assert given_up + sum(len(left.commands) for left in line.end()) == 2000
