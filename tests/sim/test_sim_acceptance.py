"""Scores over seeds, what is missed in words, and results that a stopped run leaves."""

import json
from math import inf
from pathlib import Path

import msgspec
import pytest

from kapelle import cli
from kapelle.errors import Invalid
from kapelle.sim.acceptance import playing
from kapelle.sim.acceptance.lines import ADMITS, Aims, Line, lines
from kapelle.sim.acceptance.playing import fingerprint, keep, read_kept
from kapelle.sim.acceptance.score import ranked, score
from kapelle.sim.acceptance.seen import Admitted, Seen
from kapelle.sim.acceptance.table import COLUMNS, markdown, row, verdict

LINES = {line.name: line for line in lines()}
GOOD = Seen(
    line="silent-10-4s",
    seed=1,
    made_by="",
    committed_w=1e6,
    delivered_mean=1.0,
    delivered_whole=0.99,
    baseline_off_pct=0.5,
    worst_5min=0.99,
    settle_5pct_s=4.0,
    settle_2pct_s=8.0,
    overshoot_pct=2.0,
    out_5pct_s=[],
    out_2pct_s=[],
    off_pct=[],
    admitted=None,
    detected_s=None,
    redispatch_p95_s=6.0,
    commands_per_device_hour=60.0,
    double_effects=0,
    stranded=0,
    fencing=0,
    restarts=0,
    problems=[],
    wall_s=1.0,
)


def seen(**changes: object) -> Seen:
    return msgspec.structs.replace(GOOD, **changes)


def missed(name: str, *runs: Seen) -> str:
    return "; ".join(score(LINES[name], runs).missed)


def test_every_line_has_a_name_of_its_own_and_an_order_that_outlasts_its_events() -> None:
    every = lines()
    assert len({line.name for line in every}) == len(every)
    assert sum(line.name.startswith("silent-") for line in every) == 16
    for line in (*every, *lines(quick=True)):
        (order,) = line.scenario.orders
        events_s = line.events_s
        assert all(order.at_s < at_s < order.at_s + order.duration_s for at_s in events_s)
        for rival in line.scenario.faults.rival:
            # It sleeps past its lease, whoever it is.
            assert rival.for_s > 12


def test_a_percentile_is_a_value_that_was_there() -> None:
    values = [float(value) for value in range(50, 0, -1)]
    assert ranked(0.05, values) == 3
    assert ranked(0.5, values) == 25
    assert ranked(0.95, values) == 48
    assert ranked(0.95, [7.0]) == 7
    assert ranked(0.05, [7.0]) == 7
    assert ranked(0.95, [1.0, inf]) == inf


def test_a_line_is_met_by_the_mean_the_worst_and_19_of_20() -> None:
    runs = [seen(seed=number) for number in range(20)]
    assert score(LINES["silent-10-4s"], runs).missed == []
    late = [*runs[1:], seen(settle_2pct_s=None)]
    told = score(LINES["silent-10-4s"], late)
    assert told.missed == []
    assert told.met == 0.95
    assert verdict(told) == "met"
    assert "within ±2 % never, aim 30 s" in missed(
        "silent-10-4s", *runs[2:], seen(settle_2pct_s=None), seen(settle_2pct_s=None)
    )


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("silent-10-4s", {"delivered_mean": 0.97}, "delivered 98.50 %, aim 99 %"),
        ("silent-10-4s", {"worst_5min": 0.969}, "five minutes with 96.90 %, aim 97 %"),
        ("silent-10-4s", {"redispatch_p95_s": 13.1}, "redispatched in 13.1 s, aim 13 s"),
        ("silent-20-4s", {"delivered_mean": 0.5, "settle_2pct_s": None}, ""),
        ("silent-20-4s", {"double_effects": 1}, "1 commands took effect twice"),
        ("silent-20-4s", {"stranded": 2}, "2 commands were stranded"),
        ("silent-20-4s", {"fencing": 3}, "3 orders of a deposed epoch got through"),
        ("silent-20-4s", {"problems": ["p/0: snapshot and replay differ"]}, "1 seeds broke"),
    ],
)
def test_what_is_missed_is_said(name: str, change: dict[str, object], told: str) -> None:
    said = missed(name, GOOD, seen(seed=2, **change))
    assert told in said
    assert bool(said) == bool(told)


def test_a_shortfall_must_be_said_in_time_by_its_size_and_cause() -> None:
    lost: dict[str, object] = {"out_5pct_s": [200.0], "out_2pct_s": [200.0], "off_pct": [20.0]}

    def told(admitted: Admitted | None) -> str:
        return missed("vendor-scarce", seen(**lost, admitted=admitted))

    assert told(Admitted(after_s=8.0, error=0.04, named_s=9.0)) == ""
    assert "said after 10.5 s" in told(Admitted(after_s=10.5, error=0.04, named_s=10.0))
    assert "wrong by 6.0 %" in told(Admitted(after_s=8.0, error=0.06, named_s=9.0))
    assert "cause named never" in told(Admitted(after_s=8.0, error=0.0, named_s=None))
    assert "said never" in told(None)
    assert LINES["vendor-scarce"].aims == ADMITS


def test_the_table_has_a_row_per_line_and_says_what_was_missed() -> None:
    good = score(LINES["silent-10-4s"], [GOOD])
    bad = score(LINES["silent-20-4s"], [seen(settle_2pct_s=None, fencing=1)])
    assert tuple(row(good, "x")) == COLUMNS
    assert row(bad, "x")["±2 % p95"] == "never"
    assert LINES["silent-20-4s"].aims == Aims()
    text = markdown([good, bad])
    head, rule, *rest = text.splitlines()
    assert head.count("|") == rule.count("|") == rest[0].count("|") > 8
    assert rest[-1] == "- 20 % silent, reports every 4 s: 1 orders of a deposed epoch got through"
    assert "Missed" not in markdown([good])


def _kept(line: Line, seed: int) -> Seen:
    return seen(line=line.name, seed=seed, made_by=fingerprint(line))


def test_a_stopped_run_leaves_what_it_had(tmp_path: Path) -> None:
    file, line = tmp_path / "kept.jsonl", LINES["gateway"]
    assert read_kept(file, [line]) == []
    for seed in (1, 2):
        keep(file, _kept(line, seed))
    with file.open("ab") as cut:
        cut.write(b'{"line":"gateway","seed":3')
    assert [each.seed for each in read_kept(file, [line])] == [1, 2]
    keep(file, _kept(line, 3))
    assert [each.seed for each in read_kept(file, [line])] == [1, 2, 3]


def test_what_other_code_or_another_version_of_a_line_made_is_left_out(tmp_path: Path) -> None:
    file, line = tmp_path / "kept.jsonl", LINES["gateway"]
    quick = next(each for each in lines(quick=True) if each.name == line.name)
    keep(file, _kept(quick, 1))
    keep(file, msgspec.structs.replace(_kept(line, 2), made_by="of yesterday"))
    assert read_kept(file, [line]) == []
    assert len(read_kept(file, [quick])) == 1
    file.write_text("{}\n")
    with pytest.raises(Invalid, match="line 1 is no result"):
        read_kept(file, [line])


def test_the_command_goes_on_where_it_was_and_tells_by_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played: list[tuple[str, int]] = []

    def play(line: Line, seed: int) -> Seen:
        played.append((line.name, seed))
        return msgspec.structs.replace(_kept(line, seed), stranded=int(seed == 3))

    monkeypatch.setattr(playing, "play_line", play)

    def run(*options: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["kapelle", "sim", "accept", *options])
        code = cli.run()
        said = capsys.readouterr()
        return code, said.out + said.err

    wanted = ("--only", "silent-10-*s", "--keep", str(tmp_path / "kept.jsonl"), "--json")
    code, said = run(*wanted, "--seeds", "1")
    assert code == 0
    assert [line["line"] for line in json.loads(said)["lines"]] == [
        f"silent-10-{period}s" for period in (1, 4, 10, 60)
    ]
    code, _ = run(*wanted, "--seeds", "3")
    assert code == 1
    assert len(played) == len(set(played)) == 12
    assert run("--only", "silent-11-4s")[0] == 2
    code, said = run("--only", "silent-10-4s", "--seeds", "2", "--markdown")
    assert code == 0
    assert said.startswith("| line |")
