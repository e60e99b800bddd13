"""Many rows are decided about without anybody waiting for it."""

import asyncio

from kapelle.adapters.replay.fix import Fix
from kapelle.adapters.replay.link import Replay
from kapelle.api.quarantine_desk import QuarantineDesk
from kapelle.history.kept import Kept
from kapelle.ingest.settings import IngestSettings
from kapelle.journal.memory import MemoryJournal
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock

ROWS = 1_000


def kept(number: int) -> Kept:
    told = ("mqtt/dev-1", "json", "json: no JSON", b"rubbish")
    return Kept(number, 0, number, 0, -1, *told, 1, 1, 1, 1, "", 0, "", "", "", "open")


def test_others_have_their_turn_while_thousands_of_rows_are_tried() -> None:
    clock = SystemClock()
    desk = QuarantineDesk(
        follower=None,  # type: ignore[arg-type]  # not asked
        replay=Replay(),
        journal=MemoryJournal(clock),
        directory=Directory(1),
        clock=clock,
        ingest=IngestSettings(),
        breakers={},
        lock=asyncio.Lock(),
    )
    rows = [kept(number) for number in range(ROWS)]
    turns = 0

    async def play() -> list[str]:
        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        tried = await desk._try(rows, Fix(), clock.now_ns())
        task.cancel()
        return [why for _, why in tried]

    reasons = asyncio.run(play())
    assert len(reasons) == ROWS
    assert all(reasons), "none of them can be read"
    assert turns >= ROWS // 200
