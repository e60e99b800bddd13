"""Corrections of energy as whoever asks for them sees them: read from the record, never written.

The recorder alone writes the ledger. Here its own code says what a correction would do, from the
record as of one moment.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from kapelle.errors import Invalid, NotFound
from kapelle.history.catalog import FILE
from kapelle.history.corrections import in_force
from kapelle.history.ledger import Ledger
from kapelle.history.store import Store
from kapelle.history.tables import PARTITIONS
from kapelle.model.ids import PLANT
from kapelle.model.plant import Correction


@dataclass(frozen=True, slots=True)
class Held:
    """The corrections the record has taken over."""

    applied: list[Correction]
    """In the ledger, by number."""
    asked: list[Correction]
    """Noted; the ledger works on them next."""
    position: int
    """How far the record has followed the plant's topic."""

    def of(self, correction_no: int) -> Correction | None:
        """Return an applied correction by its number."""
        return next((c for c in self.applied if c.correction_no == correction_no), None)


def held(directory: Path) -> Held:
    """Return every correction in the record. Raises NotFound where there is no record yet."""
    with _opened(directory) as ledger:
        positions = ledger.store.catalog.positions()
        applied = [c for p in range(ledger.partitions) for c in ledger.state.corrections(p)]
        applied.sort(key=lambda one: one.correction_no)
        known = {one.correction_no for one in applied}
        asked = [one for one in ledger.state.asked() if one.correction_no not in known]
        return Held(applied, asked, positions.get(PLANT, 0))


def preview(directory: Path, correction: Correction) -> pa.Table:
    """Return what a correction would do, by interval; see `Ledger.preview`.

    Raises:
        Invalid: It cannot be meant.
        NotFound: There is no record yet.
    """
    with _opened(directory) as ledger:
        return ledger.preview(correction)


def taken_back(corrections: list[Correction]) -> dict[int, int]:
    """Return the number of the undo that took back each correction that does not stand."""
    standing = {each.correction_no for each in in_force(corrections)}
    found: dict[int, int] = {}
    for each in corrections:
        if each.method == "undo":
            found[each.undoes] = each.correction_no
    is_undo = {each.correction_no for each in corrections if each.method == "undo"}
    return {no: by for no, by in found.items() if no not in standing or no in is_undo}


@contextmanager
def _opened(directory: Path) -> Iterator[Ledger]:
    if not (directory / FILE).exists():
        raise NotFound(f"no history in {directory}; is the plant's [history] enabled?")
    store = Store(directory, read_only=True)
    with closing(store):
        partitions = int(store.catalog.state(PARTITIONS) or 0)
        if not partitions:
            raise Invalid("the record has just been made; try again in a moment")
        yield Ledger(store, partitions)
