"""How much later devices are told that poll for commands, instead of being called."""

import numpy as np

from kapelle.app.doors import Doors
from kapelle.fleet.columns import Fleet
from kapelle.model.ids import Floats
from kapelle.ports import Polled


class Polling:
    """What `dispatch.delivery.decide` must know of devices that poll.

    By adapter: a device is enrolled under the one that reaches it. Looked up anew when enrolments
    have changed; no decision is replayed, so it is no part of the state.
    """

    def __init__(self, doors: Doors) -> None:
        self._directory = doors.directory
        # The last hop lets no command live longer.
        bound_s = doors.config.safety.valid_s_max - doors.config.dispatch.command_ttl_s
        self._within_s = {
            adapter.name: min(adapter.told_within_s, bound_s)
            for adapter in doors.adapters
            if isinstance(adapter, Polled) and min(adapter.told_within_s, bound_s) > 0.0
        }
        self._seen: dict[int, tuple[int, Floats]] = {}
        """By partition: version of the directory, and what was found then."""

    def later_s(self, fleet: Fleet) -> Floats | None:
        """Return how much later each device of a partition is told, shape (size,). [s]

        None where all are told at once.
        """
        if not self._within_s:
            return None
        version = self._directory.version
        seen, later_s = self._seen.get(fleet.partition, (-1, np.zeros(0)))
        if seen != version or len(later_s) != fleet.size:
            later_s = self._found(fleet)
            self._seen[fleet.partition] = version, later_s
        return later_s

    def _found(self, fleet: Fleet) -> Floats:
        later_s = np.zeros(fleet.size)
        for name, within_s in self._within_s.items():
            reached = self._directory.reached_by(name)
            device_no = np.fromiter(reached.values(), np.int32, len(reached))
            rows = device_no[device_no % fleet.partitions == fleet.partition] // fleet.partitions
            later_s[rows[rows < fleet.size]] = within_s
        return later_s
