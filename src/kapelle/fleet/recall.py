"""Takes up what the plant's topic has told so far: the newest snapshot, then the entries since."""

from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.retention import check_whole
from kapelle.fleet.snapshots import view_from_snapshot
from kapelle.model.entries import Kind
from kapelle.model.ids import PLANT
from kapelle.ports import Journal

_LASTING = tuple(
    kind for kind in Kind if kind >= Kind.TICK and kind not in (Kind.TICK, Kind.SUMMARY)
)
"""What of the past still matters; a summary is out of date after a second."""
_READ_AT_ONCE = 1_000
_SUMMARIES_BACK = 4
"""Seconds of summaries that are taken up all the same, so that the picture is not empty."""


async def recall(journal: Journal, partitions: int) -> PlantView:
    """Return the view of the plant at the present end of its topic.

    Raises:
        JournalDamaged: Entries were dropped that no usable snapshot makes up for.
    """
    snapshot = await journal.load_snapshot(PLANT)
    view = PlantView(partitions)
    if snapshot is not None:
        view = view_from_snapshot(snapshot, partitions)
        view.summaries.clear()
    check_whole(PLANT, view.position, await journal.first(PLANT))
    last = await journal.last(PLANT)
    recent = max(view.position, last - _SUMMARIES_BACK * partitions)
    await _read_on(journal, view, recent, _LASTING)
    await _read_on(journal, view, last, None)
    return view


async def _read_on(
    journal: Journal, view: PlantView, through: int, kinds: tuple[Kind, ...] | None
) -> None:
    """Apply the entries of these kinds up to a position."""
    while view.position < through and (
        entries := await journal.read(PLANT, view.position, _READ_AT_ONCE, kinds)
    ):
        for entry in entries:
            if entry.position <= through:
                apply_plant(view, entry)
        if entries[-1].position >= through:
            break
    view.position = max(view.position, through)
