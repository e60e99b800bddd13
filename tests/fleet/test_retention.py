"""An entry is forgotten only when two snapshots stand without it and it has grown old."""

import asyncio

from fleet_worlds import s
from hypothesis import given
from hypothesis import strategies as st

from kapelle.fleet.retention import Generations
from kapelle.journal.memory import MemoryJournal
from kapelle.model.plant import Tick


class HandClock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.s = 0

    def now_ns(self) -> int:
        return s(self.s)

    def not_before(self, utc_ns: int) -> None: ...

    async def sleep(self, seconds: float) -> None: ...


STEPS = st.one_of(
    st.tuples(st.just("entry"), st.integers(0, 100)),
    st.tuples(st.just("save"), st.integers(0, 100)),
    st.tuples(st.just("restart"), st.integers(0, 100)),
)


@given(st.lists(STEPS, min_size=1, max_size=40), st.integers(0, 200))
def test_forgets_what_is_old_and_the_older_snapshot_does_not_need_and_only_that(
    steps: list[tuple[str, int]], retain_s: int
) -> None:
    async def story() -> None:
        clock = HandClock()
        journal = MemoryJournal(clock)
        generations, written, saved, known = Generations(retain_s), list[int](), list[int](), 0
        for what, pause_s in steps:
            clock.s += pause_s
            if what == "entry":
                await journal.append("p/0", [Tick(1)], writer="w")
                written.append(clock.s)
            elif what == "restart":
                generations = Generations(retain_s)
                generations.note(saved[-1] if saved else 0)
                known = min(1, len(saved))
            elif len(written) > max([0, *saved]):
                saved.append(len(written))
                generations.note(len(written))
                known = min(2, known + 1)
            needed = saved[-2] if known == 2 else 0
            old = [p for p, at_s in enumerate(written, 1) if at_s <= clock.s - retain_s]
            may = max([0, *(p for p in old if p <= needed)])
            trimmed = await journal.first("p/0") - 1
            through = await generations.through(journal, "p/0", s(clock.s))
            assert through == (may if may > trimmed else 0)
            await journal.trim("p/0", through)
            assert generations.newest == max([0, *saved])

    asyncio.run(story())


def test_nothing_is_forgotten_before_there_are_two() -> None:
    async def story() -> None:
        journal = MemoryJournal(HandClock())
        await journal.append("p/0", [Tick(n) for n in range(9)], writer="w")
        generations = Generations(0.0)
        assert (generations.newest, await generations.through(journal, "p/0", s(0))) == (0, 0)
        generations.note(5)
        assert await generations.through(journal, "p/0", s(1000)) == 0

    asyncio.run(story())
