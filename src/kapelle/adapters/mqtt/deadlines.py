"""Who is overdue, without a timer per connection. Pure; the caller brings the time."""

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Queue(Generic[T]):
    """Things that share one time-out, so that the oldest is always the first due."""

    __slots__ = ("_since_ns",)

    def __init__(self) -> None:
        self._since_ns: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._since_ns)

    def __contains__(self, thing: T) -> bool:
        return thing in self._since_ns

    def all(self) -> list[T]:
        """Return everything waiting, oldest first."""
        return list(self._since_ns)

    def add(self, thing: T, now_ns: int) -> None:
        """Start waiting, at the end of the line."""
        self._since_ns.pop(thing, None)
        self._since_ns[thing] = now_ns

    def discard(self, thing: T) -> bool:
        """Stop waiting; return whether it was."""
        return self._since_ns.pop(thing, None) is not None

    def older_than(self, at_ns: int) -> list[T]:
        """Return what has waited since before a time."""
        old = []
        for thing, since_ns in self._since_ns.items():
            if since_ns >= at_ns:
                break
            old.append(thing)
        return old


class Wheel(Generic[T]):
    """Things to look at again at a second of their own: each costs nothing until then."""

    __slots__ = ("_due_s", "_slots", "_turned_s")

    def __init__(self) -> None:
        self._slots: dict[int, dict[T, None]] = {}
        self._due_s: dict[T, int] = {}
        self._turned_s = 0

    def __len__(self) -> int:
        return len(self._due_s)

    def add(self, thing: T, due_s: int) -> None:
        """Look at a thing at this second, and not before; one in the past comes next."""
        self.discard(thing)
        due_s = max(due_s, self._turned_s + 1)
        self._due_s[thing] = due_s
        self._slots.setdefault(due_s, {})[thing] = None

    def discard(self, thing: T) -> None:
        """Forget a thing."""
        due_s = self._due_s.pop(thing, None)
        if due_s is not None:
            slot = self._slots[due_s]
            del slot[thing]
            if not slot:
                del self._slots[due_s]

    def due(self, now_s: int) -> list[T]:
        """Take out everything due up to a second, however long ago it was asked last."""
        self._turned_s = max(self._turned_s, now_s)
        found: list[T] = []
        for second in sorted(second for second in self._slots if second <= now_s):
            found += self._slots.pop(second)
        for thing in found:
            del self._due_s[thing]
        return found
