"""Virtual time: jumps, keeps the order of timers, and says when nothing can happen any more."""

import asyncio
import time

import pytest

from kapelle.model.ids import NS_PER_S
from kapelle.sim.clock import NOON_NS, VirtualClock
from kapelle.sim.loop import Deadlock, Stalled, run_virtual


def test_a_day_passes_at_once_and_timers_keep_their_order() -> None:
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((name, asyncio.get_running_loop().time()))

    async def main() -> float:
        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper("evening", 86_400.0))
            group.create_task(sleeper("morning", 3600.0))
        return asyncio.get_running_loop().time()

    started = time.monotonic()
    assert run_virtual(main) == 86_400.0
    assert time.monotonic() - started < 5.0
    assert woken == [("morning", 3600.0), ("evening", 86_400.0)]


def test_timeouts_end_waits_that_nothing_else_ends() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7.5):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 7.5


def test_a_deadlock_is_named() -> None:
    async def main() -> None:
        asyncio.current_task().set_name("the one that waits")
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="the one that waits"):
        run_virtual(main)


def test_a_spinning_task_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kapelle.sim.loop._TURNS_MAX", 1000)

    async def main() -> None:
        while True:  # noqa: ASYNC110 - spinning is the point
            await asyncio.sleep(0)

    with pytest.raises(Stalled):
        run_virtual(main)


def _order_of_tasks(seed: int | None) -> list[int]:
    seen: list[int] = []

    async def note(number: int) -> None:
        await asyncio.sleep(0)
        seen.append(number)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(note(number))

    run_virtual(main, seed)
    return seen


def test_a_seed_shuffles_what_is_ready_together_the_same_way_every_time() -> None:
    assert _order_of_tasks(None) == list(range(20))
    assert _order_of_tasks(1) == _order_of_tasks(1)
    assert _order_of_tasks(1) != _order_of_tasks(2)
    assert sorted(_order_of_tasks(1)) == list(range(20))


def test_the_clock_follows_the_loop_and_never_goes_back() -> None:
    async def main() -> list[int]:
        clock = VirtualClock()
        seen = [clock.now_ns()]
        await clock.sleep(1.5)
        seen.append(clock.now_ns())
        clock.step(-3600.0)
        seen.append(clock.now_ns())
        clock.step(7200.0)
        seen.append(clock.now_ns())
        return [at_ns - NOON_NS for at_ns in seen]

    hour = 3600 * NS_PER_S
    later = 3 * NS_PER_S // 2
    assert run_virtual(main) == [0, later, later, later + hour]
