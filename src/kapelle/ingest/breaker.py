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
    episode_since_ns: int = 0
    not_kept: int = 0
    """Unusable reports of this episode that were counted only."""


@dataclass(frozen=True, slots=True)
class Mute:
    """A device that is not listened to where it cannot be read."""

    device_no: int
    """-1 stands for all senders that could not be resolved."""
    since_ns: int
    """When the episode began: who is muted again within a minute of the end was never well."""
    until_ns: int
    not_kept: int
    is_new: bool
    """Whether the episode began just now."""


@dataclass(slots=True)
class Breaker:
    """Unusable reports of each device in its present minute. Only bad devices cost memory."""

    settings: IngestSettings
    bad: dict[int, _Bad] = field(default_factory=dict)

    def step(self, device_no: Ints, now_ns: int) -> tuple[Flags, list[Mute]]:
        """Count unusable reports, one per row.

        Returns:
            Which rows are to be kept in quarantine, and the devices that were muted by this.
        """
        keep = np.ones(len(device_no), np.bool_)
        newly: list[Mute] = []
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
                state.not_kept += count
                continue
            if now_ns - state.since_ns >= _MINUTE_NS:
                state.since_ns, state.count = now_ns, 0
            state.count += count
            if state.count > most:
                beyond = min(state.count - most, count)
                keep[np.flatnonzero(inverse == place)[count - beyond :]] = False
                newly.append(self._mute(device, state, beyond, now_ns))
        return keep, newly

    def muted(self, now_ns: int) -> list[Mute]:
        """Return who is muted now, by number."""
        return [
            Mute(no, state.episode_since_ns, state.muted_until_ns, state.not_kept, is_new=False)
            for no, state in sorted(self.bad.items())
            if now_ns < state.muted_until_ns
        ]

    def unmute(self, device_no: int, now_ns: int) -> bool:
        """Keep what a device sends again at once; False where it was not muted."""
        state = self.bad.get(device_no)
        if state is None or now_ns >= state.muted_until_ns:
            return False
        del self.bad[device_no]
        return True

    def _mute(self, device_no: int, state: _Bad, beyond: int, now_ns: int) -> Mute:
        is_new = now_ns - state.muted_until_ns >= _MINUTE_NS
        if is_new:
            state.episode_since_ns, state.not_kept = now_ns, 0
        state.not_kept += beyond
        state.muted_until_ns = now_ns + int(self.settings.mute_s * NS_PER_S)
        return Mute(device_no, state.episode_since_ns, state.muted_until_ns, state.not_kept, is_new)

    def _forget(self, now_ns: int) -> None:
        self.bad = {
            device: state
            for device, state in self.bad.items()
            if now_ns < max(state.muted_until_ns, state.since_ns) + _MINUTE_NS
        }
