"""Which entries of a topic nobody needs any more, and whether those that are needed are there."""

from collections import deque

from kapelle.errors import JournalDamaged
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Journal


def check_whole(topic: str, restored: int, first: int) -> None:
    """Refuse to go on from the middle of a topic: what came before would be missing for good.

    Args:
        topic: Which.
        restored: Position of the snapshot that was restored; 0 for none.
        first: The first position the journal still holds.

    Raises:
        JournalDamaged: Entries between the two were forgotten.
    """
    if first <= restored + 1:
        return
    found = f"the newest usable one is of {restored}" if restored else "none is usable"
    raise JournalDamaged(
        f"{topic}: entries up to {first - 1} were dropped because snapshots hold what they did, "
        f"but {found}; nothing was changed: restore the data directory from a backup"
    )


class Generations:
    """Remembers where the two newest snapshots of a topic stand, and so what may be forgotten."""

    def __init__(self, retain_s: float) -> None:
        self._retain_ns = round(retain_s * NS_PER_S)
        self._taken: deque[int] = deque(maxlen=2)

    @property
    def newest(self) -> int:
        """Return the position of the newest snapshot; 0 without any."""
        return self._taken[-1] if self._taken else 0

    def note(self, position: int) -> None:
        """Remember a snapshot that was saved, or restored from."""
        if position > self.newest:
            self._taken.append(position)

    async def through(self, journal: Journal, topic: str, now_ns: int) -> int:
        """Return the position up to which entries may go; 0 for none.

        The newest snapshot may turn out damaged, so the one before must still find every entry
        since it was taken; and entries stay for a while for those who read along. How old they
        are they say themselves, so that a plant that is restarted often forgets as well.
        """
        if len(self._taken) < 2:
            return 0
        kept_ns = now_ns - self._retain_ns
        forgotten = await journal.first(topic) - 1
        old = min(await position_at(journal, topic, kept_ns + 1), self._taken[0] + 1) - 1
        return old if old > forgotten else 0


async def position_at(journal: Journal, topic: str, since_ns: int) -> int:
    """Return the position of the first entry written at this time or later; behind the last where
    there is none."""
    low, high = await journal.first(topic) - 1, await journal.last(topic)
    while low < high:
        middle = (low + high + 1) // 2
        found = await journal.read(topic, middle - 1, 1)
        if found and found[0].written_at_ns < since_ns:
            low = middle
        else:
            high = middle - 1
    return low + 1
