"""Whoever sent something hears that it is stored when it is, and not before."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.inbox import (
    Answer,
    Heard,
    Inbox,
    InboxSettings,
    NotStored,
    Report,
    Unreadable,
)
from kapelle.errors import LinkLost
from kapelle.model.enums import AckStatus, Metric, SessionEvent
from kapelle.ports import Batch
from kapelle.runtime.clock import SystemClock

AT_ONCE = InboxSettings(linger_s=0.0)


def inbox_of(settings: InboxSettings = AT_ONCE) -> Inbox:
    return Inbox("test", clock=SystemClock(), settings=settings)


def heard(*power_w: float, device_no: int = 0, **more: object) -> Heard:
    reports = [Report(device_no, {Metric.POWER_W: value}) for value in power_w]
    return Heard("peer", b"raw", reports, **more)  # type: ignore[arg-type]  # test data


async def first(inbox: Inbox) -> Batch:
    async with asyncio.timeout(5):
        return await anext(aiter(inbox.receive()))


def run(work: Callable[[asyncio.TaskGroup], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.TaskGroup() as tasks:
            await work(tasks)

    asyncio.run(whole())


@given(
    st.lists(
        st.lists(st.sampled_from(["good", "refused", "unreadable"]), max_size=3),
        min_size=1,
        max_size=6,
    )
)
def test_each_peer_hears_what_became_of_its_own(messages: list[list[str]]) -> None:
    async def work(tasks: asyncio.TaskGroup) -> None:
        inbox = inbox_of()
        waiting = []
        for number, parts in enumerate(messages):
            one = Heard(
                f"peer-{number}",
                b"%d" % number,
                [
                    Report(number, {Metric.POWER_W: float(part == "refused")})
                    for part in parts
                    if part != "unreadable"
                ],
                unreadable=[
                    Unreadable(number, f"bad: {number}") for p in parts if p == "unreadable"
                ],
            )
            waiting.append(tasks.create_task(inbox.accept(one)))
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        batch = await first(inbox)
        refused = {}
        if batch.readings is not None:
            assert batch.raw is not None
            for row, value in enumerate(batch.readings.values[Metric.POWER_W].tolist()):
                number = int(batch.readings.device_no[row])
                assert batch.raw(row) == b"%d" % number
                if value:
                    refused[row] = f"refused: {number}"
        inbox.confirm(batch, refused)
        for number, (task, parts) in enumerate(zip(waiting, messages, strict=True)):
            told = await task
            assert told.count(f"bad: {number}") == parts.count("unreadable")
            assert told.count(f"refused: {number}") == parts.count("refused")
            assert len(told) == len(parts) - parts.count("good")

    run(work)


def test_metrics_a_device_did_not_say_are_unknown() -> None:
    async def work(tasks: asyncio.TaskGroup) -> None:
        inbox = inbox_of()
        both = Heard(
            "p", b"", [Report(1, {Metric.POWER_W: 5.0}, 7), Report(2, {Metric.SOC: 0.5}, 9)]
        )
        task = tasks.create_task(inbox.accept(both))
        batch = await first(inbox)
        assert batch.readings is not None
        assert batch.readings.measured_at_ns.tolist() == [7, 9]
        np.testing.assert_array_equal(batch.readings.values[Metric.POWER_W], [5.0, np.nan])
        np.testing.assert_array_equal(batch.readings.values[Metric.SOC], [np.nan, 0.5])
        inbox.confirm(batch, {})
        await task

    run(work)


def test_what_the_journal_did_not_take_is_not_acknowledged_and_nothing_noted_is_lost() -> None:
    async def work(tasks: asyncio.TaskGroup) -> None:
        inbox = inbox_of()

        async def sends() -> str:
            with pytest.raises(NotStored) as refusal:
                await inbox.accept(heard(1.0))
            return str(refusal.value)

        task = tasks.create_task(sends())
        inbox.session(3, SessionEvent.UP, 1)
        inbox.answered(Answer(3, 8, AckStatus.ACCEPTED))
        await asyncio.sleep(0)
        batch = await first(inbox)
        inbox.session(3, SessionEvent.DOWN, 2)
        inbox.decline(batch, "journal full")
        assert await task == "journal full"
        again = await first(inbox)
        assert again.sessions is not None
        assert again.acks is not None
        # Of a connection only the newest matters.
        assert again.sessions.event.tolist() == [SessionEvent.DOWN]
        assert again.acks.revision.tolist() == [8]

    run(work)


def test_who_comes_and_goes_while_nothing_is_stored_is_known_by_how_that_ended() -> None:
    async def work(tasks: asyncio.TaskGroup) -> None:
        inbox = inbox_of(InboxSettings(waiting_max=4, linger_s=0.0))
        for number in range(1, 101):
            inbox.session(number % 3, SessionEvent(1 + number % 2), number)
        batch = await first(inbox)
        assert batch.sessions is not None
        assert len(batch.sessions) <= 3 + 6
        told = zip(batch.sessions.device_no.tolist(), batch.sessions.session.tolist(), strict=True)
        newest = dict(told)
        assert newest == {1: 100, 2: 98, 0: 99}
        assert batch.sessions.session.tolist() == sorted(batch.sessions.session.tolist())

    run(work)


def test_a_lost_link_says_who_went_with_it_before_it_ends() -> None:
    async def work(tasks: asyncio.TaskGroup) -> None:
        inbox = inbox_of()
        inbox.session(5, SessionEvent.DOWN, 7)
        inbox.lose("gone")
        assert await _ends(inbox) == [[5]]

    run(work)


async def _ends(inbox: Inbox) -> list[list[int]]:
    """Store what comes, until the link is lost; return whose sessions ended."""
    seen: list[list[int]] = []

    async def store() -> None:
        async for batch in inbox.receive():
            assert batch.sessions is not None
            seen.append(batch.sessions.device_no.tolist())
            asyncio.get_running_loop().call_later(0.05, inbox.confirm, batch, {})

    with pytest.raises(LinkLost, match="gone"):
        await asyncio.wait_for(store(), 1.5)
    return seen


def test_what_the_transport_noted_comes_before_what_the_device_says() -> None:
    async def work(tasks: asyncio.TaskGroup) -> None:
        inbox = inbox_of()
        inbox.answered(Answer(1, 2, AckStatus.RECEIVED))
        says = heard(answers=[Answer(1, 2, AckStatus.APPLIED, "done", 4)])
        task = tasks.create_task(inbox.accept(says))
        await asyncio.sleep(0)
        batch = await first(inbox)
        assert batch.acks is not None
        assert batch.acks.status.tolist() == [AckStatus.RECEIVED, AckStatus.APPLIED]
        assert batch.acks.epoch.tolist() == [-1, 4]
        assert batch.acks.reason == (b"", b"done")
        inbox.confirm(batch, {})
        await task

    run(work)


def test_no_more_waits_than_was_said() -> None:
    async def work(tasks: asyncio.TaskGroup) -> None:
        inbox = inbox_of(InboxSettings(waiting_max=4, batch_max=2, linger_s=0.0))
        everybody = [tasks.create_task(inbox.accept(heard(float(n)))) for n in range(20)]
        sizes = []
        async with asyncio.timeout(5):
            async for batch in inbox.receive():
                assert batch.readings is not None
                sizes.append(len(batch.readings))
                inbox.confirm(batch, {})
                if sum(sizes) == len(everybody):
                    break
        assert max(sizes) == 2
        assert [list(await task) for task in everybody] == [[]] * 20

    run(work)


def test_more_than_the_bound_is_not_taken_in_before_there_is_room() -> None:
    async def work(tasks: asyncio.TaskGroup) -> None:
        inbox = inbox_of(InboxSettings(waiting_max=4, batch_max=100, linger_s=0.0))
        everybody = [tasks.create_task(inbox.accept(heard(float(n)))) for n in range(6)]
        await asyncio.sleep(0)
        held = await first(inbox)
        assert held.readings is not None
        assert len(held.readings) == 4
        await asyncio.sleep(0.01)
        assert not everybody[5].done()
        inbox.confirm(held, {})
        rest = await first(inbox)
        assert rest.readings is not None
        assert len(rest.readings) == 2
        inbox.confirm(rest, {})

    run(work)


def test_what_is_handed_in_hears_whether_it_is_stored() -> None:
    async def check(tasks: asyncio.TaskGroup) -> None:
        inbox = inbox_of(InboxSettings(waiting_max=1, linger_s=0.0))
        told: list[bool] = []
        for durable in (True, False):
            inbox.hand_in(heard(1.0), told.append)
            assert inbox.full
            batch = await first(inbox)
            if durable:
                inbox.confirm(batch, {})
            else:
                inbox.decline(batch, "no space")
            assert not inbox.full
            await asyncio.sleep(0)
        assert told == [True, False]

    run(check)


def test_a_lost_link_says_so() -> None:
    async def work(tasks: asyncio.TaskGroup) -> None:
        inbox = inbox_of()
        inbox.lose("the listener broke")
        with pytest.raises(LinkLost, match="test: the listener broke"):
            await first(inbox)

    run(work)
