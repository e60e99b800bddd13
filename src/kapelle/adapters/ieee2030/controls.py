"""The DERControls of one client: placed, superseded, cancelled, answered. Pure; the time is given.

One program, one order of time: the newest that is not cancelled counts, the others are superseded
by it. A control lasts for the device's revert time and ends by itself. One no client has fetched by
its expiry is withdrawn: nobody can have acted on it.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from kapelle.adapters.errands import Command, Said
from kapelle.adapters.ieee2030.codec import RESPONSES
from kapelle.adapters.inbox import Answer
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S

_KNOWN_MAX = 32
_SHOWN_MAX = 8
_ENDLESS_S = 2**31 - 1
_AGAIN = 0.75
"""A setpoint that is sent again replaces its control once so much of it, or less, is left."""
_NO_ENTERPRISE = "00000000"
"""The last 32 bits of an mRID are the maker's enterprise number (IEEE 2030.5, 9.5.1); none."""


class Status(IntEnum):
    """EventStatusType of sep.xsd, as far as it is used."""

    ACTIVE = 1
    CANCELLED = 2
    SUPERSEDED = 4


@dataclass(slots=True)
class Control:
    """One DERControl."""

    mrid: str
    epoch: int
    revision: int
    setpoint_w: float
    mode: str
    """How it is written: `fixed_w`, `target_w` or `storage_target_w`."""
    amount: int
    """Hundredths of a percent for `fixed_w`, else watts."""
    start_s: int
    duration_s: int
    created_s: int
    not_after_ns: int
    cancelled_s: int = 0
    """0: it is not."""
    is_served: bool = False
    is_over: bool = False
    """The client has said that it follows it no more."""
    said: Said | None = None
    """What the client last said about it."""

    @property
    def end_s(self) -> int:
        """Return when it ends by itself."""
        return self.start_s + self.duration_s


@dataclass(slots=True)
class Controls:
    """Everything a client has been, or will be, told."""

    lfdi: str
    known: dict[str, Control] = field(default_factory=dict)
    """By mRID, oldest first; those over are kept for a while, for Responses that come late."""
    _late: list[tuple[int, int]] = field(default_factory=list)
    is_unkept: bool = False
    """What was told has changed since it was last kept (see `kept`)."""
    _release: tuple[int, int] | None = None
    """Epoch and revision of a release no client has confirmed yet."""
    _created_s: int = 0

    @classmethod
    def restored(cls, lfdi: str, told: Iterable[Control], now_ns: int) -> Self:
        """Return the controls of a client as they were kept."""
        made = cls(lfdi, {control.mrid: control for control in told})
        if not made.known:
            return made
        newest = next(reversed(made.known.values()))
        made._created_s = newest.created_s
        if newest.cancelled_s and not newest.is_over and now_ns // NS_PER_S < newest.end_s:
            # Whoever releases it again has to hear of it from the client as well.
            made._release = newest.epoch, newest.revision
        return made

    def kept(self, now_ns: int) -> list[Control]:
        """Return what has to outlive a restart: controls a client has seen and may still follow."""
        now_s = now_ns // NS_PER_S
        return [one for one in self.known.values() if one.is_served and now_s < one.end_s]

    def serve(self, control: Control) -> None:
        """Note that its client is being told."""
        self.is_unkept |= not control.is_served
        control.is_served = True

    def running(self, now_s: int) -> Control | None:
        """Return the control that counts now."""
        for control in reversed(self.known.values()):
            if not control.cancelled_s and control.start_s <= now_s < control.end_s:
                return control
        return None

    def place(self, command: Command, mode: str, amount: int, now_ns: int) -> Said | None:
        """Make a control of a setpoint; return what its client said of the same one before."""
        now_s = now_ns // NS_PER_S
        self._withdraw(now_ns)
        running = self.running(now_s)
        key = command.epoch, command.revision
        if running is not None and (running.epoch, running.revision) == key:
            if not running.is_served:
                running.not_after_ns = max(running.not_after_ns, command.not_after_ns)
                return None
            if running.end_s - now_s > _AGAIN * running.duration_s:
                return running.said
        if running is not None and not running.is_served:
            del self.known[running.mrid]
        # The newer creation time supersedes: two in one second must not have the same.
        self._created_s = max(now_s, self._created_s + 1)
        text = f"{self.lfdi} {key} {now_ns} {self._created_s}"
        mrid = hashlib.sha256(text.encode()).hexdigest()[:24].upper() + _NO_ENTERPRISE
        self.known[mrid] = Control(
            mrid,
            *key,
            command.setpoint_w,
            mode,
            amount,
            now_s,
            _duration_s(command.revert_s),
            self._created_s,
            command.not_after_ns,
        )
        self._release = None
        while len(self.known) > _KNOWN_MAX:
            del self.known[next(iter(self.known))]
        return None

    def release(self, command: Command, now_ns: int) -> Said | None:
        """Cancel what counts; the DefaultDERControl holds. Returns what is known of it at once."""
        now_s = now_ns // NS_PER_S
        self._withdraw(now_ns)
        running = self.running(now_s)
        while running is not None:
            if running.is_served:
                running.cancelled_s = now_s
                self.is_unkept = True
                self._release = command.epoch, command.revision
            else:
                del self.known[running.mrid]
            running = self.running(now_s)
        lasting = any(now_s < control.end_s for control in self.known.values())
        if self._release is None or not lasting:
            self._release = None
            return Said(AckStatus.APPLIED, "no control holds")
        self._release = command.epoch, command.revision
        return None

    def late(self, now_ns: int) -> list[tuple[int, int]]:
        """Return epoch and revision of what nobody fetched in time, each once."""
        self._withdraw(now_ns)
        late, self._late = self._late, []
        return late

    def _withdraw(self, now_ns: int) -> None:
        for control in list(self.known.values()):
            if not control.is_served and now_ns > control.not_after_ns:
                del self.known[control.mrid]
                self._late.append((control.epoch, control.revision))

    def shown(self, now_ns: int) -> list[tuple[Control, Status, int]]:
        """Return what a client that asks now is shown, each with its status and since when. [s]

        In the order of DERControlList: earliest start first (IEEE 2030.5, 10.10.4.1).
        """
        now_s = now_ns // NS_PER_S
        self._withdraw(now_ns)
        running = self.running(now_s)
        lasting = [control for control in self.known.values() if now_s < control.end_s]
        rows = []
        for control in lasting[-_SHOWN_MAX:]:
            if control.cancelled_s:
                rows.append((control, Status.CANCELLED, control.cancelled_s))
            elif running is None or control is running:
                rows.append((control, Status.ACTIVE, control.start_s))
            else:
                rows.append((control, Status.SUPERSEDED, running.start_s))
        return sorted(rows, key=lambda row: (row[0].start_s, -row[0].created_s))

    def respond(self, device_no: int, mrid: str, status: int, now_s: int) -> Answer | str | None:
        """Take a Response in; return the answer it is evidence of, if any, or what is wrong."""
        control = self.known.get(mrid)
        if control is None:
            return "response: subject: is no control of this client; answer those it was sent"
        said = _said(status)
        key = control.epoch, control.revision
        if status in _OVER:
            self.is_unkept |= not control.is_over
            control.is_over = True
        if control.cancelled_s and said is not None and status in _OVER:
            if self._release is None:
                return None
            key, said, self._release = self._release, Said(AckStatus.APPLIED), None
        elif status == _SUPERSEDED and self.running(now_s) is not control:
            return None  # As we wanted.
        elif said is not None:
            control.said = said
        if said is None:
            return None
        return Answer(device_no, key[1], said.status, said.reason, key[0])


def _duration_s(revert_s: float) -> int:
    """Return how long a control lasts; without a revert time, until it is cancelled."""
    return max(1, int(revert_s)) if revert_s > 0 else _ENDLESS_S


_SUPERSEDED = 7
_CANCELLED = 6
_OVER = (3, _CANCELLED, _SUPERSEDED)
_EVIDENCE = {1: AckStatus.RECEIVED, 2: AckStatus.APPLIED, 3: AckStatus.COMPLETED}
_OPTED_OUT = (4, 8, 10)


def _said(status: int) -> Said | None:
    """Return what a Response's status is evidence of (IEEE 2030.5-2018, table 27)."""
    if status in _EVIDENCE:
        return Said(_EVIDENCE[status])
    reason = f"{status}: {RESPONSES[status]}" if status in RESPONSES else ""
    if status in _OPTED_OUT:
        return Said(AckStatus.OPTED_OUT, reason)
    if status == _CANCELLED:
        return Said(AckStatus.REJECTED, f"{status}: cancelled")
    return Said(AckStatus.REJECTED, reason) if reason else None
