"""Names to numbers, remembered: a gateway names the same devices every time.

A look-up in a dictionary of many names is a walk through cold memory, 0.3 to 2 µs each; a list of
names that has come before costs a comparison of text in a row.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from kapelle.model.ids import Ints
from kapelle.ports import Directory

_WORTH_IT = 64
"""Shorter lists are looked up faster than remembered."""


class Names:
    """The directory, as the codecs of this adapter ask it."""

    def __init__(self, directory: Directory, rows_max: int = 0) -> None:
        self._directory = directory
        self._rows_max = rows_max
        self._known: dict[Hashable, Ints] = {}
        self._rows = 0
        self._version = directory.version

    def resolve(self, names: Sequence[str], sender_no: int | None) -> Ints:
        """Return each name's number, -1 where nobody bears it; no name is the sender's."""
        # A tuple, not a joined text: no name is so strange that two lists look the same.
        key = (sender_no, tuple(names))
        return self.recall(key, len(names), lambda: self.look(names, sender_no))

    def recall(self, key: Hashable, rows: int, look: Callable[[], Ints]) -> Ints:
        """Return what `look` said for this key, until the directory changes."""
        if rows < _WORTH_IT:
            return look()
        if self._version != self._directory.version:
            self._version = self._directory.version
            self._known.clear()
            self._rows = 0
        found = self._known.pop(key, None)
        if found is None:
            found = look()
            found.flags.writeable = False
            self._rows += len(found)
        # Last used, last forgotten.
        self._known[key] = found
        while self._rows > self._rows_max:
            oldest = next(iter(self._known))
            self._rows -= len(self._known.pop(oldest))
        return found

    def look(self, names: Sequence[str], sender_no: int | None) -> Ints:
        """Ask the directory."""
        device_no = self._directory.resolve(names)
        if sender_no is not None:
            unnamed = np.fromiter((not name for name in names), np.bool_, len(names))
            if unnamed.any():
                device_no = np.where(unnamed, np.int32(sender_no), device_no)
        return device_no
