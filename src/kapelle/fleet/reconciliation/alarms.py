"""Notices about devices' conditions: one per episode, none of what was over at once, no flood.

A condition is told at the next edge of a window, if it still holds; its end, once it has stayed
away for a while. Many devices of one vendor, provider or feeder are one notice with a count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet
from kapelle.model.enums import Condition
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Notice

RAISED, CLEARED = "condition-raised", "condition-cleared"
Places = NDArray[np.intp]

_SAYS = {
    Condition.FLAPPING: "connection comes and goes",
    Condition.CONTESTED: "two sessions take turns with one credential; give each device its own",
    Condition.DEAF: "reports arrive, commands go unanswered",
    Condition.FROZEN: "the meter repeats one value",
    Condition.SIGN_TURNED: "power has the wrong sign; turn the meter, or its sign, round",
    Condition.UNIT_WRONG: "power is off by a thousand; send W",
    Condition.CLOCK_WRONG: "the clock is wrong; set it by NTP",
    Condition.COUNTER_RESTARTED: "the boot counter fell back; let it survive restarts",
    Condition.REGISTER_WRONG: "the energy register says what cannot be",
    Condition.MUTED: "so much cannot be read that it is not listened to",
}


@dataclass(frozen=True, slots=True)
class AlarmSettings:
    """How often, and how much at once, is told."""

    window_s: float = 30.0
    """Conditions are told at multiples of this. [s]"""
    calm_s: float = 600.0
    """A condition that is over, and comes back within this, was never over. [s]"""
    group_min: int = 5
    """So many devices that share something are told as one."""
    groups_max: int = 3
    """Groups told per condition and window; the rest is one number."""
    singles_max: int = 3
    """Devices told one by one per condition and window; more are one number."""


DEFAULTS = AlarmSettings()


def step_alarms(fleet: Fleet, before_ns: int, settings: AlarmSettings = DEFAULTS) -> list[Notice]:
    """Return what is to be told as of `fleet.now_ns`, and note that it is.

    Whether a device's condition was told depends on that device alone; how it was worded, on its
    neighbours. At most seven notices per condition, window and partition.

    Args:
        fleet: The partition, after `step_conditions`.
        before_ns: The tick before; 0: there was none, and nothing is told yet.
        settings: Bounds.
    """
    window_ns = int(settings.window_s * NS_PER_S)
    if not before_ns or fleet.now_ns // window_ns == before_ns // window_ns:
        return []
    size = fleet.size
    condition, announced = fleet.condition[:size], fleet.announced[:size]
    differ = np.flatnonzero(condition != announced)
    if not len(differ):
        return []
    notices: list[Notice] = []
    calm_s = fleet.now_ns // NS_PER_S - fleet.condition_at_s[differ].astype(np.int64)
    calm = calm_s >= settings.calm_s
    for bit in Condition:
        word = np.uint16(bit)
        holds, told = (condition[differ] & word) != 0, (announced[differ] & word) != 0
        for code, rows in (
            (RAISED, differ[holds & ~told]),
            (CLEARED, differ[told & ~holds & calm]),
        ):
            announced[rows] ^= word
            notices += _told(fleet, settings, code, bit, rows)
    return notices


def _told(
    fleet: Fleet, settings: AlarmSettings, code: str, bit: Condition, rows: Places
) -> list[Notice]:
    notices: list[Notice] = []
    for _ in range(settings.groups_max):
        shared, members = _largest(fleet, rows)
        if len(members) < settings.group_min:
            break
        group = f"{bit.name.lower()} {shared}"
        notices.append(_notice(fleet.now_ns, code, group, len(members)))
        rows = np.setdiff1d(rows, members, assume_unique=True)
    if len(rows) > settings.singles_max:
        notices.append(_notice(fleet.now_ns, code, bit.name.lower(), len(rows)))
        return notices
    for row in rows.tolist():
        device_no = row * fleet.partitions + fleet.partition
        text = f"device {device_no}: {_what(code, bit)}"
        notices.append(Notice(fleet.now_ns, code, text, device_no=device_no, devices=1, group=""))
    return notices


def _largest(fleet: Fleet, rows: Places) -> tuple[str, Places]:
    """Return what most of these devices share, and who they are; none where nothing is named."""
    best, members = "", rows[:0]
    for name, codes in (
        ("vendor", fleet.vendor),
        ("provider", fleet.provider),
        ("feeder", fleet.feeder),
    ):
        theirs = codes[rows]
        # Code 0 is an empty name: to share that is to share nothing.
        counts = np.bincount(theirs[theirs > 0].astype(np.intp), minlength=1)
        code = int(counts.argmax())
        if counts[code] > len(members):
            best, members = f"{name} {fleet.names[name][code]}", rows[theirs == code]
    return best, members


def _what(code: str, bit: Condition) -> str:
    return f"no longer: {_SAYS[bit]}" if code == CLEARED else _SAYS[bit]


def _notice(at_ns: int, code: str, group: str, devices: int) -> Notice:
    name, _, shared = group.partition(" ")
    whose = f"devices of {shared}" if shared else "devices"
    text = f"{devices} {whose}: {_what(code, Condition[name.upper()])}"
    return Notice(at_ns, code, text, devices=devices, group=group)


def merged(notice: Notice, others: Sequence[Notice]) -> tuple[int, Notice] | None:
    """Find the notice another partition wrote of the same; return its place and the sum of both.

    Only of conditions: others that bear a group (caps) are told by dispatch, once per order.
    """
    if not notice.group or notice.code not in (RAISED, CLEARED):
        return None
    for back, other in enumerate(reversed(others)):
        if other.at_ns < notice.at_ns:
            break
        same = (other.at_ns, other.code, other.group) == (notice.at_ns, notice.code, notice.group)
        if same:
            devices = other.devices + notice.devices
            whole = _notice(notice.at_ns, notice.code, notice.group, devices)
            return len(others) - 1 - back, whole
    return None
