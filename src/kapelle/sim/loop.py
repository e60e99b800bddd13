"""An asyncio loop whose time jumps to the next timer, so that a day passes in seconds."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_TURNS_MAX = 1_000_000
"""So many turns without a step of time mean that something spins."""


class Deadlock(RuntimeError):
    """Everybody waits and no timer will ever wake anyone."""


class Stalled(RuntimeError):
    """Callbacks keep one another busy and the time does not move."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs what is ready; then, instead of waiting, sets the time to the next timer.

    There are no sockets and no threads here. With a seed the callbacks that are ready at the same
    moment run in a shuffled order, the same for the same seed.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self._now_s = 0.0
        self._turns = 0
        self._shuffle = None if seed is None else random.Random(seed)
        # BaseEventLoop reads both. The resolution only has to swallow rounding of float sums.
        self._selector = self
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Return the virtual time. [s]"""
        return self._now_s

    def select(self, timeout: float | None) -> list[object]:
        """Pass the time that a selector would have waited."""
        if timeout is None:
            waiting = sorted(task.get_name() for task in asyncio.all_tasks(self))
            raise Deadlock(f"nothing is ready and no timer is set; waiting: {', '.join(waiting)}")
        if timeout > 0:
            self._now_s += timeout
            self._turns = 0
        else:
            self._turns += 1
            if self._turns > _TURNS_MAX:
                raise Stalled(f"the time stands still at {self._now_s} s")
        if self._shuffle is not None:
            ready = self.__dict__["_ready"]
            if len(ready) > 1:
                mixed = list(ready)
                self._shuffle.shuffle(mixed)
                ready.clear()
                ready.extend(mixed)
        return []

    def _process_events(self, event_list: list[object]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        """Nobody waits in a selector, so nobody has to be woken."""


def run_virtual(main: Callable[[], Awaitable[T]], seed: int | None = None) -> T:
    """Run a coroutine to its end in virtual time and return what it returns.

    Args:
        main: Makes the coroutine, inside the loop.
        seed: Order of callbacks that are ready together; None leaves asyncio's own.

    Raises:
        Deadlock: Nothing could ever happen again.
        Stalled: The time no longer moves.
    """

    async def run() -> T:
        return await main()

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(seed)) as runner:
        return runner.run(run())
