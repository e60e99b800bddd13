"""What a host knows of edge nodes: births, deaths, sequence, aliases. Pure.

Source: Sparkplug specification 3.0.0, 5 (operational behaviour) and 6.4.
"""

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kapelle.adapters import quantities
from kapelle.adapters.inbox import Report
from kapelle.adapters.sparkplug.codec import BDSEQ, Metric, Payload, Place, Value, signed
from kapelle.adapters.sparkplug.settings import SparkplugMetric
from kapelle.model import enums
from kapelle.model.ids import NS_PER_S

_NS_PER_MS = NS_PER_S // 1_000
_SEQ_MAX = 255


class Told(NamedTuple):
    """What follows from one message."""

    up: Sequence[str] = ()
    """Addresses that can be spoken with from now on."""
    down: Sequence[str] = ()
    reports: Sequence[tuple[int, Mapping[enums.Metric, float]]] = ()
    """Moment [ns, 0 for none] and values."""
    faults: Sequence[str] = ()
    setpoint: Value | None = None
    """What its setpoint is now, as the device counts it; None where that is not said."""
    released: bool = False
    """Its setpoint is null now."""


@dataclass(slots=True)
class _Source:
    """An edge node or a device since its birth, as far as the mapping asks."""

    names: dict[int, str] = field(default_factory=dict)
    """By alias."""
    datatypes: dict[str, int] = field(default_factory=dict)
    aliases: "array[int]" = field(default_factory=lambda: array("Q"))
    """All its birth gave, mapped or not, in order."""

    def knows(self, alias: int) -> bool:
        """Tell whether its birth gave this alias."""
        place = bisect_left(self.aliases, alias)
        return place < len(self.aliases) and self.aliases[place] == alias


@dataclass(slots=True)
class _Node:
    bdseq: int
    seq: int
    """Of its newest message."""
    missing: dict[int, None] = field(default_factory=dict)
    """Numbers of messages that newer ones have overtaken, or that are lost; the oldest first."""
    sources: dict[str, _Source] = field(default_factory=dict)
    """By address: those that are up."""


class Nodes:
    """Every edge node that was born since we connected."""

    def __init__(self, metrics: Sequence[SparkplugMetric]) -> None:
        self.unborn: dict[str, None] = {}
        """Edge nodes to ask for their birth, in the order in which that was noticed."""
        self.gapped: dict[str, None] = {}
        """Edge nodes of which messages are missing; those may come yet."""
        self._mapped = {metric.name: metric for metric in metrics}
        self._setpoint = next((m for m in metrics if m.metric == "setpoint_w"), None)
        self._nodes: dict[str, _Node] = {}

    def is_born(self, node: str) -> bool:
        """Tell whether an edge node was born, and did not die since."""
        return node in self._nodes

    def datatype(self, node: str, address: str) -> int | None:
        """Return the type of a device's setpoint; None where its birth named none."""
        source = self._nodes[node].sources.get(address) if node in self._nodes else None
        if source is None or self._setpoint is None:
            return None
        return source.datatypes.get(self._setpoint.name)

    def give_up(self, node: str) -> None:
        """Wait no longer for what is missing: its edge node is to be asked for its birth."""
        del self.gapped[node]
        self._nodes[node].missing.clear()
        self.unborn.setdefault(node)

    def step(self, place: Place, payload: Payload, *, is_known: bool = True) -> Told:
        """Take in a message of an edge node in which somebody is enrolled.

        `is_known`: so is whoever speaks. Of others nothing is kept, only their messages counted.
        """
        if place.kind == "NDEATH":
            return self._node_died(place.node, payload)
        if place.kind == "NBIRTH":
            return self._node_born(place, payload)
        node = self._nodes.get(place.node)
        if node is None:
            self.unborn.setdefault(place.node)
            return Told()
        self._count(place.node, node, payload.seq)
        if not is_known:
            return Told()
        if place.kind == "DDEATH":
            gone = node.sources.pop(place.address, None)
            return Told(down=[place.address] if gone is not None else [])
        if place.kind == "DBIRTH":
            return self._born(node, place.address, payload)
        source = node.sources.get(place.address)
        if source is None:
            self.unborn.setdefault(place.node)
            return Told()
        if not all(m.name or m.alias < 0 or source.knows(m.alias) for m in payload.metrics):
            # Its birth, or another one since, was missed.
            self.unborn.setdefault(place.node)
        return self._measured(source, payload.metrics)

    def _node_born(self, place: Place, payload: Payload) -> Told:
        # Some clients say bdSeq again with every birth they repeat: the last one is the newest.
        bdseq = _bdseq(payload)
        before = self._nodes.get(place.node)
        down: list[str] = []
        if before is not None and before.bdseq != bdseq:
            # Another connection: its devices are born again, or they are not there.
            down = [address for address in before.sources if address != place.address]
        node = _Node(bdseq, payload.seq)
        if before is not None and before.bdseq == bdseq:
            node.sources = before.sources
        self._nodes[place.node] = node
        self.unborn.pop(place.node, None)
        self.gapped.pop(place.node, None)
        return self._born(node, place.address, payload)._replace(down=down)

    def _node_died(self, name: str, payload: Payload) -> Told:
        node = self._nodes.get(name)
        # The will of an earlier connection may come after the next one's birth (5.4).
        if node is None or node.bdseq != _bdseq(payload):
            return Told()
        del self._nodes[name]
        self.gapped.pop(name, None)
        return Told(down=list(node.sources))

    def _born(self, node: _Node, address: str, payload: Payload) -> Told:
        source = node.sources[address] = _Source()
        source.aliases.extend(sorted({m.alias for m in payload.metrics if m.alias >= 0}))
        aliases: dict[str, int] = {}
        for metric in payload.metrics:
            if metric.name in self._mapped:
                source.datatypes[metric.name] = metric.datatype
                aliases[metric.name] = metric.alias
        source.names = {alias: name for name, alias in aliases.items() if alias >= 0}
        return self._measured(source, payload.metrics)._replace(up=[address])

    def _count(self, name: str, node: _Node, seq: int) -> None:
        if seq in node.missing:
            del node.missing[seq]
            if not node.missing:
                self.gapped.pop(name, None)
            return
        if not 0 <= seq <= _SEQ_MAX:
            self.unborn.setdefault(name)
            return
        ahead = (seq - node.seq) % (_SEQ_MAX + 1)
        # The same number again is a message that was delivered twice, as QoS 1 may do.
        if ahead > 1:
            numbers = ((node.seq + step) % (_SEQ_MAX + 1) for step in range(1, ahead))
            node.missing.update(dict.fromkeys(numbers))
            self.gapped.setdefault(name)
        node.seq = seq
        if node.missing and (seq - next(iter(node.missing))) % (_SEQ_MAX + 1) > _SEQ_MAX // 2:
            # Before numbers come round again and hide it.
            self.give_up(name)

    def _measured(self, source: _Source, metrics: Sequence[Metric]) -> Told:
        reports: dict[int, dict[enums.Metric, float]] = {}
        faults: list[str] = []
        setpoint: Value | None = None
        released = False
        for metric in metrics:
            name = metric.name or source.names.get(metric.alias, "")
            wanted = self._mapped.get(name)
            if wanted is None:
                continue
            value = signed(metric.value, metric.datatype or source.datatypes.get(name, 0))
            if isinstance(value, str):
                faults.append(
                    f"value-type: {name[:64]}: is {value}, and no number; mend the mapping"
                )
                continue
            if wanted is self._setpoint and not metric.is_historical:
                setpoint, released = value, value is None
            if value is None:
                continue
            if not quantities.is_number(value):
                faults.append(
                    f"value-type: {name[:64]}: is a flag, and no number; mend the mapping"
                )
            elif metric.is_historical and not metric.timestamp_ms:
                faults.append(f"time-missing: {name[:64]}: history without its time; mend the node")
            else:
                number = quantities.ours(float(value), wanted.unit, wanted.positive)
                at = reports.setdefault(metric.timestamp_ms * _NS_PER_MS, {})
                at[quantities.METRICS[wanted.metric]] = number
        return Told(reports=sorted(reports.items()), faults=faults, setpoint=setpoint,
                    released=released)  # fmt: skip


def reports_of(told: Told, device_no: int) -> list[Report]:
    """Return what was measured as a device's reports."""
    return [Report(device_no, values, at_ns) for at_ns, values in told.reports]


def _bdseq(payload: Payload) -> int:
    said = [metric.value for metric in payload.metrics if metric.name == BDSEQ]
    last = said[-1] if said else None
    return -1 if last is None or isinstance(last, str) else int(last)
