"""The state of a partition, or of the plant, as a snapshot and back; and its fingerprint."""

from functools import cache
from hashlib import blake2b

import msgspec
import numpy as np
from numpy.typing import NDArray

from kapelle import __version__
from kapelle.errors import JournalDamaged
from kapelle.fleet.capacity.learned import Firmness
from kapelle.fleet.capacity.trials import Trials
from kapelle.fleet.columns import Fleet, column_specs
from kapelle.fleet.counting.gaps import Gaps
from kapelle.fleet.counting.sequence import newest_told
from kapelle.fleet.envelopes import Window
from kapelle.fleet.estimation.learned import Learned
from kapelle.fleet.plant import OrderState, PlantView
from kapelle.fleet.settings import FleetSettings
from kapelle.model.ids import PLANT, partition_topic
from kapelle.model.plant import Notice
from kapelle.model.signals import Signal
from kapelle.model.summaries import Summary
from kapelle.ports import Snapshot

_VERSION = 1
_MEMBERS = "members/"
_GAPS = "gaps/"


class _Meta(msgspec.Struct, frozen=True):
    version: int
    partition: int
    partitions: int
    size: int
    now_ns: int
    names: dict[str, list[str]]
    signals: dict[str, Signal]
    made_with: str = ""
    """`fold_mark` of whoever folded the entries before it."""
    trials: dict[str, list[int]] = {}
    envelopes: dict[str, list[Window]] = {}


class _PlantMeta(msgspec.Struct, frozen=True):
    version: int
    orders: list[OrderState]
    summaries: list[Summary]
    held: bool
    hold_reason: str
    notices: list[Notice]
    made_with: str = ""
    learned: Learned = msgspec.field(default_factory=Learned)
    firmness: Firmness = msgspec.field(default_factory=Firmness)
    envelopes: dict[str, list[Window]] = {}
    held_at_ns: int = 0


class _Made(msgspec.Struct, frozen=True):
    made_with: str = ""


@cache
def fold_mark(settings: FleetSettings | None) -> str:
    """Return what the outcome of a fold depends on besides its entries: settings and version.

    None: of the plant's own topic, which has no settings.
    """
    columns = tuple((name, str(spec)) for name, spec in column_specs().items())
    made = f"{__version__} {settings} {columns if settings else ''}"
    return blake2b(made.encode(), digest_size=8).hexdigest()


def mark_of(snapshot: Snapshot) -> str:
    """Return the `fold_mark` a snapshot was made with; empty where it says none."""
    try:
        return msgspec.msgpack.decode(snapshot.meta, type=_Made).made_with
    except msgspec.MsgspecError:
        return ""


def to_snapshot(fleet: Fleet, settings: FleetSettings | None = None) -> Snapshot:
    """Return the state at `fleet.position`.

    Most columns are views, so that a snapshot of a large fleet costs no second fleet of memory: it
    must be written, or copied, before the next entry is applied.
    """
    columns = {name: getattr(fleet, name)[..., : fleet.size] for name in column_specs()}
    columns["newest_ns"] = newest_told(fleet)
    for resource, rows in sorted(fleet.members.items()):
        columns[_MEMBERS + resource] = rows
    columns |= {_GAPS + name: column for name, column in fleet.gaps.columns().items()}
    meta = _Meta(
        _VERSION,
        fleet.partition,
        fleet.partitions,
        fleet.size,
        fleet.now_ns,
        fleet.names,
        dict(sorted(fleet.signals.items())),
        fold_mark(settings) if settings else "",
        fleet.trials.told(fleet.names["vendor"]),
        dict(sorted(fleet.envelopes.windows.items())),
    )
    return Snapshot(fleet.position, columns, msgspec.msgpack.encode(meta))


def from_snapshot(snapshot: Snapshot) -> Fleet:
    """Return the fleet a snapshot was taken of. It takes over columns that may be written to.

    Raises:
        JournalDamaged: It was written by another version, or does not fit together.
    """
    try:
        meta = msgspec.msgpack.decode(snapshot.meta, type=_Meta)
    except msgspec.MsgspecError as error:
        raise JournalDamaged(f"snapshot at {snapshot.position}: meta: {error}") from error
    if meta.version != _VERSION:
        where = f"snapshot of {partition_topic(meta.partition)} at {snapshot.position}"
        raise JournalDamaged(f"{where}: version {meta.version}, this program reads {_VERSION}")
    fleet = Fleet.empty(meta.partition, meta.partitions)
    fleet.size, fleet.position, fleet.now_ns = meta.size, snapshot.position, meta.now_ns
    fleet.names, fleet.signals = meta.names, meta.signals
    fleet.trials = Trials.from_told(meta.trials, meta.names["vendor"])
    fleet.envelopes.windows = meta.envelopes
    for name, (dtype, fill, deep) in column_specs().items():
        shape = (deep, meta.size) if deep else (meta.size,)
        column = snapshot.columns.get(name)
        if column is None:
            # A column younger than the snapshot: as for devices nothing is known of.
            column = np.full(shape, fill, dtype)
        elif column.dtype != dtype or not _fits(column.size, deep, meta.size):
            raise JournalDamaged(f"snapshot at {snapshot.position}: column {name} does not fit")
        elif deep:
            column = _deep(column.reshape(-1, meta.size) if meta.size else column, shape, fill)
        elif _is_empty(column):
            column = np.zeros(shape, dtype)
        elif not (column.flags.writeable and column.flags.owndata):
            column = column.copy()
        setattr(fleet, name, column.reshape(shape))
    fleet.members = {
        name.removeprefix(_MEMBERS): np.array(column, np.int32)
        for name, column in snapshot.columns.items()
        if name.startswith(_MEMBERS)
    }
    windows = {
        name.removeprefix(_GAPS): column
        for name, column in snapshot.columns.items()
        if name.startswith(_GAPS)
    }
    fleet.gaps = Gaps.from_columns(windows)
    return fleet


def _fits(cells: int, deep: int, size: int) -> bool:
    """Tell whether a column can be of this fleet; a deep one may have had fewer rows then."""
    if not deep or not size:
        return cells == size * (deep or 1)
    return cells % size == 0 and 0 < cells <= deep * size


def _deep(column: NDArray[np.generic], shape: tuple[int, ...], fill: float) -> NDArray[np.generic]:
    """Return a two-dimensional column in which rows nobody reports take no memory."""
    made: NDArray[np.generic] = np.zeros(shape, column.dtype)
    for row, into in enumerate(made):
        if row >= len(column):
            into[:] = fill
        elif not _is_empty(column[row]):
            into[:] = column[row]
    return made


def _is_empty(column: NDArray[np.generic]) -> bool:
    # Bytes, because -0.0 is a zero that is not empty.
    return not np.ascontiguousarray(column).view(np.uint8).any()


def digest(fleet: Fleet) -> str:
    """Return a fingerprint of the state: equal for equal states, whatever led to them."""
    snapshot = to_snapshot(fleet)
    hashed = blake2b(digest_size=16)
    hashed.update(f"{snapshot.position}".encode())
    hashed.update(snapshot.meta)
    for name, column in snapshot.columns.items():
        hashed.update(f"{name} {column.dtype.str} {len(column)}\n".encode())
        hashed.update(np.ascontiguousarray(column).data)
    return hashed.hexdigest()


def view_to_snapshot(view: PlantView) -> Snapshot:
    """Return the plant as told up to `view.position`: with it, older entries may be forgotten."""
    meta = _PlantMeta(
        _VERSION,
        list(view.orders.values()),
        list(view.summaries.values()),
        view.held,
        view.hold_reason,
        list(view.notices),
        fold_mark(None),
        view.learned,
        view.firmness,
        dict(sorted(view.envelopes.windows.items())),
        view.held_at_ns,
    )
    return Snapshot(view.position, {}, msgspec.msgpack.encode(meta))


def digest_view(view: PlantView) -> str:
    """Return a fingerprint of orders, holds and notices; summaries are out of date in a second."""
    told = (list(view.orders.values()), view.held, view.hold_reason, list(view.notices))
    hashed = blake2b(f"{view.position}".encode(), digest_size=16)
    hashed.update(msgspec.msgpack.encode(told))
    return hashed.hexdigest()


def view_from_snapshot(snapshot: Snapshot, partitions: int) -> PlantView:
    """Return the view a snapshot was taken of.

    Raises:
        JournalDamaged: It was written by another version, or cannot be read.
    """
    where = f"snapshot of {PLANT} at {snapshot.position}"
    try:
        meta = msgspec.msgpack.decode(snapshot.meta, type=_PlantMeta)
    except msgspec.MsgspecError as error:
        raise JournalDamaged(f"{where}: {error}") from error
    if meta.version != _VERSION:
        raise JournalDamaged(f"{where}: version {meta.version}, this program reads {_VERSION}")
    view = PlantView(partitions, snapshot.position)
    view.orders = {state.order.order_no: state for state in meta.orders}
    view.summaries = {summary.partition: summary for summary in meta.summaries}
    view.held, view.hold_reason, view.held_at_ns = meta.held, meta.hold_reason, meta.held_at_ns
    view.notices.extend(meta.notices)
    view.learned = meta.learned
    view.firmness = meta.firmness
    view.envelopes.windows = meta.envelopes
    return view
