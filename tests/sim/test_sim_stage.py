"""Roles on the stage end when they are told to, whatever they die of meanwhile."""

import asyncio

import pytest

from kapelle.app import Doors
from kapelle.errors import JournalConflict
from kapelle.sim import stage
from kapelle.sim.loop import run_virtual
from kapelle.sim.run import prepare
from kapelle.sim.scenario import parse_scenario


async def _dies_of_a_conflict_when_cancelled(doors: Doors) -> None:
    async def loses_its_lease() -> None:
        try:
            await doors.clock.sleep(3600)
        finally:
            raise JournalConflict("somebody took over just then")

    async with asyncio.TaskGroup() as group:
        group.create_task(loses_its_lease())


def test_a_role_that_loses_its_lease_as_it_is_ended_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(stage._RUNS, "dispatch", _dies_of_a_conflict_when_cancelled)

    async def main() -> float:
        play = prepare(parse_scenario("duration_s = 5\n[fleet]\ndevices = 3\npartitions = 1"), 1)
        try:
            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                dying = stage.Stage(play.doors, play.disk, group)
                play.clock.call_later(5, dying.close)
                dying.start(["dispatch"])
        except TimeoutError:
            pass
        return play.elapsed_s()

    assert run_virtual(main) < 6
