"""How connections that come and go reach the columns: the newest session owns the device."""

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, Seconds
from kapelle.model.blocks import Sessions
from kapelle.model.enums import SessionEvent
from kapelle.model.ids import NS_PER_S, Flags, Longs

Places = NDArray[np.intp]


def apply_sessions(fleet: Fleet, block: Sessions) -> None:
    """Note for each device its newest session and whether that one is up; count what went wrong.

    The end of an older session changes nothing: the device has come back since. A session that
    ended does not rise again, so within one session the end wins over the beginning.
    """
    rows = (block.device_no // fleet.partitions).astype(np.intp)
    up = block.event == SessionEvent.UP
    session, at_ns = block.session, block.at_ns
    known = rows.view(np.uintp) < fleet.size
    if not known.all():
        rows, up, session, at_ns = rows[known], up[known], session[known], at_ns[known]

    ousted = block.event == SessionEvent.TAKEN
    _count(fleet, rows, up, ousted if known.all() else ousted[known], session, at_ns)
    before = fleet.session[rows]
    was_connected = fleet.connected[rows]
    np.maximum.at(fleet.session, rows, session)
    newest = fleet.session[rows] == session
    rises = newest & up & ((session > before) | was_connected)
    fleet.connected[rows[rises]] = True
    fleet.connected[rows[newest & ~up]] = False
    # Coming up is a frame of the device itself; going down is our own finding.
    np.maximum.at(fleet.received_at_ns, rows[up], at_ns[up])


def _count(
    fleet: Fleet, rows: Places, up: Flags, ousted: Flags, session: Longs, at_ns: Longs
) -> None:
    """Note the times of connections lost, and of live sessions that a newer one took over from.

    Who ends the older session says so; where nobody did, the newer one comes while it is live.

    Within a block sessions count in their own order, so that shuffling it changes nothing; told
    again, they count once.
    """
    order = np.lexsort((ousted, ~up, session, rows))
    # The past of older sessions, and a beginning already known, are no news.
    held = fleet.session[rows[order]]
    order = order[session[order] + ~up[order] > held]
    rows, up, session, at_ns = rows[order], up[order], session[order], at_ns[order]
    ousted = ousted[order]
    held, live = fleet.session[rows], fleet.connected[rows]
    # Of several events of a device in one block each sees what those before it left.
    same_device = np.zeros(len(rows), np.bool_)
    same_device[1:] = rows[1:] == rows[:-1]
    held[same_device] = session[:-1][same_device[1:]]
    live[same_device] = up[:-1][same_device[1:]]
    at_s = (at_ns // NS_PER_S).astype(np.uint32)
    lost = live & ~up & ~ousted
    _push(fleet.lost_at_s, rows[lost], at_s[lost])
    taken = live & (ousted | (up & (session > held)))
    _push(fleet.taken_at_s, rows[taken], at_s[taken])


def _push(times: Seconds, rows: Places, at_s: Seconds) -> None:
    """Put times before the ones kept, the newest first; rows ascend and may repeat."""
    while len(rows):
        first = np.ones(len(rows), np.bool_)
        first[1:] = rows[1:] != rows[:-1]
        at = rows[first]
        times[1:, at] = times[:-1, at]
        times[0, at] = at_s[first]
        rows, at_s = rows[~first], at_s[~first]
