"""What the plant said about its resources, tick by tick, as it said it."""

from collections.abc import Iterable

import msgspec
import pyarrow as pa

from kapelle.fleet.plant import Aggregate, OrderState, PlantView, apply_plant, total
from kapelle.fleet.profiles import target_w
from kapelle.fleet.snapshots import view_from_snapshot, view_to_snapshot
from kapelle.history.store import Rows
from kapelle.history.tables import TABLES, WHOLE_PLANT
from kapelle.model.entries import Entry
from kapelle.model.enums import Freshness, OrderStatus
from kapelle.model.ids import ALL
from kapelle.model.summaries import Summary
from kapelle.ports import Snapshot


class _State(msgspec.Struct):
    position: int
    view: bytes
    tick_ns: int
    is_said: bool


class Publisher:
    """Follows the plant's topic and keeps every total the plant published.

    A tick is published when the last partition has spoken about it; where one does not, when the
    next tick begins, and then as incomplete. So each tick gives one row per resource, whatever
    comes late; a row is never changed.
    """

    def __init__(self, partitions: int, state: bytes | None = None) -> None:
        self._view = PlantView(partitions)
        self._tick_ns = 0
        self._is_said = True
        if state is not None:
            kept = msgspec.msgpack.decode(state, type=_State)
            self._view = view_from_snapshot(Snapshot(kept.position, {}, kept.view), partitions)
            self._tick_ns, self._is_said = kept.tick_ns, kept.is_said

    def state(self) -> bytes:
        """Return everything that another one needs to go on from here."""
        snapshot = view_to_snapshot(self._view)
        kept = _State(self._view.position, snapshot.meta, self._tick_ns, self._is_said)
        return msgspec.msgpack.encode(kept)

    def apply(self, entries: Iterable[Entry]) -> list[Rows]:
        """Apply the next entries of the plant's topic and return the totals published by them."""
        said: list[dict[str, object]] = []
        for entry in entries:
            body = entry.body
            if isinstance(body, Summary) and entry.position > self._view.position:
                if body.tick_ns > self._tick_ns:
                    said += self._say(entry.written_at_ns)
                    self._tick_ns, self._is_said = body.tick_ns, False
                apply_plant(self._view, entry)
                if self._is_complete():
                    said += self._say(entry.written_at_ns)
            else:
                apply_plant(self._view, entry)
        if not said:
            return []
        table = pa.Table.from_pylist(said, schema=TABLES["aggregates"].schema)
        return [Rows("aggregates", WHOLE_PLANT, table)]

    def _is_complete(self) -> bool:
        summaries = self._view.summaries.values()
        return len(summaries) >= self._view.partitions and all(
            summary.tick_ns >= self._tick_ns for summary in summaries
        )

    def _say(self, at_ns: int) -> list[dict[str, object]]:
        if self._is_said:
            return []
        self._is_said = True
        is_complete = self._is_complete()
        return [
            _row(total(self._view, name, self._tick_ns), self._target_w(name))
            | {"at_ns": self._tick_ns, "computed_at_ns": at_ns, "complete": is_complete}
            for name in self._view.resources()
        ]

    def _target_w(self, resource: str) -> float | None:
        active = [
            target_w(state.order, self._tick_ns)
            for state in self._view.orders.values()
            if _is_active(state) and resource in (state.order.resource, ALL)
        ]
        return sum(active) if active else None


def _is_active(state: OrderState) -> bool:
    return state.status == OrderStatus.ACTIVE


def _row(found: Aggregate, target_w: float | None) -> dict[str, object]:
    counts = {freshness.name.lower(): found.freshness[freshness] for freshness in Freshness}
    floats = {
        name: _known(getattr(found, name))
        for name in TABLES["aggregates"].schema.names
        if isinstance(getattr(found, name, None), float)
    }
    return {
        **counts,
        **floats,
        "resource": found.resource,
        "devices": found.devices,
        "target_w": target_w,
    }


def _known(value: float) -> float | None:
    return value if value == value else None  # NaN differs from itself
