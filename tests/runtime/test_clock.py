"""The clock: it never goes back, is right at once after NTP has set it, and resurrects nothing."""

import pytest

from kapelle.model.ids import NS_PER_S
from kapelle.runtime.clock import SystemClock

T0 = 1_700_000_000 * NS_PER_S


class Host:
    """A host whose clocks a test moves."""

    def __init__(self) -> None:
        self.wall_ns = T0
        self.monotonic_ns = 5 * NS_PER_S

    def pass_s(self, seconds: float) -> None:
        self.wall_ns += round(seconds * NS_PER_S)
        self.monotonic_ns += round(seconds * NS_PER_S)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    monkeypatch.setattr("time.time_ns", lambda: host.wall_ns)
    monkeypatch.setattr("time.monotonic_ns", lambda: host.monotonic_ns)
    return host


def said_s(clock: SystemClock) -> float:
    return (clock.now_ns() - T0) / NS_PER_S


def test_a_wall_clock_set_forward_is_followed_at_once(host: Host) -> None:
    host.wall_ns -= 86_400 * NS_PER_S
    clock = SystemClock()
    assert said_s(clock) == -86_400
    host.wall_ns += 86_400 * NS_PER_S
    host.pass_s(1)
    assert said_s(clock) == 1


def test_a_wall_clock_set_back_is_approached_slowly(host: Host) -> None:
    clock = SystemClock()
    host.wall_ns -= 3600 * NS_PER_S
    before = said_s(clock)
    for _ in range(3600):
        host.pass_s(1)
        now = said_s(clock)
        assert before < now < before + 1
        before = now
    assert before == pytest.approx(3600 * 0.95)
    for _ in range(100):
        host.pass_s(3600)
        said_s(clock)
    assert clock.now_ns() == host.wall_ns


def test_a_small_difference_is_no_step(host: Host) -> None:
    clock = SystemClock()
    for off_s in (0.4, -0.8):
        host.wall_ns += round(off_s * NS_PER_S)
        before = said_s(clock)
        host.pass_s(10)
        assert said_s(clock) == pytest.approx(before + 10, abs=0.0051)


def test_time_already_journalled_has_passed_and_it_is_said_once(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SystemClock()
    clock.not_before(T0 - NS_PER_S)
    assert said_s(clock) == 0
    for _ in range(2):
        clock.not_before(T0 + 3600 * NS_PER_S)
        assert said_s(clock) == 3600
    (said,) = caplog.records
    assert said.behind_s == 3600
    host.pass_s(1)
    assert 3600.9 < said_s(clock) < 3601
