"""The newest session owns a device, in whatever order its beginnings and ends become known."""

from fleet_worlds import DEVICES, fleet_of, sessions
from hypothesis import given
from hypothesis import strategies as st

from kapelle.fleet.sessions import apply_sessions
from kapelle.model.enums import SessionEvent

UP, DOWN, WILL = SessionEvent.UP, SessionEvent.DOWN, SessionEvent.WILL
Row = tuple[int, SessionEvent, int]


def connected_after(*blocks: list[Row]) -> list[bool]:
    fleet = fleet_of()
    for rows in blocks:
        apply_sessions(fleet, sessions(*rows))
    return fleet.connected[:DEVICES].tolist()


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(SessionEvent), st.integers(1, 3))),
    st.data(),
)
def test_connected_means_newest_session_began_and_did_not_end(
    rows: list[Row], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(rows + rows[:2]))
    cut = data.draw(st.integers(0, len(shuffled)))
    connected = connected_after(shuffled[:cut], shuffled[cut:])
    for device_no in range(DEVICES):
        newest = max((session for no, _, session in rows if no == device_no), default=0)
        events = {event for no, event, session in rows if (no, session) == (device_no, newest)}
        assert connected[device_no] == (events == {UP})


def test_end_of_an_older_session_changes_nothing() -> None:
    assert connected_after([(0, UP, 1)], [(0, UP, 2)], [(0, DOWN, 1)])[0]
    assert connected_after([(0, UP, 1)], [(0, UP, 2), (0, WILL, 1)])[0]
    assert not connected_after([(0, UP, 1)], [(0, UP, 2)], [(0, WILL, 2)])[0]


def test_devices_never_enrolled_here_are_left_out() -> None:
    assert connected_after([(99, UP, 1), (1, UP, 1)]) == [False, True, False, False]
