"""Whom a host asks for its birth, how often, and who gave none in time. Pure.

Source: Sparkplug specification 3.0.0, 5 (message ordering; commands: Node Control/Rebirth).
"""

from collections.abc import Iterable

from kapelle.adapters.sparkplug.nodes import Nodes
from kapelle.adapters.sparkplug.settings import SparkplugSettings
from kapelle.model.ids import NS_PER_S


class Rebirths:
    """What edge nodes and devices owe their host."""

    def __init__(self, settings: SparkplugSettings, nodes: Nodes, look_s: float) -> None:
        """Make it. `look_s`: how often `due` is asked. [s]"""
        self._nodes = nodes
        self._at_once = max(1, round(settings.rebirths_per_s * look_s))
        self._apart_ns = int(settings.rebirth_s * NS_PER_S)
        self._reorder_ns = int(settings.reorder_s * NS_PER_S)
        self._birth_ns = int(settings.birth_s * NS_PER_S)
        self._asked_ns: dict[str, int] = {}
        """When each edge node was last asked."""
        self._gap_ns: dict[str, int] = {}
        """Since when messages of an edge node are missing."""
        self._until_ns: dict[int, int] = {}
        """Until when each device must have been born."""

    def due(self, now_ns: int) -> list[str]:
        """Return the edge nodes to ask now, those that waited longest first."""
        gapped = self._nodes.gapped
        self._gap_ns = {node: self._gap_ns.get(node, now_ns) for node in gapped}
        for node, since_ns in self._gap_ns.items():
            if now_ns - since_ns >= self._reorder_ns:
                self._nodes.give_up(node)
        unborn = self._nodes.unborn
        may_ns = now_ns - self._apart_ns
        due = [node for node in unborn if self._asked_ns.get(node, may_ns) <= may_ns]
        for node in due[: self._at_once]:
            # Whoever does not hear it is noticed again by its next message.
            del unborn[node]
            self._asked_ns[node] = now_ns
        return due[: self._at_once]

    def expect(self, device_nos: Iterable[int], now_ns: int) -> None:
        """Have devices be born in time; who is expected already is not given longer."""
        for device_no in device_nos:
            self._until_ns.setdefault(device_no, now_ns + self._birth_ns)

    def settle(self, device_no: int) -> None:
        """Expect a device no more: it was born, or is known to be gone."""
        self._until_ns.pop(device_no, None)

    def overdue(self, now_ns: int) -> list[int]:
        """Return the devices that were not born in time, once."""
        late = [device_no for device_no, until_ns in self._until_ns.items() if now_ns > until_ns]
        for device_no in late:
            del self._until_ns[device_no]
        return late
