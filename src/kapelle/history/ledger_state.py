"""What the ledger keeps beside its rows, in the catalog: small, and committed with them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from kapelle.history.catalog import Catalog
from kapelle.history.corrections import REGISTERS
from kapelle.history.energy import Grid, Reported
from kapelle.history.order import numbers
from kapelle.history.store import Rows
from kapelle.history.tables import DAY_NS, QUARTER_NS
from kapelle.model.ids import Bytes, Ints, Longs
from kapelle.model.plant import Correction

_ASKED = "energy/asked"
_PARTS = ("state", "behind", "metered")


@dataclass(slots=True)
class PartitionState:
    """How far one partition is. Columns are bytes: of a million devices all may be silent."""

    closed_ns: int = 0
    """Every interval before was closed; 0: none yet."""
    behind: bytes = b""
    """Devices that are known only up to an earlier edge: they were silent when it was closed.
    Their numbers [i4], ascending; then the edges [i4, quarter-hours since 1970]."""
    metered: bytes = b""
    """By row of the partition: registers its device has ever reported, as bits."""

    def copy(self) -> "PartitionState":
        """Return a state that may be changed until it is committed."""
        return replace(self)

    def edges_of(self, device_no: Ints) -> Longs:
        """Return up to which edge each device is known; -1 of those that are not behind. [ns]"""
        known, quarters = self._behind()
        if not len(known):
            return np.full(len(device_no), -1, np.int64)
        of = np.minimum(np.searchsorted(known, device_no), len(known) - 1)
        return np.where(known[of] == device_no, quarters[of] * QUARTER_NS, -1)

    def forget_before(self, oldest_ns: int) -> None:
        """Wait no longer for those that were silent for so long."""
        known, quarters = self._behind()
        kept = quarters * QUARTER_NS >= oldest_ns
        if not kept.all():
            self._keep(known[kept], quarters[kept])

    def _behind(self) -> tuple[Ints, Longs]:
        known, quarters = np.frombuffer(self.behind, np.int32).reshape(2, -1)
        return known, quarters.astype(np.int64)

    def _keep(self, device_no: Ints, quarters: Longs) -> None:
        self.behind = np.stack([device_no, quarters]).astype(np.int32).tobytes()

    def learn(self, reported: Reported, partitions: int) -> None:
        """Remember who has which register: power does not make up for it when it is silent."""
        if not len(reported.device_no):
            return
        rows = reported.device_no // partitions
        metered = np.zeros(max(int(rows.max()) + 1, len(self.metered)), np.uint8)
        metered[: len(self.metered)] = np.frombuffer(self.metered, np.uint8)
        for register in range(len(REGISTERS)):
            said = np.isfinite(reported.register_wh[register])
            metered[rows[said]] |= np.uint8(1 << register)
        self.metered = metered.tobytes()

    def metered_of(self, device_no: Ints, partitions: int) -> Bytes:
        """Return the registers of each device, as bits."""
        rows = device_no // partitions
        known = np.frombuffer(self.metered, np.uint8)
        found = np.zeros(len(rows), np.uint8)
        inside = rows < len(known)
        found[inside] = known[rows[inside]]
        return found

    def note_behind(self, grid: Grid, partitions: int) -> None:
        """Remember up to which edge each device of a grid is known, if not to its end.

        A device is known where all its registers are; one that is silent for a day holds up the
        other no longer.
        """
        quarters = grid.measured_mwh.shape[1]
        bits = self.metered_of(grid.device_no, partitions)
        has = np.stack([bits & 1, bits >> 1 & 1], axis=1).astype(np.bool_)
        has |= ~has.any(axis=1, keepdims=True)
        has = has[:, np.newaxis, :]
        known: NDArray[np.bool_] = grid.measured_mwh >= 0
        through = np.zeros((2, len(grid.device_no)), np.int64)
        wholly, partly = np.all(known | ~has, axis=2), np.any(known & has, axis=2)
        for place, settled in enumerate((wholly, partly)):
            last = quarters - np.argmax(settled[:, ::-1], axis=1)
            through[place] = np.where(settled.any(axis=1), last, 0)
        is_lame = through[1] - through[0] > DAY_NS // QUARTER_NS
        edge = np.where(is_lame, through[1], through[0])
        known_no, known_quarters = self._behind()
        others = ~np.isin(known_no, grid.device_no)
        late = edge < quarters
        device_no = np.concatenate([known_no[others], grid.device_no[late]])
        at = np.concatenate([known_quarters[others], grid.starts_at_ns // QUARTER_NS + edge[late]])
        places = np.argsort(device_no)
        self._keep(device_no[places], at[places])


_SPANS = msgspec.msgpack.Decoder(dict[int, tuple[int, int]])
_CORRECTIONS = msgspec.msgpack.Decoder(list[Correction])
_json = msgspec.json.Decoder(Correction)


class LedgerState:
    """The states of all partitions, read when first asked for."""

    def __init__(self, catalog: Catalog, partitions: int) -> None:
        self._catalog = catalog
        self._partitions = partitions
        self._states: dict[int, PartitionState] = {}
        self._made: dict[int, list[Correction]] = {}

    def partition(self, partition: int) -> PartitionState:
        """Return what was last committed of a partition; copy it before changing it."""
        if partition not in self._states:
            closed, behind, metered = (
                self._catalog.state(_name(partition, what)) or b"" for what in _PARTS
            )
            closed_ns = int.from_bytes(closed, "little")
            self._states[partition] = PartitionState(closed_ns, behind, metered)
        return self._states[partition]

    def corrections(self, partition: int) -> list[Correction]:
        """Return every correction of a partition's devices, in the order they were made."""
        if partition not in self._made:
            body = self._catalog.state(_name(partition, "corrections"))
            self._made[partition] = _CORRECTIONS.decode(body) if body else []
        return self._made[partition]

    def with_correction(self, partition: int, correction: Correction) -> dict[str, bytes | None]:
        """Return the states to commit with a correction's rows."""
        made = [*self.corrections(partition), correction]
        return {_name(partition, "corrections"): msgspec.msgpack.encode(made)}

    def changed(
        self, partition: int, state: PartitionState, late: dict[int, tuple[int, int]]
    ) -> dict[str, bytes | None]:
        """Return the states to commit with rows; `late`: what is to be computed again, now that
        what was noted is done."""
        last = self.partition(partition)
        states: dict[str, bytes | None] = {
            _name(partition): state.closed_ns.to_bytes(8, "little"),
            _name(partition, "late"): msgspec.msgpack.encode(late) if late else None,
        }
        # Bytes per device, which most closes leave as they were.
        if state.behind != last.behind:
            states[_name(partition, "behind")] = state.behind or None
        if state.metered != last.metered:
            states[_name(partition, "metered")] = state.metered
        return states

    def forget(self, partition: int) -> None:
        """Read a partition again: something was committed."""
        self._states.pop(partition, None)
        self._made.pop(partition, None)

    def note(self, rows: Iterable[Rows]) -> dict[str, bytes | None]:
        """Return the states to commit with rows: the closed intervals and corrections in them."""
        late: dict[int, dict[int, tuple[int, int]]] = {}
        asked = list[Correction]()
        for part in rows:
            if part.table == "events":
                kinds = part.data.column("kind").to_pylist()
                bodies = part.data.column("body")
                asked += [
                    _json.decode(bodies[place].as_py())
                    for place, kind in enumerate(kinds)
                    if kind == "correction"
                ]
            elif part.table == "readings":
                closed_ns = self.partition(part.partition).closed_ns
                device_no = numbers(part.data, "device_no").astype(np.int32)
                at_ns = numbers(part.data, "measured_at_ns").astype(np.int64)
                places = np.flatnonzero(at_ns < closed_ns)
                if len(places):
                    spans = late.setdefault(part.partition, self.spans(part.partition))
                    _widen(spans, device_no[places], at_ns[places])
        states: dict[str, bytes | None] = {
            _name(partition, "late"): msgspec.msgpack.encode(spans)
            for partition, spans in late.items()
        }
        if asked:
            states[_ASKED] = msgspec.msgpack.encode([*self.asked(), *asked])
        return states

    def late(self, partition: int) -> tuple[Ints, Longs, Longs]:
        """Return the devices that closed intervals must be computed again of, from and to when."""
        spans = self.spans(partition)
        device_no = np.array(sorted(spans), np.int32)
        bounds = np.array([spans[no] for no in device_no.tolist()], np.int64).reshape(-1, 2)
        return device_no, bounds[:, 0], bounds[:, 1]

    def asked(self) -> list[Correction]:
        """Return the corrections that were noted and not yet applied."""
        body = self._catalog.state(_ASKED)
        return _CORRECTIONS.decode(body) if body else []

    def forget_asked(self) -> None:
        """Say that every correction noted has been applied or refused."""
        if self._catalog.state(_ASKED) is not None:
            self._catalog.commit(states={_ASKED: None})

    def spans(self, partition: int) -> dict[int, tuple[int, int]]:
        """Return what `late` does, by device."""
        body = self._catalog.state(_name(partition, "late"))
        return _SPANS.decode(body) if body else {}


def _widen(spans: dict[int, tuple[int, int]], device_no: Ints, at_ns: Longs) -> None:
    devices, of = np.unique(device_no, return_inverse=True)
    first_ns = np.full(len(devices), np.iinfo(np.int64).max)
    last_ns = np.zeros(len(devices), np.int64)
    np.minimum.at(first_ns, of, at_ns)
    np.maximum.at(last_ns, of, at_ns)
    for device, first, last in zip(
        devices.tolist(), first_ns.tolist(), last_ns.tolist(), strict=True
    ):
        known = spans.get(device, (first, last))
        spans[device] = (min(first, known[0]), max(last, known[1]))


def _name(partition: int, what: str = "state") -> str:
    return f"energy/{what}/{partition}"
