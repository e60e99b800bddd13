"""`kapelle order watch`: what is shown, how long it waits, and which code it ends with."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.api.test_report import END_NS, START_NS, _steady, events, order, plan, record, report

from kapelle import cli
from kapelle.api.report_shapes import ReportTold
from kapelle.api.shapes import IntervalTold, OrderTold, ResourceTold
from kapelle.api.times import to_datetime
from kapelle.cli import following
from kapelle.errors import NotFound, Unreachable
from kapelle.model.enums import OrderStatus
from kapelle.model.ids import NS_PER_S

PHASES = [{"sent": 2}, {"sent": 2}, {"applied": 1, "verified": 1}, {"verified": 1, "unknown": 1}]


class FakeClient:
    """A plant whose order is over after four looks; its record comes when it is asked again."""

    def __init__(self, told: ReportTold | None, status: str) -> None:
        self.looks, self.asked, self.told, self.status = 0, 0, told, status

    def order(self, number: int) -> OrderTold:
        self.looks += 1
        if self.looks == 2:
            raise Unreachable("nobody answers")
        status = "active" if self.looks < 5 else self.status
        at = to_datetime(START_NS)
        return OrderTold(
            order_no=number, resource="all", target_w=1_000.0, starts_at=at, ends_at=at,
            issued_at=at, issued_by="ada", tolerance=0.02, product="manual", status=status,
            planned=True, baseline_w=800.0, committed_w=900.0, declined_w=100.0, reason="headroom",
        )  # fmt: skip

    def resource(self, name: str) -> ResourceTold:
        told: dict[str, object] = dict.fromkeys(ResourceTold.model_fields, 0.0)
        phases = PHASES[max(0, self.looks - 2)]
        told |= {"resource": name, "phases": phases, "freshness": {"live": 3}, "devices": 4}
        return ResourceTold.model_construct(**told)  # type: ignore[arg-type]  # fields by name

    def report(self, number: int) -> ReportTold:
        self.asked += 1
        if self.told is None:
            raise Unreachable("http://here: 503: this process keeps no history")
        if self.asked == 1:
            raise NotFound(f"the record knows no order {number}")
        return self.told


@pytest.fixture
def watch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(following.time, "sleep", lambda _: None)

    def call(client: FakeClient) -> tuple[int, str, str]:
        @contextmanager
        def connect(*_: object) -> Iterator[FakeClient]:
            yield client

        monkeypatch.setattr(following, "plant", connect)
        monkeypatch.setattr(sys, "argv", ["kapelle", "order", "watch", "1"])
        code = 0
        try:
            code = cli.run()
        except SystemExit as ended:
            code = int(ended.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def judged(directory: Path, delivered_w: float, status: OrderStatus) -> ReportTold:
    told = [
        (START_NS - NS_PER_S, "order", order()),
        (START_NS, "plan", plan(START_NS, OrderStatus.ACTIVE, 1_000.0)),
        (END_NS, "plan", plan(END_NS, status, 1_000.0)),
    ]
    record(directory, [events(told), _steady(delivered_w)])
    return report(directory)


@pytest.mark.parametrize(
    ("delivered_w", "status", "code", "says"),
    [
        (1_000.0, OrderStatus.COMPLETED, 0, "● order 1 · delivered"),
        (900.0, OrderStatus.COMPLETED, 1, "▲ order 1 · fell short"),
        (1_000.0, OrderStatus.CANCELLED, 1, "✕ order 1 · cancelled"),
    ],
)
def test_it_ends_well_only_if_it_delivered(
    watch, tmp_path: Path, delivered_w: float, status: OrderStatus, code: int, says: str
) -> None:
    told = judged(tmp_path / "history", delivered_w, status)
    ended, shown, _ = watch(FakeClient(told, status.name.lower()))
    assert ended == code
    assert says in shown
    lines = [line for line in shown.splitlines() if "actual" in line]
    assert len(lines) == 3, "a line for each change, and none for the look that changed nothing"
    assert "sent 2" in lines[0]
    assert "verified 1" in lines[-1]
    assert "✕ unknown 1" in lines[-1]


def test_without_a_record_nobody_can_say_that_it_delivered(watch) -> None:
    code, _, said = watch(FakeClient(None, "completed"))
    assert code == 1
    assert "nobody answers" in said, "a plant that restarts is waited for"
    assert "nobody can say" in said


def test_what_was_declined_ends_as_rejected(watch) -> None:
    client = FakeClient(None, "declined")
    code, _, said = watch(client)
    assert (code, client.asked) == (6, 0)
    assert "headroom" in said


def test_the_picture_counts_how_far_commands_have_come() -> None:
    assert following._reached({"planned": 1, "accepted": 2, "verified": 3, "lost": 4}) == {
        "planned": 6, "sent": 5, "received": 5, "accepted": 5, "applied": 3, "verified": 3,
    }  # fmt: skip
    client = FakeClient(None, "completed")
    shown = following.picture(client.order(1), client.resource("all"))
    assert shown.row_count == 4 + len(following._WAY)


def test_of_a_profile_the_target_is_that_of_the_interval_that_runs() -> None:
    at, ago, soon = (datetime.now(UTC) + timedelta(seconds=n) for n in (-5, -65, 55))
    steps = [
        IntervalTold(starts_at=ago, ends_at=at, target_w=9_000.0, committed_w=9_000.0),
        IntervalTold(starts_at=at, ends_at=soon, target_w=-300.0, committed_w=-200.0),
    ]
    client = FakeClient(None, "completed")
    order = client.order(1).model_copy(update={"profile": steps, "committed_w": 9_000.0})
    assert "target 600 W" in following.line_of(order, client.resource("all"))
