"""What was found damaged since the journal was opened."""

from collections.abc import Iterable, Sequence

_REMARKS_MAX = 10_000


class Damage:
    """Remarks, each once, in the order they were made."""

    def __init__(self, found: Iterable[str] = ()) -> None:
        self._found = dict.fromkeys(found)

    def add(self, remark: str) -> None:
        """Remember a remark. Beyond a number nobody would read, nothing is added."""
        if len(self._found) < _REMARKS_MAX:
            self._found[remark] = None

    def found(self) -> Sequence[str]:
        """Return all remarks."""
        return tuple(self._found)
