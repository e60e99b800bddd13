"""Every line of acceptance in its quick version; the whole of it is `make accept`."""

from pathlib import Path

import pytest

from kapelle.journal import lines as journal_lines
from kapelle.journal import memory
from kapelle.sim.acceptance.lines import Line, lines
from kapelle.sim.acceptance.playing import play_line
from kapelle.sim.acceptance.score import score
from kapelle.sim.acceptance.seen import Seen

QUICK = {line.name: line for line in lines(quick=True)}
LISTED = Path(__file__).with_name("acceptance_seeds.txt").read_text(encoding="utf-8")
RUNS = [
    (name, int(seed))
    for name, seed in (
        text.split("#")[0].split() for text in LISTED.splitlines() if text.split("#")[0].strip()
    )
]


def play(name: str, seed: int) -> tuple[Line, Seen]:
    line = QUICK[name]
    return line, play_line(line, seed)


def test_every_line_is_played() -> None:
    assert {name for name, _ in RUNS} == set(QUICK)


@pytest.mark.parametrize(("name", "seed"), RUNS)
def test_nothing_happens_twice_and_what_is_promised_arrives(name: str, seed: int) -> None:
    """Sixty devices are coarser than the table's two hundred: bands are wider by as much."""
    line, seen = play(name, seed)
    assert (seen.double_effects, seen.stranded, seen.fencing, seen.problems) == (0, 0, 0, [])
    if line.aims.delivered_mean > 0:
        assert 0.97 < seen.delivered_mean < 1.05
        assert seen.settle_5pct_s is not None
        assert seen.settle_5pct_s < 15
    if line.scenario.faults.group_loss:
        assert seen.detected_s is not None
        assert seen.detected_s < 15
    if line.aims.notice_s < 60:
        assert seen.admitted is not None
        assert seen.admitted.after_s <= line.aims.notice_s
        assert seen.admitted.error < 0.1
        assert seen.admitted.named_s is not None
        assert seen.admitted.named_s <= line.aims.named_s
    # Whoever was silenced, or killed, was there again.
    assert seen.restarts >= len(line.scenario.faults.rival) + len(line.scenario.faults.restart)
    if line.aims.recover_5pct_s < 60:
        assert max(seen.out_5pct_s) <= line.aims.recover_5pct_s


def test_the_same_line_and_seed_give_the_same_again() -> None:
    (_, once), (_, again) = play("two-dispatch", 1), play("two-dispatch", 1)
    assert {**_told(once), "wall_s": 0} == {**_told(again), "wall_s": 0}


def _told(seen: Seen) -> dict[str, object]:
    return {name: getattr(seen, name) for name in seen.__struct_fields__}


@pytest.mark.parametrize("name", ["two-dispatch", "two-fleet"])
def test_a_journal_that_fences_nobody_is_found_out(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check can fail: the deposed one's entries are seen where nothing keeps them out."""

    def append(topic, state, count, writer, epoch, expected):  # type: ignore[no-untyped-def]  # a stand-in
        newest = state.lines.get(writer, journal_lines.Line()).epoch
        return journal_lines.step_append(topic, state, count, writer, max(epoch, newest), None)

    monkeypatch.setattr(memory, "step_append", append)
    # Else it may learn of its end before it has said anything.
    monkeypatch.setattr(memory, "step_renew", lambda held, *_: held)
    line, seen = play(name, 1)
    assert seen.fencing > 0
    assert score(line, [seen]).missed
