"""The simulated adapter keeps the ports' promises: at least once, bounded, sessions in time."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from kapelle.errors import LinkLost
from kapelle.model.blocks import Commands
from kapelle.model.enums import AckStatus, SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Batch
from kapelle.sim.clock import VirtualClock
from kapelle.sim.devices import FleetPlan, make_fleet
from kapelle.sim.faults import FaultPlan, GroupLoss
from kapelle.sim.link import SimAdapter, SimLink
from kapelle.sim.loop import run_virtual
from kapelle.sim.world import World

DEVICES = 20


def play(plan: FaultPlan, use: Callable[[SimAdapter, VirtualClock], Awaitable[None]]) -> SimAdapter:
    """Run something against an adapter whose world moves."""

    async def main() -> SimAdapter:
        clock = VirtualClock()
        devices = make_fleet(FleetPlan(devices=DEVICES, partitions=2), np.random.default_rng(1))
        world = World(devices, plan, np.random.default_rng(2), clock.now_ns())
        adapter = SimAdapter(world, clock, np.random.default_rng(3))
        async with asyncio.TaskGroup() as group:
            world_task = group.create_task(adapter.drive())
            await use(adapter, clock)
            world_task.cancel()
        return adapter

    return run_virtual(main)


async def take(link: SimLink, seconds: float, *, confirm: bool = True) -> list[Batch]:
    """Receive for a while."""
    batches: list[Batch] = []
    try:
        async with asyncio.timeout(seconds):
            async for batch in link.receive():
                batches.append(batch)
                if confirm:
                    link.confirm(batch, {})
    except TimeoutError:
        pass
    return batches


def keys(batches: list[Batch]) -> Counter[tuple[int, int]]:
    """Count how often each reading came."""
    return Counter(
        pair
        for batch in batches
        if batch.readings is not None
        for pair in zip(
            batch.readings.device_no.tolist(), batch.readings.order.tolist(), strict=True
        )
    )


def commands(adapter: SimAdapter, clock: VirtualClock, setpoint_w: float) -> Commands:
    """Return one command for every device."""
    number = adapter.world.devices.enrolled.device_no
    n, now_ns = len(number), clock.now_ns()
    return Commands(
        device_no=number,
        order_no=np.ones(n, np.int32),
        revision=np.ones(n, np.int64),
        epoch=np.ones(n, np.int64),
        attempt=np.ones(n, np.int32),
        setpoint_w=np.full(n, setpoint_w),
        issued_at_ns=np.full(n, now_ns),
        not_after_ns=np.full(n, now_ns + 10 * NS_PER_S),
        ttl_s=np.full(n, 10.0),
        revert_s=np.full(n, 120.0),
    )


def test_every_report_comes_once_and_carries_what_was_sent() -> None:
    async def use(adapter: SimAdapter, clock: VirtualClock) -> None:
        async with adapter.open() as link:
            batches = await take(link, 40)
        counted = keys(batches)
        assert len({device for device, _ in counted}) == DEVICES
        assert set(counted.values()) == {1}
        ups = [e for b in batches if b.sessions is not None for e in b.sessions.event]
        assert ups == [SessionEvent.UP] * DEVICES
        first = next(batch for batch in batches if batch.readings is not None)
        assert first.raw is not None
        assert b'"power_w"' in first.raw(0)

    adapter = play(FaultPlan(), use)
    assert adapter.ledger.accepted == adapter.ledger.arrived <= adapter.ledger.sent


def test_what_was_not_confirmed_comes_again_with_the_next_link() -> None:
    async def use(adapter: SimAdapter, clock: VirtualClock) -> None:
        async with adapter.open() as link:
            unconfirmed = await take(link, 20, confirm=False)
        await clock.sleep(5)
        async with adapter.open() as link:
            again = await take(link, 20)
        assert set(keys(unconfirmed)) <= set(keys(again))
        numbers = sorted(order for device, order in keys(again) if device == 0)
        assert len(numbers) == numbers[-1] - numbers[0] + 1

    assert play(FaultPlan(), use).ledger.accepted > 0


def test_what_was_declined_comes_again() -> None:
    async def use(adapter: SimAdapter, clock: VirtualClock) -> None:
        seen: Counter[tuple[int, int]] = Counter()
        async with adapter.open() as link, asyncio.timeout(30):
            async for batch in link.receive():
                seen += keys([batch])
                if clock.now_ns() % (4 * NS_PER_S) < NS_PER_S:
                    link.decline(batch, "full")
                else:
                    link.confirm(batch, {})
                if max(seen.values(), default=0) >= 2:
                    return

    assert play(FaultPlan(), use).ledger.declined > 0


def test_commands_reach_devices_and_answers_come_back() -> None:
    async def use(adapter: SimAdapter, clock: VirtualClock) -> None:
        async with adapter.open() as link:
            assert not (await link.send(commands(adapter, clock, 0.0))).any()
            await take(link, 5)
            assert (await link.send(commands(adapter, clock, 0.0))).all()
            batches = await take(link, 10)
        status = Counter(s for b in batches if b.acks is not None for s in b.acks.status.tolist())
        for expected in (AckStatus.RECEIVED, AckStatus.ACCEPTED, AckStatus.APPLIED):
            assert status[expected] == DEVICES
        assert adapter.world.agents.commanded().all()

    play(FaultPlan(), use)


def test_lost_and_doubled_commands_take_effect_at_most_once() -> None:
    async def use(adapter: SimAdapter, clock: VirtualClock) -> None:
        async with adapter.open() as link:
            await take(link, 5)
            for _ in range(5):
                await link.send(commands(adapter, clock, 0.0))
                await take(link, 1)

    agents = play(FaultPlan(command_loss=0.5, duplicate=0.5), use).world.agents
    assert 0 < agents.effects.sum() <= DEVICES
    assert agents.double_effects == 0


def test_a_broken_connection_is_noticed_late_and_made_anew() -> None:
    loss = GroupLoss("vendor", "acme", at_s=20, return_s=70)

    async def use(adapter: SimAdapter, clock: VirtualClock) -> None:
        start_ns = clock.now_ns()
        async with adapter.open() as link:
            batches = await take(link, 100)
        told = [
            (int(event), (at_ns - start_ns) / NS_PER_S, int(session))
            for b in batches
            if b.sessions is not None
            for event, at_ns, session in zip(
                b.sessions.event, b.sessions.at_ns, b.sessions.session, strict=True
            )
        ]
        wills = [at_s for event, at_s, _ in told if event == SessionEvent.WILL]
        assert len(wills) == 8
        assert all(30 <= at_s <= 51 for at_s in wills)
        back = [at_s for event, at_s, _ in told if event == SessionEvent.UP and at_s > 60]
        assert len(back) == 8
        assert all(70 <= at_s <= 81 for at_s in back)
        ups = [session for event, _, session in told if event == SessionEvent.UP]
        assert sorted(set(ups)) == ups

    play(FaultPlan(group_loss=[loss]), use)


def test_only_one_link_at_a_time_and_none_after_its_end() -> None:
    async def use(adapter: SimAdapter, clock: VirtualClock) -> None:
        async with adapter.open() as link:
            with pytest.raises(LinkLost):
                async with adapter.open():
                    pass
        assert not (await link.send(commands(adapter, clock, 0.0))).any()
        with pytest.raises(LinkLost):
            await take(link, 1)

    play(FaultPlan(), use)


def test_a_slow_reader_is_not_flooded() -> None:
    async def use(adapter: SimAdapter, clock: VirtualClock) -> None:
        async with adapter.open() as link:
            await clock.sleep(200)
            assert not link.has_room()
            batches = await take(link, 20)
        assert set(keys(batches).values()) == {1}
        numbers = sorted(order for device, order in keys(batches) if device == 0)
        assert len(numbers) == numbers[-1] - numbers[0] + 1

    play(FaultPlan(), use)
