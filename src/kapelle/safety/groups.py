"""Which devices a configured limit is about, as dense numbers of groups."""

import numpy as np

from kapelle.model.ids import Ints, Longs, label_key
from kapelle.ports import Directory, Places
from kapelle.safety.settings import EACH, GroupLimit

NO_GROUP = -1
UNLABELLED = -2
"""Each of them is limited, and nobody has said which one this device is in."""
_NOWHERE = label_key("")


class Groups:
    """The groups of one limit: the plant, the named one, or each that has been met."""

    def __init__(self, limit: GroupLimit) -> None:
        self._level = limit.level
        self._name = limit.name
        self._device_no = -1
        self.numbers: dict[int, int] = {}
        """Key of a zone, feeder or site, or number of a device -> number of its group."""

    def __len__(self) -> int:
        return len(self.numbers) if self._name == EACH else 1

    def know(self, directory: Directory) -> None:
        """Look the named device up; for when the directory has changed."""
        if self._level == "device" and self._name != EACH:
            self._device_no = int(directory.resolve([self._name])[0])

    def of(self, device_no: Ints, places: Places) -> Ints:
        """Return the group of each device, `NO_GROUP` where the limit does not apply to it."""
        if self._level == "plant":
            return np.zeros(len(device_no), np.int32)
        keys = self._keys(device_no, places)
        if self._name != EACH:
            wanted = self._device_no if self._level == "device" else label_key(self._name)
            return np.where(keys == wanted, 0, NO_GROUP).astype(np.int32)
        distinct, place = np.unique(keys, return_inverse=True)
        known = self.numbers
        is_labelled = self._level == "device"
        numbers = [
            known.setdefault(key, len(known)) if is_labelled or key != _NOWHERE else UNLABELLED
            for key in distinct.tolist()
        ]
        return np.array(numbers, np.int32)[place]

    def _keys(self, device_no: Ints, places: Places) -> Longs:
        if self._level == "device":
            return device_no.astype(np.int64)
        keys: Longs = {"site": places.site, "feeder": places.feeder, "zone": places.zone}[
            self._level
        ]
        return keys
