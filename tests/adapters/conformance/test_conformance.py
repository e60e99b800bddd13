"""What holds for every protocol: signs, acknowledgement, expiry, fencing, garbage, cut links."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.adapters.cloud.trial import CloudTrial
from tests.adapters.conformance.peer import Peer, Trial
from tests.adapters.conformance.plant import Plant, opened, until
from tests.adapters.http.trial import HttpTrial
from tests.adapters.ieee2030.trial import Ieee2030Trial
from tests.adapters.mqtt.trial import MqttTrial
from tests.adapters.ocpp.trial import OcppTrial
from tests.adapters.openadr.trial import OpenAdrTrial
from tests.adapters.sparkplug.trial import SparkplugTrial
from tests.adapters.sunspec.trial import SunSpecTrial
from tests.adapters.topics.trial import TopicsTrial

from kapelle.model.enums import AckStatus, SessionEvent

OCPP = [OcppTrial(version) for version in ("1.6", "2.0.1", "2.1")]
TRIALS: list[Trial] = [
    MqttTrial(),
    HttpTrial(),
    SunSpecTrial(),
    CloudTrial(),
    OpenAdrTrial(),
    *OCPP,
    Ieee2030Trial(),
    SparkplugTrial(),
    TopicsTrial(),
]
FAILED = {AckStatus.REJECTED, AckStatus.EXPIRED}

every = pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)
every_that_commands = pytest.mark.parametrize(
    "trial", [t for t in TRIALS if t.commands], ids=lambda trial: trial.name
)
every_with_sessions = pytest.mark.parametrize(
    "trial", [t for t in TRIALS if t.sessions], ids=lambda trial: trial.name
)


@asynccontextmanager
async def connected(trial: Trial) -> AsyncIterator[tuple[Plant, Peer]]:
    adapter, directory = trial.adapter()
    async with opened(adapter, directory) as plant, trial.connect(adapter) as peer:
        yield plant, peer


def play(trial: Trial, act: Callable[[Plant, Peer], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), connected(trial) as (plant, peer):
            await act(plant, peer)

    asyncio.run(run())


@pytest.fixture
def charging_w(shared: Path) -> float:
    """Return the power of the battery in the golden file, which charges at 2 kW."""
    return float(json.loads((shared / "goldens" / "signs.json").read_text())["power_w"])


@every
def test_a_charging_battery_is_negative_power(trial: Trial, charging_w: float) -> None:
    async def act(plant: Plant, peer: Peer) -> None:
        assert await peer.report(charging_w)
        assert await plant.power_w() == [pytest.approx(charging_w, rel=0.01)]

    play(trial, act)


@every
def test_acknowledged_means_stored_and_a_full_disk_is_not_acknowledged(trial: Trial) -> None:
    async def act(plant: Plant, peer: Peer) -> None:
        plant.fill_disk()
        with suppress(OSError):
            assert not await peer.report(-1_000.0)
        plant.empty_disk()
        assert await plant.power_w() == []

    play(trial, act)


@every
def test_garbage_is_kept_with_a_reason_and_harms_nobody(trial: Trial) -> None:
    async def act(plant: Plant, peer: Peer) -> None:
        await peer.babble()
        with suppress(OSError):
            await peer.report(-1_000.0)
        adapter, directory = trial.adapter()
        async with opened(adapter, directory) as other, trial.connect(adapter) as well_behaved:
            assert await well_behaved.report(-500.0)
            assert await other.power_w() == [pytest.approx(-500.0, rel=0.01)]

    play(trial, act)


@every
def test_a_stranger_moves_nothing(trial: Trial) -> None:
    async def run() -> None:
        adapter, directory = trial.adapter()
        async with asyncio.timeout(60), opened(adapter, directory) as plant:
            with suppress(OSError):
                async with trial.stranger(adapter) as stranger:
                    await stranger.report(-1_000.0)
            await asyncio.sleep(0.1)
            assert await plant.power_w() == []

    asyncio.run(run())


@every_that_commands
def test_told_to_charge_is_told_in_its_own_words(trial: Trial, charging_w: float) -> None:
    async def act(plant: Plant, peer: Peer) -> None:
        await until(lambda: plant.send(charging_w))

        async def heard() -> bool:
            return len(await peer.told()) > 0

        await until(heard)
        assert (await peer.told())[-1] == pytest.approx(charging_w, rel=0.01)

    play(trial, act)


@every_that_commands
def test_a_released_device_hears_it(trial: Trial) -> None:
    async def act(plant: Plant, peer: Peer) -> None:
        await until(lambda: plant.send(-1_000.0))

        async def heard() -> bool:
            return len(await peer.told()) > 0

        await until(heard)
        await until(lambda: plant.send(float("nan"), revision=2))

        async def released() -> bool:
            return (await peer.told())[-1] is None

        await until(released)

    play(trial, act)


@every_that_commands
def test_what_has_expired_is_not_carried_out(trial: Trial) -> None:
    async def act(plant: Plant, peer: Peer) -> None:
        # A first one shows that it is connected, and that it would have heard the second.
        await until(lambda: plant.send(-1_000.0))
        await plant.send(-3_000.0, revision=2, ttl_s=-5.0)
        await until(lambda: plant.send(-1_500.0, revision=3))

        async def heard() -> bool:
            told = await peer.told()
            return bool(told) and told[-1] == pytest.approx(-1_500.0, rel=0.01)

        await until(heard)
        assert all(w is None or w > -2_900 for w in await peer.told())

    play(trial, act)


@every_that_commands
def test_the_same_command_twice_has_the_effect_of_one(trial: Trial) -> None:
    async def act(plant: Plant, peer: Peer) -> None:
        await until(lambda: plant.send(-1_000.0))
        await asyncio.sleep(0.2)
        await plant.send(-1_000.0)
        await asyncio.sleep(0.2)

        async def heard() -> bool:
            return len(await peer.told()) > 0

        await until(heard)
        assert {round(w or 0.0, -2) for w in await peer.told()} == {-1_000.0}

    play(trial, act)


@every_with_sessions
def test_a_cut_link_is_noticed_and_nothing_is_written_to_it(trial: Trial) -> None:
    async def act(plant: Plant, peer: Peer) -> None:
        await until(lambda: plant.send(-1_000.0))
        await peer.cut()

        async def down() -> bool:
            events = await plant.events()
            return bool(events) and events[-1] in (SessionEvent.DOWN, SessionEvent.WILL)

        await until(down)
        assert not await plant.send(-2_000.0, revision=2)

    play(trial, act)
