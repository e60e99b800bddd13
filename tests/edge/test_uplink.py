"""The way to the plant: whoever gives it up half way leaves nothing behind."""

import asyncio
import gc
import random

import pytest
from tests.adapters.conformance.plant import DEVICE, SECRET, enrolled, opened

from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.mqtt.settings import MqttSettings
from kapelle.edge.settings import UplinkSettings
from kapelle.edge.uplink import Session, Uplink, turns_to_connect
from kapelle.errors import LinkLost
from kapelle.runtime.clock import SystemClock
from kapelle.runtime.supervise import keep_open
from kapelle.sim.ports import free_port

STEPS, STEP_S = 15, 0.002
"""The agent is stopped at so many moments of its connecting, one after the other."""


@pytest.mark.parametrize("secret", [SECRET, "wrong"], ids=["accepted", "refused"])
def test_an_agent_that_stops_while_it_connects_leaves_nothing_behind(secret: str) -> None:
    """aiomqtt that is cancelled half way leaves a task and a socket that nobody ends."""
    left: list[str] = []

    async def stopped(after_s: float) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: left.append(context["message"]))
        clock, directory = SystemClock(), enrolled("mqtt")
        endpoint = MqttEndpoint(settings=MqttSettings(port=0), directory=directory, clock=clock)

        async def use(_: Session) -> None:
            await asyncio.Event().wait()

        async with asyncio.timeout(30), opened(endpoint, directory):
            settings = UplinkSettings(port=endpoint.port)
            uplink = Uplink(DEVICE, secret, settings, turns_to_connect())
            kept = asyncio.ensure_future(keep_open(uplink, use, clock=clock, draw=random.Random(1)))
            await asyncio.sleep(after_s)
            kept.cancel()
            with pytest.raises(asyncio.CancelledError):
                await kept

    for step in range(STEPS):
        asyncio.run(stopped(step * STEP_S))
        gc.collect()
    assert left == []


def test_a_plant_that_is_not_there_is_named_by_its_place() -> None:
    async def run() -> None:
        port = free_port()
        uplink = Uplink(DEVICE, SECRET, UplinkSettings(port=port), turns_to_connect())
        with pytest.raises(LinkLost, match=rf"the plant at 127\.0\.0\.1:{port}: "):
            async with uplink.open():
                raise AssertionError

    asyncio.run(run())
