"""How connections that come and go reach the columns: the newest session owns the device."""

import numpy as np

from kapelle.fleet.columns import Fleet
from kapelle.model.blocks import Sessions
from kapelle.model.enums import SessionEvent


def apply_sessions(fleet: Fleet, block: Sessions) -> None:
    """Note for each device its newest session and whether that one is up.

    The end of an older session changes nothing: the device has come back since. A session that
    ended does not rise again, so within one session the end wins over the beginning.
    """
    rows = (block.device_no // fleet.partitions).astype(np.intp)
    up = block.event == SessionEvent.UP
    session, at_ns = block.session, block.at_ns
    known = rows.view(np.uintp) < fleet.size
    if not known.all():
        rows, up, session, at_ns = rows[known], up[known], session[known], at_ns[known]

    before = fleet.session[rows]
    was_connected = fleet.connected[rows]
    np.maximum.at(fleet.session, rows, session)
    newest = fleet.session[rows] == session
    rises = newest & up & ((session > before) | was_connected)
    fleet.connected[rows[rises]] = True
    fleet.connected[rows[newest & ~up]] = False
    # Coming up is a frame of the device itself; going down is our own finding.
    np.maximum.at(fleet.received_at_ns, rows[up], at_ns[up])
