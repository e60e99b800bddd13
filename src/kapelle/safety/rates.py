"""S-20, rates: how often one device is spoken to. Batteries age by cycles, radios by messages."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kapelle.model.ids import NS_PER_S, Flags, Floats, Ints, Longs
from kapelle.safety.settings import SafetySettings
from kapelle.safety.windows import Window, below, check_lengths

_PARTS = 4
_S_PER_MINUTE = 60.0
_S_PER_HOUR = 3600.0
_S_PER_DAY = 86_400.0
_S_PER_NS = 1.0 / NS_PER_S


class Rates:
    """How much each device has been sent."""

    def __init__(self) -> None:
        self._credit: Floats = np.empty(0)
        """Commands each device may still be sent at once, as of `_credited_ns`."""
        self._credited_ns: Longs = np.empty(0, np.int64)
        self._hour = Window(_S_PER_HOUR, _PARTS, np.uint32)
        self._day = Window(_S_PER_DAY, _PARTS, np.uint32)

    def advance(self, now_ns: int) -> None:
        """Forget what is too old."""
        self._hour.advance(now_ns)
        self._day.advance(now_ns)

    def keeps_minute(self, device_no: Ints, now_ns: int, settings: SafetySettings) -> Flags:
        """Tell which devices have a command's credit left."""
        keeps: Flags = self._left(device_no, now_ns, settings) >= 1.0
        return keeps

    def keeps_day(self, device_no: Ints, settings: SafetySettings) -> Flags:
        """Tell which devices have not been sent all that an hour and a day allow."""
        keeps: Flags = self._hour.total(device_no) < settings.commands_per_hour
        keeps &= self._day.total(device_no) < settings.commands_per_day
        return keeps

    def charge(self, device_no: Ints, now_ns: int, settings: SafetySettings) -> None:
        """Enter one command to each device. A device occurs once."""
        left = self._left(device_no, now_ns, settings)
        self._credit[device_no] = np.maximum(left - 1.0, 0.0)
        self._credited_ns[device_no] = now_ns
        one = np.ones(len(device_no))
        self._hour.add(device_no, one)
        self._day.add(device_no, one)

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return what there is to remember, for `restore`."""
        columns: dict[str, NDArray[np.generic]] = {
            "credit": self._credit,
            "credited_ns": self._credited_ns,
        }
        columns |= {f"hour/{name}": column for name, column in self._hour.columns().items()}
        columns |= {f"day/{name}": column for name, column in self._day.columns().items()}
        return columns

    def restore(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on with what `columns` returned."""
        self._credit = columns["credit"].astype(np.float64)
        self._credited_ns = columns["credited_ns"].astype(np.int64)
        check_lengths(self._credit, self._credited_ns)
        self._hour.restore(below("hour/", columns))
        self._day.restore(below("day/", columns))

    def _left(self, device_no: Ints, now_ns: int, settings: SafetySettings) -> Floats:
        needed = int(device_no.max()) + 1 if len(device_no) else 0
        if needed > len(self._credit):
            more = max(needed, 2 * len(self._credit)) - len(self._credit)
            self._credit = np.append(self._credit, np.full(more, settings.commands_burst))
            self._credited_ns = np.append(self._credited_ns, np.full(more, now_ns, np.int64))
        elapsed_s = (now_ns - self._credited_ns[device_no]) * _S_PER_NS
        earned = elapsed_s * (settings.commands_per_minute / _S_PER_MINUTE)
        left: Floats = np.minimum(self._credit[device_no] + earned, settings.commands_burst)
        return left
