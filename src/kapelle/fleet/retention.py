"""Which entries of a topic nobody needs any more."""

from collections import deque

from kapelle.model.ids import NS_PER_S


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
