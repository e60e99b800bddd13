"""One order moves charging stations: told by OCPP, verified on the meter."""

import asyncio
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.integration.conftest import SHORT_LEASES, Site, free_port

from kapelle.sim.peers.ocpp import ChargePoint

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

STATIONS = 10
TAKES_W = 7_000.0
REPORT_S = 1.0
RAMP_W = 2_000.0
"""How far a vehicle moves from one report to the next."""


class Street:
    """Charge points, each with a vehicle that takes all it may, up to 7 kW."""

    def __init__(self, port: int, secrets: dict[str, str]) -> None:
        self.points = [
            ChargePoint(index, name, secret, self, now_ns=time.time_ns)
            for index, (name, secret) in enumerate(secrets.items())
        ]
        self.power_w = [-TAKES_W] * len(self.points)
        self.deaf: set[int] = set()
        """They accept every profile and go on as before."""
        self.told: list[float] = []
        self._port = port
        self._import_wh = 0.0

    def on_up(self, index: int) -> None: ...

    def on_acked(self, index: int, waited_s: float) -> None: ...

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        self.told.append(setpoint_w)

    @property
    def sum_w(self) -> float:
        return sum(self.power_w)

    async def live(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for point in self.points:
                tasks.create_task(self._stay(point))
            while True:
                self._step()
                await asyncio.sleep(REPORT_S)

    async def _stay(self, point: ChargePoint) -> None:
        while True:
            with suppress(OSError):
                await point.run("127.0.0.1", self._port)
            await asyncio.sleep(0.5)

    def _step(self) -> None:
        self._import_wh += TAKES_W / 3_600 * REPORT_S
        for index, point in enumerate(self.points):
            allowed_w = TAKES_W if index in self.deaf else min(TAKES_W, point.allowed_w())
            off_w = -allowed_w - self.power_w[index]
            self.power_w[index] += math.copysign(min(abs(off_w), RAMP_W), off_w)
            point.measure(self.power_w[index], self._import_wh)


def test_an_order_is_delivered_by_chargers_although_one_accepts_and_ignores(
    tmp_path: Path,
) -> None:
    port = free_port()
    site = Site(
        tmp_path,
        plant={"data_dir": "data", "partitions": 2},
        ocpp={"port": port, "heartbeat_s": 5, "sample_s": 0},
        **SHORT_LEASES,
    )
    rows = [
        {
            "id": f"cp-{n}",
            "kind": "ev",
            "adapter": "ocpp",
            "nameplate_down_w": 11_000,
            "revert_s": 30,
        }
        for n in range(STATIONS)
    ]
    (tmp_path / "fleet.json").write_text(json.dumps(rows))
    site.json("devices", "import", "fleet.json", "--secrets", str(tmp_path / "secrets.json"))
    secrets = json.loads((tmp_path / "secrets.json").read_text())
    street = Street(port, secrets)
    street.deaf = {0}

    async def until(is_so: Callable[[], bool], wait_s: float = 60.0) -> None:
        async with asyncio.timeout(wait_s):
            while not is_so():  # noqa: ASYNC110  # physics set no events
                await asyncio.sleep(0.1)

    async def play() -> None:
        living = asyncio.create_task(street.live())
        try:
            await until(lambda: all(point.up for point in street.points))
            await asyncio.sleep(6.0)
            before_w = street.sum_w
            assert before_w == -STATIONS * TAKES_W
            order = ["order", "create", "--kw", "20", "--for", "20s", "--tolerance", "0.2"]
            await asyncio.to_thread(site.json, *order)
            await until(lambda: abs(street.sum_w - before_w - 20_000.0) < 2_500.0)
            await asyncio.sleep(6.0)
            # The deaf one was found out by its meter, and made up for by the others.
            assert street.power_w[0] == -TAKES_W
            assert street.sum_w - before_w == pytest.approx(20_000.0, abs=2_500.0)
            # Released, or their profiles have ended: everybody charges as before.
            await until(lambda: street.sum_w == before_w)
            assert any(math.isnan(setpoint_w) for setpoint_w in street.told)
        finally:
            living.cancel()
            with suppress(asyncio.CancelledError):
                await living

    with site.plant(STATIONS):
        asyncio.run(play())
