"""What was found damaged since the journal was opened: remembered, and logged once."""

import logging
from collections.abc import Iterable, Sequence

_REMARKS_MAX = 10_000
_LOGGED_MAX = 100
"""A lost disk page holds many entries; all of them are in `found`."""

log = logging.getLogger(__name__)


class Damage:
    """Remarks, each once, in the order they were made."""

    def __init__(self, found: Iterable[str] = (), *, logged: bool = True) -> None:
        """`logged`: False where whoever asks for the remarks says them."""
        self._found: dict[str, None] = {}
        self._logged_max = _LOGGED_MAX if logged else 0
        for remark in found:
            self.add(remark)

    def add(self, remark: str) -> None:
        """Remember a remark, and log it when it is new.

        Beyond a number nobody would read, nothing is logged, and later nothing added.
        """
        if remark in self._found or len(self._found) >= _REMARKS_MAX:
            return
        self._found[remark] = None
        if len(self._found) <= self._logged_max:
            log.error("journal is damaged", extra={"found": remark})
        elif self._logged_max and len(self._found) == self._logged_max + 1:
            log.error("more damage is counted, not logged")

    def found(self) -> Sequence[str]:
        """Return all remarks."""
        return tuple(self._found)
