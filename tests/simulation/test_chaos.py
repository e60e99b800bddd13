"""Random bad days: the seeds that once found something, and a few that never did."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from kapelle.fleet.settings import FleetSettings
from kapelle.model.ids import partition_topic
from kapelle.sim.chaos import described, draw_chaos, main, play_chaos, read_seeds, trouble
from kapelle.sim.faults import Restart
from kapelle.sim.invariants import broken

KNOWN = read_seeds(Path(__file__).with_name("seeds.txt"))


@pytest.mark.parametrize("seed", sorted({*KNOWN, 0, 1, 2, 3}))
def test_no_promise_is_broken(seed: int) -> None:
    assert trouble(seed) == [], described(seed)


def test_a_seed_draws_the_same_day_again() -> None:
    assert draw_chaos(5) == draw_chaos(5)
    assert draw_chaos(5) != draw_chaos(6)


def test_days_hold_the_plant_lack_timers_and_begin_lives_with_snapshots() -> None:
    days = [draw_chaos(seed) for seed in range(40)]
    assert any(day.holds for day in days)
    assert any(day.scenario.fleet.no_revert_fraction for day in days)
    assert all(5 <= day.fleet.snapshot_every_s <= 30 for day in days)


def test_a_life_begins_with_a_snapshot_and_what_was_forgotten_is_audited_all_the_same() -> None:
    day = draw_chaos(0)
    restart = Restart("all", 45.0, 1.0)
    faults = replace(day.scenario.faults, restart=[restart])
    settings = FleetSettings(snapshot_every_s=5.0, retain_s=0.0)
    day = replace(day, scenario=replace(day.scenario, faults=faults), fleet=settings)
    done = play_chaos(day, 0)
    assert broken(done) == []
    # Whatever shows a finished run, as `signal` does, must not spell out all its arrays.
    assert len(repr(done)) < 200
    assert asyncio.run(done.play.journal.first(partition_topic(0))) > 1


def test_a_command_that_leaves_a_held_plant_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = next(seed for seed in range(40) if draw_chaos(seed).holds)
    monkeypatch.setattr("kapelle.safety.service.LastHop.hold", lambda *_: None)
    assert any("held" in line for line in trouble(seed))


def test_a_failure_names_its_seed_and_its_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kapelle.sim.chaos.trouble", lambda seed: [f"{seed} went wrong"])
    assert main(["--seeds", "1", "--from", "17", "--jobs", "1"]) == 1
    said = capsys.readouterr().out
    assert "17 went wrong" in said
    assert "--seeds 1 --from 17" in said
    assert "FleetPlan(devices=" in said
