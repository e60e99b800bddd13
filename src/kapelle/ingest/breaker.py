"""Mutes a device that sends rubbish faster than anyone could read it.

A muted device's unusable reports are counted and no longer kept; its good ones are taken as ever,
since nobody gains by losing them.
"""

from dataclasses import dataclass, field

import numpy as np

from kapelle.ingest.settings import IngestSettings
from kapelle.model.ids import NS_PER_S, Flags, Ints

_MINUTE_NS = 60 * NS_PER_S
_DEVICES_MAX = 10_000
"""Bad devices remembered at once; beyond it those whose minute is over are forgotten."""


@dataclass(slots=True)
class _Bad:
    since_ns: int
    count: int = 0
    muted_until_ns: int = 0


@dataclass(slots=True)
class Breaker:
    """Unusable reports of each device in its present minute. Only bad devices cost memory."""

    settings: IngestSettings
    bad: dict[int, _Bad] = field(default_factory=dict)

    def step(self, device_no: Ints, now_ns: int) -> tuple[Flags, list[int]]:
        """Count unusable reports, one per row.

        Returns:
            Which rows are to be kept in quarantine, and the devices that were muted by this.
            Device -1 stands for all senders that could not be resolved.
        """
        keep = np.ones(len(device_no), np.bool_)
        newly: list[int] = []
        if len(self.bad) > _DEVICES_MAX:
            self._forget(now_ns)
        devices, inverse, counts = np.unique(device_no, return_inverse=True, return_counts=True)
        for place, (device, count) in enumerate(
            zip(devices.tolist(), counts.tolist(), strict=True)
        ):
            state = self.bad.setdefault(device, _Bad(now_ns))
            most = (
                self.settings.unresolved_per_minute if device < 0 else self.settings.bad_per_minute
            )
            if now_ns < state.muted_until_ns:
                keep[inverse == place] = False
                continue
            if now_ns - state.since_ns >= _MINUTE_NS:
                state.since_ns, state.count = now_ns, 0
            state.count += count
            if state.count > most:
                beyond = min(state.count - most, count)
                keep[np.flatnonzero(inverse == place)[count - beyond :]] = False
                state.muted_until_ns = now_ns + int(self.settings.mute_s * NS_PER_S)
                newly.append(device)
        return keep, newly

    def _forget(self, now_ns: int) -> None:
        self.bad = {
            device: state
            for device, state in self.bad.items()
            if now_ns < max(state.muted_until_ns, state.since_ns + _MINUTE_NS)
        }
