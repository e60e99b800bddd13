"""Who is who, in memory: the registry as the adapters, ingest and the last hop need it."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from types import MappingProxyType
from typing import NamedTuple, Self

import numpy as np

from kapelle.model.enums import SWITCHED, DeviceKind
from kapelle.model.ids import DeviceId, DeviceNo, Floats, Ints, Longs, label_key
from kapelle.ports import Places
from kapelle.registry import credentials

_GROWTH = 1.5
_NOBODY = -1
_NOWHERE = label_key("")
_LABELS_REMEMBERED = 100_000
"""Feeders and zones recur; their keys are worked out once."""
_CALL_US = ("mqtt", "http")
"""Adapters whose devices connect by their own names: nobody looks their addresses up."""


class Bearer(NamedTuple):
    """What the directory holds of one device."""

    device_no: int
    device_id: str
    active: bool
    nameplate_up_w: float
    nameplate_down_w: float
    credential: bytes = credentials.NOBODY
    """As `credentials.hash_secret` returned it."""
    kind: int = DeviceKind.BATTERY
    site: str = ""
    feeder: str = ""
    zone: str = ""
    adapter: str = "mqtt"
    address: str = ""


class Directory:
    """Implements `ports.Directory`. A device that was removed is unknown to it.

    About 330 bytes a device. Read and changed by one thread.
    """

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.version = 0
        self._no_of: dict[str, int] = {}
        self._names: list[str | None] = []
        self._up_w: Floats = np.empty(0)
        self._down_w: Floats = np.empty(0)
        self._generation: Ints = np.empty(0, np.int32)
        self._site: Longs = np.empty(0, np.int64)
        self._feeder: Longs = np.empty(0, np.int64)
        self._zone: Longs = np.empty(0, np.int64)
        self._switched = np.empty(0, np.bool_)
        # Slot 0 is nobody's, so that an unknown name is looked up like a known one.
        self._credentials = bytearray(credentials.NOBODY)
        self._reached: dict[str, dict[str, int]] = {}
        """Per adapter, devices by address."""
        self._address: dict[int, tuple[str, str]] = {}

    @classmethod
    def build(cls, partitions: int, rows: Iterable[Bearer]) -> Self:
        """Return a directory of these devices."""
        directory = cls(partitions)
        directory.apply(rows)
        return directory

    def count(self) -> int:
        """Return how many devices it knows."""
        return len(self._no_of)

    def apply(self, rows: Iterable[Bearer]) -> None:
        """Add, replace or (where not active) forget devices; a later row wins."""
        rows = list(rows)
        if not rows:
            return
        self.version += 1
        self._reserve(max(row.device_no for row in rows) + 1)
        for row in rows:
            device_no = row.device_no
            before = self._names[device_no]
            if before is not None:
                del self._no_of[before]
            self._readdress(row)
            at = (device_no + 1) * credentials.STORED_BYTES
            held = bytes(self._credentials[at : at + credentials.STORED_BYTES])
            if not row.active or (before, held) != (row.device_id, row.credential):
                self._generation[device_no] += 1
            self._site[device_no] = _key(row.site)
            self._feeder[device_no] = _key(row.feeder)
            self._zone[device_no] = _key(row.zone)
            self._switched[device_no] = row.kind in SWITCHED
            if row.active:
                self._names[device_no] = row.device_id
                self._no_of[row.device_id] = device_no
                self._up_w[device_no] = row.nameplate_up_w
                self._down_w[device_no] = row.nameplate_down_w
                self._credentials[at : at + credentials.STORED_BYTES] = row.credential
            else:
                self._names[device_no] = None
                self._up_w[device_no] = self._down_w[device_no] = np.nan
                self._credentials[at : at + credentials.STORED_BYTES] = credentials.NOBODY

    def resolve(self, names: Sequence[str]) -> Ints:
        """Return the number of each device name, -1 where nobody bears it."""
        numbers = map(self._no_of.get, names, repeat(_NOBODY))
        return np.fromiter(numbers, np.int32, len(names))

    def name(self, device_no: int) -> DeviceId:
        """Return the name of an enrolled device. Raises KeyError where there is none."""
        name = self._names[device_no] if 0 <= device_no < len(self._names) else None
        if name is None:
            raise KeyError(device_no)
        return DeviceId(name)

    def authenticate(self, name: str, secret: str) -> DeviceNo | None:
        """Return the device these credentials belong to, or None, in the same time."""
        device_no = self._no_of.get(name, _NOBODY)
        at = (device_no + 1) * credentials.STORED_BYTES
        stored = bytes(self._credentials[at : at + credentials.STORED_BYTES])
        genuine = credentials.matches(secret, stored)
        return DeviceNo(device_no) if genuine and device_no != _NOBODY else None

    def generation(self, device_no: Ints) -> Ints:
        """Return a number for each device that changes with its name, its credentials and its
        removal; -1 where the number is unknown."""
        generation = np.full(len(device_no), _NOBODY, np.int32)
        known = (device_no >= 0) & (device_no < len(self._names))
        numbers = device_no[known]
        borne = [self._names[number] is not None for number in numbers.tolist()]
        generation[known] = np.where(borne, self._generation[numbers], _NOBODY)
        return generation

    def nameplate(self, device_no: Ints) -> tuple[Floats, Floats]:
        """Return nameplate up and down of each device. [W] NaN where the number is unknown."""
        known = (device_no >= 0) & (device_no < len(self._names))
        up_w, down_w = np.full((2, len(device_no)), np.nan)
        up_w[known] = self._up_w[device_no[known]]
        down_w[known] = self._down_w[device_no[known]]
        return up_w, down_w

    def places(self, device_no: Ints) -> Places:
        """Return where each device belongs, and whether it is one that is switched.

        One that was removed may still do what it was told, and belongs where it was.
        """
        known = (device_no >= 0) & (device_no < len(self._names))
        rows = device_no[known]
        keys = np.full((3, len(device_no)), _NOWHERE, np.int64)
        for key, column in zip(keys, (self._site, self._feeder, self._zone), strict=True):
            key[known] = column[rows]
        switched = np.zeros(len(device_no), np.bool_)
        switched[known] = self._switched[rows]
        return Places(keys[0], keys[1], keys[2], switched)

    def everyone(self) -> Ints:
        """Return the number of every enrolled device, rising."""
        return np.flatnonzero(~np.isnan(self._up_w)).astype(np.int32)

    def reached_by(self, adapter: str) -> Mapping[str, int]:
        """Return the devices an adapter reaches by their addresses, as they are now."""
        return MappingProxyType(self._reached.get(adapter, {}))

    def adapters(self) -> Mapping[str, int]:
        """Return how many devices are enrolled under each adapter other than MQTT and HTTP."""
        return {adapter: len(reached) for adapter, reached in self._reached.items() if reached}

    def _readdress(self, row: Bearer) -> None:
        adapter, address = self._address.pop(row.device_no, ("", ""))
        if self._reached.get(adapter, {}).get(address) == row.device_no:
            del self._reached[adapter][address]
        if row.active and row.adapter not in _CALL_US:
            known_as = row.address or row.device_id
            self._address[row.device_no] = row.adapter, known_as
            self._reached.setdefault(row.adapter, {})[known_as] = row.device_no

    def _reserve(self, size: int) -> None:
        have = len(self._names)
        if size <= have:
            return
        self._names.extend([None] * (size - have))
        self._credentials.extend(credentials.NOBODY * (size - have))
        if size > len(self._up_w):
            capacity = max(size, int(have * _GROWTH))
            for column in ("_up_w", "_down_w"):
                longer = np.full(capacity, np.nan)
                longer[:have] = getattr(self, column)[:have]
                setattr(self, column, longer)
            for column in ("_generation", "_site", "_feeder", "_zone", "_switched"):
                short = getattr(self, column)
                empty = _NOWHERE if short.dtype == np.int64 else 0
                longer = np.full(capacity, empty, short.dtype)
                longer[:have] = short[:have]
                setattr(self, column, longer)


@lru_cache(_LABELS_REMEMBERED)
def _key(label: str) -> int:
    return label_key(label)
