"""One order moves gateways: told by OpenADR events, answered by reports, verified on the meter."""

import asyncio
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.integration.conftest import SHORT_LEASES, Site, free_port

from kapelle.sim.peers.openadr import Gateway

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

GATEWAYS = 8
RATED_W = 5_000.0
IDLE_W = -500.0
REPORT_S = 0.5


class Street:
    """Gateways with a battery each, which charges a little unless it is told something."""

    def __init__(self, port: int, secrets: dict[str, str]) -> None:
        self.gateways = [
            Gateway(index, name, secret, self, now_ns=time.time_ns, poll_s=0.5)
            for index, (name, secret) in enumerate(secrets.items())
        ]
        self.power_w = [IDLE_W] * len(self.gateways)
        self.deaf: set[int] = set()
        """They report the setpoint and do nothing."""
        self.told: list[float] = []
        self._port = port

    def on_up(self, index: int) -> None: ...

    def on_acked(self, index: int, waited_s: float) -> None: ...

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        self.told.append(setpoint_w)

    @property
    def sum_w(self) -> float:
        return sum(self.power_w)

    async def live(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for gateway in self.gateways:
                tasks.create_task(self._stay(gateway))
            while True:
                self._step()
                await asyncio.sleep(REPORT_S)

    async def _stay(self, gateway: Gateway) -> None:
        while True:
            with suppress(OSError):
                await gateway.run("127.0.0.1", self._port)
            await asyncio.sleep(0.5)

    def _step(self) -> None:
        for index, gateway in enumerate(self.gateways):
            setpoint_w = gateway.setpoint_w()
            follows = index not in self.deaf and not math.isnan(setpoint_w)
            self.power_w[index] = setpoint_w if follows else IDLE_W
            gateway.measure(self.power_w[index], 0.5)


def test_an_order_is_delivered_by_gateways_although_one_says_so_and_does_nothing(
    tmp_path: Path,
) -> None:
    port = free_port()
    site = Site(
        tmp_path,
        plant={"data_dir": "data", "partitions": 2},
        openadr={"port": port},
        **SHORT_LEASES,
    )
    rows = [
        {
            "id": f"gw-{n}",
            "kind": "battery",
            "adapter": "openadr",
            "nameplate_up_w": RATED_W,
            "energy_wh": 10_000,
            "revert_s": 30,
        }
        for n in range(GATEWAYS)
    ]
    (tmp_path / "fleet.json").write_text(json.dumps(rows))
    site.json("devices", "import", "fleet.json", "--secrets", str(tmp_path / "secrets.json"))
    street = Street(port, json.loads((tmp_path / "secrets.json").read_text()))
    street.deaf = {0}

    async def until(is_so: Callable[[], bool], wait_s: float = 60.0) -> None:
        async with asyncio.timeout(wait_s):
            while not is_so():  # noqa: ASYNC110  # physics set no events
                await asyncio.sleep(0.1)

    async def play() -> None:
        living = asyncio.create_task(street.live())
        try:
            await until(lambda: all(one.up for one in street.gateways))
            await asyncio.sleep(6.0)
            before_w = street.sum_w
            order = ["order", "create", "--kw", "10", "--for", "20s", "--tolerance", "0.2"]
            await asyncio.to_thread(site.json, *order)
            await until(lambda: abs(street.sum_w - before_w - 10_000.0) < 1_500.0)
            await asyncio.sleep(6.0)
            # The deaf one was found out by its meter, and made up for by the others.
            assert street.power_w[0] == IDLE_W
            assert street.sum_w - before_w == pytest.approx(10_000.0, abs=1_500.0)
            # Released, or their events have ended.
            await until(lambda: street.sum_w == before_w)
            assert any(math.isnan(setpoint_w) for setpoint_w in street.told)
        finally:
            living.cancel()
            with suppress(asyncio.CancelledError):
                await living

    with site.plant(GATEWAYS):
        asyncio.run(play())
