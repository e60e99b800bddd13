"""Takes in what a cloud says of its devices, from polls and webhooks alike."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from kapelle.adapters.cloud.counters import Counters
from kapelle.adapters.cloud.mapping import Item
from kapelle.adapters.inbox import Heard, Inbox, NotStored, Report, Unreadable
from kapelle.model.enums import Metric
from kapelle.ports import Directory

_STRANGERS_MAX = 1_000
"""Devices that are not enrolled and are said one by one; further ones are only counted."""
_TOGETHER_MAX = 1_000
"""Items that wait for the journal at once: each is a message of its own, with its own raw text."""


class Seen(NamedTuple):
    """As what a device was last named."""

    address: str
    shape: str


class Intake:
    """The way of a cloud's items into the journal."""

    def __init__(
        self, adapter: str, inbox: Inbox, directory: Directory, counters: Counters
    ) -> None:
        self._adapter = adapter
        self._inbox = inbox
        self._directory = directory
        self._counters = counters
        self._latest: dict[int, tuple[int, dict[Metric, float]]] = {}
        """Per device what was stored last: a vendor's cache repeats it with every poll."""
        self._strangers: set[str] = set()
        self._seen: dict[int, Seen] = {}

    async def take(self, items: Sequence[Item]) -> list[int]:
        """Store items; return the device of each, -1 where nobody is enrolled for it.

        Raises:
            NotStored: The journal did not take one of them, or more.
        """
        known = self._directory.reached_by(self._adapter)
        numbers = [known.get(item.address, -1) for item in items]
        told = [
            (heard, number, item)
            for number, item in zip(numbers, items, strict=True)
            if (heard := self._heard(number, item)) is not None
        ]
        for start in range(0, len(told), _TOGETHER_MAX):
            await self._store(told[start : start + _TOGETHER_MAX])
        named = zip(numbers, items, strict=True)
        self._seen |= {no: Seen(item.address, item.shape) for no, item in named if no >= 0}
        return numbers

    def seen(self, device_no: int) -> Seen | None:
        """Return as what a device is reached; None where it is not, or by another name by now."""
        seen = self._seen.get(device_no)
        known = self._directory.reached_by(self._adapter)
        return seen if seen is not None and known.get(seen.address) == device_no else None

    async def unreadable(self, reason: str, raw: bytes) -> None:
        """Keep a document that cannot be read at all. Raises NotStored."""
        self._counters.unreadable += 1
        await self._inbox.accept(
            Heard(self._adapter, raw[:4_096], unreadable=[Unreadable(-1, reason)])
        )

    def _heard(self, number: int, item: Item) -> Heard | None:
        if number < 0:
            return self._stranger(item)
        faults = [Unreadable(number, reason) for reason in item.faults]
        reports = []
        if item.values and not self._is_repeated(number, item):
            reports.append(Report(number, item.values, item.measured_at_ns))
        if not reports and not faults:
            return None
        self._counters.unreadable += len(faults)
        return Heard(item.address, item.raw, reports, unreadable=faults)

    def _is_repeated(self, number: int, item: Item) -> bool:
        return bool(item.measured_at_ns) and self._latest.get(number) == (
            item.measured_at_ns,
            item.values,
        )

    def _stranger(self, item: Item) -> Heard | None:
        """Say once of each device that it is not enrolled: a vendor's account may have others."""
        if item.address in self._strangers:
            return None
        self._counters.unreadable += 1
        if len(self._strangers) >= _STRANGERS_MAX:
            return None
        self._strangers.add(item.address)
        reason = f"device: {item.address}: is not enrolled; enrol it, or mend its name"
        if not item.address:
            reason = "device: id: is missing; mend `id` in the mapping"
        return Heard(self._adapter, item.raw, unreadable=[Unreadable(-1, reason)])

    async def _store(self, told: Sequence[tuple[Heard, int, Item]]) -> None:
        refused: list[str] = []

        async def accept(heard: Heard, number: int, item: Item) -> None:
            try:
                await self._inbox.accept(heard)
            except NotStored as error:
                refused.append(str(error))
                return
            if heard.reports:
                self._latest[number] = item.measured_at_ns, item.values

        async with asyncio.TaskGroup() as tasks:
            for one in told:
                tasks.create_task(accept(*one))
        if refused:
            raise NotStored(refused[0])
