"""What a device does with a command: the rules that make an effect happen once, in time.

One implementation for virtual time and for the simulated MQTT devices. Every array has one entry
per device; all times are UTC ns of the caller's clock, and each device reads its own, skewed one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from kapelle.model.blocks import Commands
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S, Bytes, Flags, Floats, Ints, Longs

NEVER_NS = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Acknowledgements, one row each; `reason` is empty where the device simply obeyed."""

    rows: Ints
    revision: Longs
    epoch: Longs
    status: Bytes
    reason: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, keep: Flags) -> "Answers":
        """Return some of the rows."""
        reason = tuple(word for word, kept in zip(self.reason, keep, strict=True) if kept)
        return Answers(
            self.rows[keep], self.revision[keep], self.epoch[keep], self.status[keep], reason
        )


class Agents:
    """The command side of every simulated device, and what it knows to be true.

    `setpoint_w` is what is in force (NaN: own schedule); hand it to the physics.
    """

    def __init__(
        self,
        revert_s: Floats,
        rng: Generator,
        *,
        skew_ns: Longs | None = None,
        lag_s: float = 0.3,
        opt_out: float = 0.0,
    ) -> None:
        n = len(revert_s)
        self._rng = rng
        self._has_timer = ~np.isnan(revert_s)
        self._skew_ns = np.zeros(n, np.int64) if skew_ns is None else skew_ns
        # A device whose clock is far off has never reached a time server, and knows it.
        self._trusts_clock = np.abs(self._skew_ns) <= 2 * NS_PER_S
        self._lag_ns = (rng.uniform(0.3, 1.7, size=n) * lag_s * NS_PER_S).astype(np.int64)
        self._opt_out = opt_out

        self.setpoint_w = np.full(n, np.nan)
        self.revision = np.full(n, -1, np.int64)
        """Highest revision answered."""
        self.epoch = np.full(n, -1, np.int64)
        """Highest epoch heard of."""
        self._status = np.zeros(n, np.uint8)
        self.reverts_at_ns = np.full(n, NEVER_NS)
        self._acts_at_ns = np.full(n, NEVER_NS)
        self._next_w = np.full(n, np.nan)

        # The witness of what took effect, kept apart from the rules above.
        self._effect_revision = np.full(n, -1, np.int64)
        self._effect_epoch = np.full(n, -1, np.int64)
        self.effects = np.zeros(n, np.int64)
        self.double_effects = 0
        """Times a revision took effect again, or after a newer one. Must stay 0."""
        self.stale_effects = 0
        """Times an order of a deposed owner took effect. Must stay 0."""
        self.reverted = 0
        self.expired = 0
        self.repeated = 0
        self.fenced = 0

    def receive_commands(self, rows: Ints, commands: Commands, now_ns: int) -> Answers:
        """Act on a block of commands, one per row of `rows`."""
        return self.receive(
            rows,
            commands.revision,
            commands.epoch,
            commands.setpoint_w,
            commands.not_after_ns,
            commands.ttl_s,
            commands.revert_s,
            now_ns,
        )

    def receive(
        self,
        rows: Ints,
        revision: Longs,
        epoch: Longs,
        setpoint_w: Floats,
        not_after_ns: Longs,
        ttl_s: Floats,
        revert_s: Floats,
        now_ns: int,
    ) -> Answers:
        """Act on commands as they arrive, and answer each.

        A device follows only the highest epoch it has heard of; a revision takes effect at most
        once; what is late by its own clock (or, where it does not trust it, cannot act within the
        TTL) is answered `expired` and leaves no trace, so that a retry may still succeed.
        """
        given = np.arange(len(rows))
        parts: list[Answers] = []
        while len(given):
            # One command per device at a time, in the order of arrival.
            _, first = np.unique(rows[given], return_index=True)
            turn = given[np.sort(first)]
            parts.append(
                self._receive(
                    rows[turn],
                    revision[turn],
                    epoch[turn],
                    setpoint_w[turn],
                    not_after_ns[turn],
                    ttl_s[turn],
                    revert_s[turn],
                    now_ns,
                )
            )
            given = np.setdiff1d(given, turn)
        return _joined(parts)

    def _receive(
        self,
        rows: Ints,
        revision: Longs,
        epoch: Longs,
        setpoint_w: Floats,
        not_after_ns: Longs,
        ttl_s: Floats,
        revert_s: Floats,
        now_ns: int,
    ) -> Answers:
        status = np.full(len(rows), AckStatus.ACCEPTED, np.uint8)
        reason = np.full(len(rows), b"", object)

        stale = epoch < self.epoch[rows]
        self.epoch[rows] = np.maximum(self.epoch[rows], epoch)
        old = ~stale & (revision < self.revision[rows])
        again = ~stale & (revision == self.revision[rows])
        late = np.where(
            self._trusts_clock[rows],
            now_ns + self._skew_ns[rows] > not_after_ns,
            self._lag_ns[rows] > ttl_s * NS_PER_S,
        )
        late &= ~(stale | old | again)
        unsafe = ~(stale | old | again | late) & ~np.isnan(setpoint_w)
        unsafe &= self._has_timer[rows] & ~(revert_s > 0)
        fresh = ~(stale | old | again | late | unsafe)
        drawn = self._rng.random(len(rows)) < self._opt_out if self._opt_out > 0 else fresh & False
        # An owner refuses to begin; whoever follows already is not asked again at each refresh.
        idle = np.isnan(self.setpoint_w[rows]) & (self._acts_at_ns[rows] == NEVER_NS)
        out = fresh & drawn & idle & ~np.isnan(setpoint_w)

        status[stale | old | unsafe] = AckStatus.REJECTED
        reason[stale], reason[old] = b"stale epoch", b"superseded"
        reason[unsafe] = b"no revert timer"
        status[late], reason[late] = AckStatus.EXPIRED, b"not after"
        status[again] = self._status[rows[again]]
        status[out], reason[out] = AckStatus.OPTED_OUT, b"owner"

        self.fenced += int(stale.sum())
        self.repeated += int(again.sum())
        self.expired += int(late.sum())
        self.revision[rows[fresh]] = revision[fresh]
        self._status[rows[fresh]] = status[fresh]
        self._take(rows, fresh & ~out, setpoint_w, revert_s, now_ns)
        return Answers(rows, revision, epoch, status, tuple(reason.tolist()))

    def _take(
        self, rows: Ints, taken: Flags, setpoint_w: Floats, revert_s: Floats, now_ns: int
    ) -> None:
        mine = rows[taken]
        self._witness(mine)
        self._next_w[mine] = setpoint_w[taken]
        self._acts_at_ns[mine] = now_ns + self._lag_ns[mine]
        timed = self._has_timer[mine] & ~np.isnan(setpoint_w[taken])
        ends_ns = now_ns + (np.where(timed, revert_s[taken], 0.0) * NS_PER_S).astype(np.int64)
        self.reverts_at_ns[mine] = np.where(timed, ends_ns, NEVER_NS)

    def _witness(self, mine: Ints) -> None:
        """Count what takes effect against what took effect before."""
        self.double_effects += int((self.revision[mine] <= self._effect_revision[mine]).sum())
        self.stale_effects += int((self.epoch[mine] < self._effect_epoch[mine]).sum())
        self._effect_revision[mine] = self.revision[mine]
        self._effect_epoch[mine] = self.epoch[mine]
        self.effects[mine] += 1

    def step(self, now_ns: int) -> Answers:
        """Let lags and revert timers run out; return the answers of those that now act."""
        due = np.flatnonzero(self._acts_at_ns <= now_ns).astype(np.int32)
        self.setpoint_w[due] = self._next_w[due]
        self._acts_at_ns[due] = NEVER_NS
        released = np.isnan(self.setpoint_w[due])
        status = np.where(released, AckStatus.COMPLETED, AckStatus.APPLIED).astype(np.uint8)
        self._status[due] = status

        over = np.flatnonzero(self.reverts_at_ns <= now_ns)
        self.setpoint_w[over] = np.nan
        self.reverts_at_ns[over] = NEVER_NS
        self._acts_at_ns[over] = NEVER_NS
        self.reverted += len(over)
        return Answers(due, self.revision[due], self.epoch[due], status, (b"",) * len(due))

    def stop(self, rows: Ints) -> None:
        """Let devices go back to their own schedules now, whatever their timers say."""
        self.setpoint_w[rows] = np.nan
        self.reverts_at_ns[rows] = NEVER_NS
        self._acts_at_ns[rows] = NEVER_NS

    def meant_w(self) -> Floats:
        """Return the setpoint each device has taken up, at work or about to be; NaN: none. [W]"""
        return np.where(self._acts_at_ns < NEVER_NS, self._next_w, self.setpoint_w)

    def commanded(self) -> Flags:
        """Return which devices follow an order now."""
        following: Flags = ~np.isnan(self.setpoint_w)
        return following


def _joined(parts: list[Answers]) -> Answers:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        empty = np.empty(0, np.int64)
        return Answers(empty.astype(np.int32), empty, empty, empty.astype(np.uint8), ())
    return Answers(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.revision for part in parts]),
        np.concatenate([part.epoch for part in parts]),
        np.concatenate([part.status for part in parts]),
        tuple(word for part in parts for word in part.reason),
    )
