"""Follows the plant's journal during the demo: the live view, latencies, and what was sent."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable

import numpy as np

from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.model.blocks import Acks, Commands, Phases, Readings
from kapelle.model.entries import Kind
from kapelle.model.enums import AckStatus, Phase
from kapelle.model.ids import NS_PER_S, PLANT, Longs, partition_topic
from kapelle.model.summaries import Summary
from kapelle.ports import Journal

_WAITING_MAX = 4096
_SUMMARIES_MAX = 16
_SAMPLES_MAX = 1_000_000


class Gauge:
    """Everything the demo measures inside the plant; it reads the journal like any other role."""

    def __init__(self, journal: Journal, partitions: int) -> None:
        self.view = PlantView(partitions)
        self.readings = 0
        """Readings in the journal."""
        self.commands = 0
        self.retries = 0
        self.acks: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()
        self.latency_s: list[float] = []
        """Measured by a device -> part of a published aggregate."""
        self._journal = journal
        self._partitions = partitions
        self._published: dict[int, deque[tuple[int, int]]] = {
            partition: deque(maxlen=_SUMMARIES_MAX) for partition in range(partitions)
        }
        """Position and time of the latest summaries."""
        self._waiting: dict[int, deque[tuple[int, Longs]]] = {
            partition: deque(maxlen=_WAITING_MAX) for partition in range(partitions)
        }

    async def run(self, on_summary: Callable[[], None]) -> None:
        """Follow until cancelled; call back after each batch that brought a summary."""
        async with asyncio.TaskGroup() as group:
            for partition in range(self._partitions):
                group.create_task(self._follow_partition(partition))
            async for entries in self._journal.follow(PLANT, 0):
                fresh = False
                for entry in entries:
                    apply_plant(self.view, entry)
                    if isinstance(entry.body, Summary):
                        fresh = True
                        self._publish(entry.body, entry.written_at_ns)
                if fresh:
                    on_summary()

    async def _follow_partition(self, partition: int) -> None:
        kinds = (Kind.READINGS, Kind.COMMANDS, Kind.ACKS, Kind.PHASES)
        async for entries in self._journal.follow(partition_topic(partition), 0, kinds):
            for entry in entries:
                match entry.body:
                    case Readings() as block:
                        self.readings += len(block)
                        self._take_in(partition, entry.position, block.measured_at_ns)
                    case Commands() as block:
                        again = int((block.attempt > 1).sum())
                        self.commands += len(block) - again
                        self.retries += again
                    case Acks() as block:
                        names = [AckStatus(status).name.lower() for status in block.status]
                        self.acks.update(names)
                    case Phases() as block:
                        self.phases.update(Phase(phase).name.lower() for phase in block.phase)

    def _take_in(self, partition: int, position: int, measured_at_ns: Longs) -> None:
        """Wait for the summary that contains a block, unless it has come already."""
        for through, written_at_ns in self._published[partition]:
            if through >= position:
                self._note(measured_at_ns, written_at_ns)
                return
        self._waiting[partition].append((position, measured_at_ns))

    def _publish(self, summary: Summary, written_at_ns: int) -> None:
        self._published[summary.partition].append((summary.position, written_at_ns))
        waiting = self._waiting[summary.partition]
        while waiting and waiting[0][0] <= summary.position:
            self._note(waiting.popleft()[1], written_at_ns)

    def _note(self, measured_at_ns: Longs, written_at_ns: int) -> None:
        if len(self.latency_s) < _SAMPLES_MAX:
            self.latency_s.extend(((written_at_ns - measured_at_ns) / NS_PER_S).tolist())

    def latency(self) -> tuple[float, float]:
        """Return median and 99th percentile of device to aggregate. [s]"""
        if not self.latency_s:
            return float("nan"), float("nan")
        median, worst = np.percentile(self.latency_s, [50, 99]).tolist()
        return median, worst
