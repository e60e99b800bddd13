"""Which entries of a topic nobody needs any more, and whether those that are needed are there."""

from collections import deque

from kapelle.errors import JournalDamaged
from kapelle.model.ids import NS_PER_S


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
    """Remembers when snapshots of a topic were taken, and so what may be forgotten."""

    def __init__(self, retain_s: float) -> None:
        self._retain_ns = round(retain_s * NS_PER_S)
        self._taken: deque[tuple[int, int]] = deque()

    @property
    def newest(self) -> int:
        """Return the position of the newest snapshot; 0 without any."""
        return self._taken[-1][1] if self._taken else 0

    def note(self, now_ns: int, position: int) -> None:
        """Remember a snapshot that was saved, or restored from."""
        self._taken.append((now_ns, position))

    def through(self, now_ns: int) -> int:
        """Return the position up to which entries may go; 0 for none.

        The newest snapshot may turn out damaged, so the one before must still find every entry
        since it was taken; and entries stay for a while for those who read along.
        """
        keep_ns = now_ns - self._retain_ns
        while len(self._taken) > 2 and self._taken[1][0] <= keep_ns:
            self._taken.popleft()
        taken_ns, position = self._taken[0] if len(self._taken) >= 2 else (now_ns, 0)
        return position if taken_ns <= keep_ns else 0
