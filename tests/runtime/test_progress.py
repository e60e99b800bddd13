"""Whoever waits for a step gets it, however the two come together."""

import asyncio

from kapelle.runtime.progress import Progress


def test_no_step_is_missed_and_no_wait_is_without_end() -> None:
    async def play() -> None:
        progress = Progress()
        # Made between looking and waiting.
        seen = progress.steps
        progress.go_on()
        await progress.wait_beyond(seen, 30.0)
        # Made while several wait.
        async with asyncio.timeout(20.0), asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(progress.wait_beyond(progress.steps, 30.0))
            await asyncio.sleep(0)
            progress.go_on()
        # Never made.
        await progress.wait_beyond(progress.steps, 0.01)
        assert progress.steps == 2

    asyncio.run(play())
