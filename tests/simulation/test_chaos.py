"""Random bad days: the seeds that once found something, and a few that never did."""

from pathlib import Path

import pytest

from kapelle.sim.chaos import described, draw_chaos, main, read_seeds, trouble

KNOWN = read_seeds(Path(__file__).with_name("seeds.txt"))


@pytest.mark.parametrize("seed", sorted({*KNOWN, 0, 1, 2, 3}))
def test_no_promise_is_broken(seed: int) -> None:
    assert trouble(seed) == [], described(seed)


def test_a_seed_draws_the_same_day_again() -> None:
    assert draw_chaos(5) == draw_chaos(5)
    assert draw_chaos(5) != draw_chaos(6)


def test_a_failure_names_its_seed_and_its_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kapelle.sim.chaos.trouble", lambda seed: [f"{seed} went wrong"])
    assert main(["--seeds", "1", "--from", "17", "--jobs", "1"]) == 1
    said = capsys.readouterr().out
    assert "17 went wrong" in said
    assert "--seeds 1 --from 17" in said
    assert "FleetPlan(devices=" in said
