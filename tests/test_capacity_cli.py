"""`kapelle capacity`: a small table that says what can be promised."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kapelle import cli
from kapelle.api.capacity_shapes import CapacityTold, DirectionTold, LevelTold
from kapelle.cli import capacity

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PROMISES_W = {0.5: 6.2e6, 0.9: 5.5e6, 0.95: 4.9e6, 0.99: 4.1e6}


class FakeClient:
    """Answers as a plant would, and remembers what it was asked."""

    asked: dict[str, object]

    def capacity(self, resource: str, **asked: object) -> CapacityTold:
        self.asked = {"resource": resource, **asked}
        levels = [
            LevelTold(level=k, promise_w=w, alone_w=6.0e6, without_worst_w=w * 0.6)
            for k, w in PROMISES_W.items()
        ]
        found = DirectionTold(
            headroom_w=6.7e6, expected_w=6.1e6, levels=levels,
            worst_vendor="[acme]", worst_vendor_odds=0.02,
        )  # fmt: skip
        return CapacityTold(
            resource=resource, at=AT, age_s=12.0, complete=False, window_s=3600.0, notice_s=0.0,
            up=found if asked["direction"] != "down" else None,
            down=found if asked["direction"] != "up" else None,
        )  # fmt: skip


Run = Callable[..., tuple[str, str]]


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    client: FakeClient,
) -> Run:
    """Run `kapelle capacity …` against it; returns what went to stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    @contextmanager
    def connect(*_: object) -> Iterator[FakeClient]:
        yield client

    monkeypatch.setattr(capacity, "plant", connect)

    def call(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["kapelle", "capacity", *arguments])
        capsys.readouterr()
        assert cli.run() == 0
        told = capsys.readouterr()
        return told.out, told.err

    return call


def test_both_ways_are_told_with_what_they_hide(run: Run) -> None:
    out, err = run()
    assert out.index("up (towards the grid)") < out.index("down (from the grid)")
    row = next(line for line in out.splitlines() if line.startswith("P95"))
    assert row.split() == ["P95", "+4.90", "MW", "+2.94", "MW", "+6.00", "MW"]
    assert "[acme]" in err
    assert "2 % likely" in err
    assert "some partitions have not spoken yet" in err


def test_one_way_where_one_is_asked(run: Run, client: FakeClient) -> None:
    out, _ = run("north", "--window", "90m", "--down", "--notice", "5s")
    assert client.asked == {
        "resource": "north",
        "window_s": 5400.0,
        "notice_s": 5.0,
        "direction": "down",
    }
    assert "up (" not in out
    assert "−4.90 MW" in out


def test_scripts_get_numbers(run: Run) -> None:
    out, _ = run("--up", "--json")
    told = json.loads(out)
    assert told["down"] is None
    assert told["up"]["levels"][2] == {
        "level": 0.95,
        "promise_w": 4.9e6,
        "alone_w": 6.0e6,
        "without_worst_w": pytest.approx(2.94e6),
    }
