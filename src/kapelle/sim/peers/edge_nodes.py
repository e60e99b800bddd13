"""Simulated Sparkplug edge nodes with devices behind them, on a broker of their own."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from math import isnan

import msgspec

from kapelle.adapters.sparkplug.settings import SparkplugMetric, SparkplugSettings
from kapelle.config import Config
from kapelle.model.blocks import Commands
from kapelle.model.enums import AckStatus, Metric
from kapelle.model.ids import Ints
from kapelle.sim.agents import NEVER_NS, Answers
from kapelle.sim.peers.broker import Broker
from kapelle.sim.peers.party import Ground, Hearing, Meeting, Party, Setpoints, Tally
from kapelle.sim.peers.sparkplug import NAMESPACE, SETPOINT, EdgeNode
from kapelle.sim.telemetry import Reports

_GROUP = "demo"
_DEVICES = 20
"""Behind one edge node."""
_STATE = f"{NAMESPACE}/STATE/"
_NS_PER_MS = 1_000_000
_MEASURED = {
    "Power": Metric.POWER_W,
    "SoC": Metric.SOC,
    "Export": Metric.EXPORT_WH,
    "Import": Metric.IMPORT_WH,
}
_METRICS = (
    # These count consumption upwards, so that a sign that is not turned shows.
    SparkplugMetric("Power", "power_w", "W", "import"),
    SparkplugMetric("SoC", "soc", "fraction"),
    SparkplugMetric("Export", "export_wh", "Wh"),
    SparkplugMetric("Import", "import_wh", "Wh"),
    SparkplugMetric(SETPOINT, "setpoint_w", "W", "import"),
)


class _State(msgspec.Struct):
    online: bool


def configured(config: Config, meeting: Meeting) -> Hearing:
    """See `Side`: the plant is their primary host, and calls their broker."""
    settings = SparkplugSettings(port=meeting.port, metrics=_METRICS)
    addresses = tuple(f"{_GROUP}/{_edge(n)}/{name}" for n, name in enumerate(meeting.names))
    return Hearing(replace(config, sparkplug=settings), addresses)


def party(ground: Ground) -> Party:
    """See `Side`."""
    return EdgeNodes(ground)


class EdgeNodes:
    """The party of edge nodes. Listener of their broker."""

    is_read = False

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._setpoints = Setpoints(ground.rows)
        self._tally = Tally()
        self._broker = Broker(self)
        self._is_host_here = False
        self._told: dict[int, tuple[int, float]] = {}
        """By row: number and value of the setpoint a device was given last, as it counts."""
        names, rows = ground.names, ground.rows.tolist()
        self._nodes = {
            _edge(first): self._node(_edge(first), names[first : first + _DEVICES])
            for first in range(0, len(names), _DEVICES)
        }
        self._index = {f"{_edge(index)}/{name}": index for index, name in enumerate(names)}
        self._place = {
            row: (self._nodes[_edge(index)], index % _DEVICES) for index, row in enumerate(rows)
        }
        for (node, index), secret in zip(self._place.values(), ground.secrets, strict=True):
            node.present[index] = bool(secret)

    def _node(self, name: str, devices: Sequence[str]) -> EdgeNode:
        return EdgeNode(
            _GROUP,
            name,
            devices,
            metrics=dict.fromkeys((*_MEASURED, SETPOINT)),
            publish=self._broker.publish,
            now_ms=lambda: self._ground.now_ns() // _NS_PER_MS,
        )

    async def run(self) -> None:
        """See `Party`."""
        async with self._broker.serve(self._ground.start.ports[self._ground.protocol]):
            await asyncio.Event().wait()

    def say(self, reports: Reports) -> None:
        """See `Party`."""
        columns = {name: reports.values[metric].tolist() for name, metric in _MEASURED.items()}
        columns["Power"] = [-power_w for power_w in columns["Power"]]
        at_ms = (reports.at_ns // _NS_PER_MS).tolist()
        for row, time_ms, *values in zip(
            reports.rows.tolist(), at_ms, *columns.values(), strict=True
        ):
            node, index = self._place[row]
            measured = dict(zip(columns, values, strict=True))
            # NaN, which a device has no value for, is the only value that differs from itself.
            node.measure(index, {name: v for name, v in measured.items() if v == v}, time_ms)
            self._tally.published += 1

    def answer(self, answers: Answers, at_ns: int) -> None:
        """See `Party`: a setpoint that is applied shows as the device's own."""
        applied = answers.where(answers.status == AckStatus.APPLIED)
        for row, revision in zip(applied.rows.tolist(), applied.revision.tolist(), strict=True):
            number, value = self._told[row]
            if revision == number:
                node, index = self._place[row]
                node.measure(
                    index, {SETPOINT: None if isnan(value) else value}, at_ns // _NS_PER_MS
                )

    def take(self, now_ns: int) -> tuple[Ints, Commands]:
        """See `Party`."""
        return self._setpoints.take(now_ns)

    def lose(self, rows: Sequence[int], share_deaf: float) -> None:
        """See `Party`: of the deaf the edge node has not noticed yet that they are gone."""
        for row in rows:
            node, index = self._place[row]
            node.miss(index, told=self._ground.rng.random() >= share_deaf)
            if not any(node.present):
                node.die()

    def bring_back(self, rows: Sequence[int], within_s: float) -> None:
        """See `Party`."""
        for row in rows:
            node, index = self._place[row]
            node.find(index)
            self._come_within(node, within_s)

    def leave(self) -> None:
        """See `Party`."""
        for node in self._nodes.values():
            node.die()

    def connected(self) -> int:
        """See `Party`."""
        if not self._broker.connected:
            return 0
        return sum(sum(node.present) for node in self._nodes.values() if node.is_born)

    def tally(self) -> Tally:
        """See `Party`."""
        return replace(
            self._tally,
            forgotten=self._broker.dropped,
            commands=self._setpoints.count,
            connects=sum(node.births for node in self._nodes.values()),
        )

    # What the broker calls.

    def on_published(self, topic: str, payload: bytes) -> None:
        """Hear of the host's coming and going, and take commands."""
        if topic.startswith(_STATE):
            self._is_host_here = msgspec.json.decode(payload, type=_State).online
            spread_s = len(self._place) / self._ground.start.connects_per_s
            for node in self._nodes.values():
                self._come_within(node, spread_s)
            return
        _, _, kind, edge, *device = topic.split("/")
        name = device[0] if device else ""
        try:
            for setpoint in self._nodes[edge].hear(kind, name, payload):
                index = self._index[f"{edge}/{name}"]
                # Numbers count upwards from 1, as `Setpoints` gives them.
                number = self._setpoints.count + 1
                self._told[int(self._ground.rows[index])] = number, setpoint
                self._setpoints.on_setpoint(index, -setpoint, NEVER_NS)
        except (KeyError, ValueError):
            self._tally.unreadable += 1

    def on_acked(self, waited_s: float) -> None:
        """Nothing follows: what edge nodes say is published at QoS 0."""

    def _come_within(self, node: EdgeNode, within_s: float) -> None:
        """Have a node be born at a moment of its own, as soon as its host is there."""

        def come() -> None:
            if self._is_host_here and not node.is_born and any(node.present):
                node.come()

        asyncio.get_running_loop().call_later(self._ground.rng.uniform(0.0, within_s), come)


def _edge(index: int) -> str:
    """Return the edge node of a party's device."""
    return f"edge-{index // _DEVICES}"
