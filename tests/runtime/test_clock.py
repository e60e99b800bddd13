"""The clock: it never goes back, and a step of the host's clock moves nothing that runs (R-27)."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.model.ids import NS_PER_S
from kapelle.runtime.clock import SystemClock

T0 = 1_700_000_000 * NS_PER_S


class Host:
    """A host whose clocks a test moves."""

    def __init__(self) -> None:
        self.wall_ns = T0
        self.elapsed_ns = 5 * NS_PER_S
        self.boot_id = "first"

    def clock(self, noted: Path | None = None) -> SystemClock:
        return SystemClock(
            noted,
            wall_ns=lambda: self.wall_ns,
            elapsed_ns=lambda: self.elapsed_ns,
            boot_id=self.boot_id,
        )

    def step_s(self, seconds: float) -> None:
        self.wall_ns += round(seconds * NS_PER_S)

    def pass_s(self, seconds: float) -> None:
        self.step_s(seconds)
        self.elapsed_ns += round(seconds * NS_PER_S)


def said_s(clock: SystemClock) -> float:
    return (clock.now_ns() - T0) / NS_PER_S


@given(
    st.lists(
        st.tuples(st.floats(0.01, 30), st.sampled_from([0.0, 3600.0, -3600.0, 1e6, 1e9, -1e9])),
        max_size=5,
    )
)
def test_while_anything_depends_on_it_a_second_stays_a_second(
    life: list[tuple[float, float]],
) -> None:
    host = Host()
    clock = host.clock()
    for seconds, step_s in life:
        before_s = said_s(clock)
        host.step_s(step_s)
        assert said_s(clock) == before_s
        host.pass_s(seconds)
        # Nothing planned for ten seconds from now expires, or lives, by more than 5 ms.
        assert said_s(clock) - before_s == pytest.approx(seconds, rel=0.001, abs=1e-6)


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_step_is_followed_once_nothing_depends_on_the_time(step_s: float) -> None:
    host = Host()
    clock = host.clock()
    host.step_s(step_s)
    host.pass_s(600)
    assert said_s(clock) == pytest.approx(600, abs=0.4)
    assert clock.ahead_s() == pytest.approx(-step_s, abs=0.4)
    clock.free = lambda _: True
    before_s = said_s(clock)
    for _ in range(24):
        host.pass_s(3600)
        assert said_s(clock) > before_s
        before_s = said_s(clock)
    assert clock.now_ns() == host.wall_ns


def test_a_clock_that_was_never_right_is_followed_at_once_where_nothing_depends_on_it() -> None:
    host = Host()
    host.step_s(-1e9)
    clock = host.clock()
    clock.free = lambda _: True
    assert said_s(clock) == -1e9
    host.step_s(1e9)
    host.pass_s(1)
    assert said_s(clock) == 1


def test_an_order_given_a_moment_before_the_step_counts() -> None:
    host, orders = Host(), list[str]()
    clock = host.clock()
    clock.free = lambda _: not orders
    for _ in range(20):
        host.pass_s(1)
        said_s(clock)
    orders.append("one")
    host.pass_s(0.1)
    host.step_s(3600)
    host.pass_s(1)
    assert said_s(clock) == pytest.approx(21.1, abs=0.01)
    orders.clear()
    host.pass_s(6)
    assert said_s(clock) == pytest.approx(3627.1, abs=0.01)


def test_an_order_between_two_steps_counts_for_the_second() -> None:
    host, orders = Host(), list[str]()
    clock = host.clock()
    clock.free = lambda _: not orders
    host.pass_s(1)
    host.step_s(3600)
    host.pass_s(1)
    assert said_s(clock) == pytest.approx(3602, abs=0.01)
    orders.append("one")
    host.step_s(3600)
    host.pass_s(1)
    assert said_s(clock) == pytest.approx(3603, abs=0.02)


@pytest.mark.parametrize("away_s", [20.0, 3600.0, 1e6])
def test_a_clock_that_began_behind_the_journal_is_believed_when_it_is_put_right(
    away_s: float,
) -> None:
    """A host without a battery for its clock: orders go on, and end when they truly end."""
    host = Host()
    host.step_s(-1e9)
    clock = host.clock()
    clock.not_before(T0)
    host.pass_s(10)
    assert said_s(clock) == pytest.approx(10, abs=0.01)
    host.step_s(1e9 + away_s)
    host.pass_s(1)
    assert said_s(clock) == pytest.approx(11 + away_s)
    # From now on it is like any other.
    host.step_s(3600)
    host.pass_s(1)
    assert said_s(clock) == pytest.approx(12 + away_s, abs=0.01)


def test_a_clock_is_not_wrong_because_ours_lay_behind_the_journal(tmp_path: Path) -> None:
    host, noted = Host(), tmp_path / "clock.json"
    host.clock(noted)
    host.step_s(3600)
    host.pass_s(10)
    clock = host.clock(noted)
    clock.not_before(T0 + 15 * NS_PER_S)
    host.pass_s(1)
    assert said_s(clock) == pytest.approx(16, abs=0.01)


def test_a_small_difference_is_no_step(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    clock = host.clock()
    for off_s in (0.4, -0.8):
        host.step_s(off_s)
        before = said_s(clock)
        host.pass_s(10)
        assert said_s(clock) == pytest.approx(before + 10, abs=0.0051)
    assert not caplog.records


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 86_400.0, 1e9])
def test_a_restart_of_ours_does_not_let_a_step_in(tmp_path: Path, step_s: float) -> None:
    host, noted = Host(), tmp_path / "clock.json"
    clock = host.clock(noted)
    host.pass_s(100)
    host.step_s(step_s)
    assert said_s(clock) == pytest.approx(100, abs=0.06)
    host.pass_s(20)
    again = host.clock(noted)
    assert said_s(again) == pytest.approx(120, abs=0.2)
    # A host that starts anew has forgotten how long it was away: its clock is all there is.
    host.boot_id = "second"
    assert said_s(host.clock(noted)) == pytest.approx(120 + step_s, abs=1e-3)
    noted.write_bytes(b"{")
    assert said_s(host.clock(noted)) == pytest.approx(120 + step_s, abs=1e-3)


def test_where_nobody_knows_whether_the_host_was_started_anew_its_clock_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kapelle.runtime.clock._BOOT_ID", tmp_path / "missing")
    host, noted = Host(), tmp_path / "clock.json"
    host.boot_id = ""
    host.pass_s(3600)
    host.clock(noted)
    host.elapsed_ns = 0
    host.pass_s(10)
    assert said_s(host.clock(noted)) == pytest.approx(3610, abs=1e-3)


def test_a_step_is_said_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    host = Host()
    clock = host.clock()
    host.step_s(3600)
    for _ in range(3):
        host.pass_s(1)
        said_s(clock)
    host.step_s(-3600)
    for _ in range(3):
        host.pass_s(1)
        said_s(clock)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.records[0].set_by_s == pytest.approx(3600)


def test_time_already_journalled_has_passed_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = Host()
    clock = host.clock()
    clock.not_before(T0 - NS_PER_S)
    assert said_s(clock) == 0
    for _ in range(2):
        clock.not_before(T0 + 3600 * NS_PER_S)
        assert said_s(clock) == 3600
    (said,) = caplog.records
    assert said.behind_s == 3600
    host.pass_s(1)
    assert 3600.9 < said_s(clock) < 3601.1
