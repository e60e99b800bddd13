"""Days without a plant, in virtual time: what is new goes first, what was kept follows slowly."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from tests.adapters.sunspec.inverter import Inverter
from tests.adapters.sunspec.test_unit import Memory

from kapelle.adapters.sunspec.settings import DeviceSettings
from kapelle.adapters.sunspec.unit import Unit
from kapelle.edge.buffer import Buffer
from kapelle.edge.pace import Pace
from kapelle.edge.service import Device
from kapelle.edge.settings import BufferSettings
from kapelle.edge.uplink import Uplink
from kapelle.errors import LinkLost
from kapelle.model.ids import NS_PER_S
from kapelle.runtime.background import background
from kapelle.sim.clock import VirtualClock
from kapelle.sim.loop import run_virtual

DAY_S = 86_400.0
POLL_S = 300.0
PER_S = 20.0


@dataclass
class Plant:
    """An uplink to a plant that is away at first, and answers after a moment then."""

    clock: VirtualClock
    away: bool = True
    name: str = "plant/a"
    heard: list[tuple[int, list[dict[str, Any]]]] = field(default_factory=list)
    """When, and what, of each publication."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Plant"]:
        if self.away:
            raise LinkLost(self.name, "nobody there")
        yield self

    async def commands(self) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async def telemetry(self, payload: bytes) -> None:
        await self.clock.sleep(0.05)
        self.heard.append((self.clock.now_ns(), json.loads(payload)))

    async def answer(self, payload: bytes) -> None:
        await self.clock.sleep(0.05)


def test_three_days_later_everything_arrives_once_the_newest_first_and_slowly(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        clock = VirtualClock()
        plant = Plant(clock)
        buffer = Buffer(BufferSettings(tmp_path / "edge.db"), clock.now_ns())
        memory = Memory(Inverter(now=asyncio.get_running_loop().time))
        unit = Unit(memory, DeviceSettings("a", "nowhere", poll_s=POLL_S), clock)
        uplink, pace = cast(Uplink, plant), Pace(PER_S)
        device = Device(unit, uplink, buffer, pace, clock, trust_clock=True)
        async with background() as beside:
            beside.start(device.poll(), "poll")
            beside.start(device.keep_up(random.Random(1)), "uplink")
            for _ in range(int(3 * DAY_S / 1_800)):
                await clock.sleep(1_800.0)
                buffer.flush(clock.now_ns())
            # Between two readings: none is fresh.
            await clock.sleep(10.0)
            buffer.flush(clock.now_ns())
            plant.away = False
            back_ns = clock.now_ns()
            await clock.sleep(600.0)
        buffer.close(clock.now_ns())

        rows = [row for _, said in plant.heard for row in said]
        stamps = sorted(row["at_ns"] for row in rows)
        assert len({(row["boot"], row["seq"]) for row in rows}) == len(rows)
        assert [row["seq"] for row in sorted(rows, key=lambda r: r["at_ns"])] == [
            *range(1, len(rows) + 1)
        ]
        assert len(rows) >= 3 * DAY_S / POLL_S
        assert stamps[0] < back_ns - 2.9 * DAY_S * NS_PER_S
        # Reconnecting takes at most two minutes; what was newest then is said first.
        first_ns, first = plant.heard[0]
        assert first_ns - back_ns <= 121 * NS_PER_S
        last = max(row["at_ns"] for row in rows if row["at_ns"] <= first_ns)
        assert [row["at_ns"] for row in first] == [last]
        # And no second carries much more than its share.
        for at_ns, _ in plant.heard:
            within = [s for t, s in plant.heard if at_ns <= t < at_ns + 10 * NS_PER_S]
            assert sum(map(len, within)) <= 11 * PER_S + 5

    run_virtual(run)


@given(
    st.floats(1.0, 1_000.0),
    st.lists(st.tuples(st.integers(0, 500), st.floats(0.0, 30.0)), max_size=50),
)
def test_a_pace_is_kept_however_it_is_asked(per_s: float, asked: list[tuple[int, float]]) -> None:
    pace, now_s, given_ = Pace(per_s), 1_000.0, 0
    for wanted, later_s in asked:
        now_s += later_s
        granted = pace.take(wanted, int(now_s * NS_PER_S))
        assert 0 <= granted <= wanted
        given_ += granted
    assert given_ <= per_s * (now_s - 1_000.0) + per_s + 1
