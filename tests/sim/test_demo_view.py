"""The demo's picture shows what is going on, also without colour and before anything is known."""

import io
from math import nan

import numpy as np
import pytest
from rich.console import Console

from kapelle.fleet.plant import Aggregate
from kapelle.model.enums import Phase
from kapelle.sim.demo_plot import Band, Line, Mark, plot
from kapelle.sim.demo_record import Event, Record, Seen
from kapelle.sim.demo_view import Scene, draw, plain

S = 1_000_000_000


def aggregate(**changed: object) -> Aggregate:
    phases = [0] * (max(Phase) + 1)
    phases[Phase.VERIFIED], phases[Phase.SENT], phases[Phase.UNKNOWN] = 1200, 40, 7
    values: dict[str, object] = {
        "resource": "all", "tick_ns": 40 * S, "age_s": 0.2, "complete": True, "devices": 2000,
        "power_w": 2.31e6, "std_w": 1e4, "low_w": 2.29e6, "high_w": 2.33e6, "measured_w": 2e6,
        "measured_share": 0.71, "oldest_age_s": 3.0, "freshness": (0, 1400, 30, 170, 400),
        "nameplate_w": 8e6, "uncontrolled_w": 1e5, "headroom_up_w": 3e6, "headroom_down_w": 3e6,
        "commanded_w": 2e6, "phases": tuple(phases), "excluded": {"silent": 570},
        "by_kind_w": {}, "vendors": {"alpen": (600, 580), "cirrus": (400, 0)},
    }  # fmt: skip
    return Aggregate(**(values | changed))  # type: ignore[arg-type]  # fields by name


def scene(*, known: bool = True) -> Scene:
    record = Record(0)
    if known:
        for at in range(40):
            power_w = 2.3e6 if at > 15 else -0.2e6
            target_w = 2.3e6 if at > 14 else nan
            record.true.append((at * S, power_w))
            record.seen.append(Seen(at * S, power_w, power_w - 2e4, power_w + 2e4, target_w))
        record.events.append(Event(35 * S, "✕", "vendor cirrus is lost", is_fault=True))
    made = Scene(record, 90.0, 2000, now_ns=40 * S, log=list(record.events))
    if known:
        made.aggregate, made.target_w, made.committed_w = aggregate(), 2.3e6, 2.5e6
    return made


def picture(made: Scene, width: int = 100, height: int = 30) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), no_color=True)
    console.print(draw(made, (width, height)), height=height)
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert all(len(line) <= width for line in text.splitlines())
    assert len(text.splitlines()) <= height
    return text


def test_everything_an_operator_asks_for_is_there_without_colour() -> None:
    text = picture(scene())
    for said in (
        "ACTUAL +2.310 MW", "±0.020", "TARGET +2.300 MW", "● on target +0.4 %",
        "● live", "1,400", "◐ late", "○ stale", "✕ lost", "71.0 % measured",
        "commanded", "1,240", "verified", "1,200", "▲ 7 unknown",
        "✕ cirrus: 0 of 400 heard", "▲ 570 silent", "vendor cirrus is lost", "00:40 / 01:30",
    ):  # fmt: skip
        assert said in " ".join(text.split()), said


@pytest.mark.parametrize("size", [(100, 30), (80, 24), (160, 50)])
@pytest.mark.parametrize("known", [True, False])
def test_it_fits_whatever_the_terminal_and_before_anything_is_known(
    size: tuple[int, int], known: bool
) -> None:
    assert "Coverage" in picture(scene(known=known), *size)


def test_off_target_says_which_way() -> None:
    made = scene()
    made.aggregate = aggregate(power_w=2.0e6)
    assert "▼ under −12.0 %" in picture(made)
    made.target_w = nan
    assert "no order" in picture(made)


def test_one_line_for_pipes() -> None:
    said = plain(scene())
    assert "actual +2.310 MW" in said
    assert "live 1,400" in said
    assert "\n" not in said
    assert "starting" in plain(scene(known=False))


def test_the_plot_puts_the_highest_value_above_and_the_latest_to_the_right() -> None:
    line = Line([(x, float(x)) for x in np.linspace(0, 10, 30)], "white")
    rows = plot([line], Band([], ""), size=(40, 12), span_x=(0.0, 10.0), marks=[Mark(5, "▲", "")])
    text = [row.plain for row in rows]
    assert len(text) == 12
    first = [
        next(i for i, c in enumerate(row[7:]) if c != " ") for row in text[:9] if row[7:].strip()
    ]
    assert first == sorted(first, reverse=True)
    assert "▲" in text[-2]
    assert text[-1].split()[0] == "0"
