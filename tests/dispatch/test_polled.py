"""Who polls for commands has so much longer for an answer, and nobody else."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.dispatch.test_delivery import ALL, EPOCH, SETTINGS, Plant, s

from kapelle.adapters.ieee2030.endpoint import Ieee2030Endpoint
from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.mqtt.settings import MqttSettings
from kapelle.adapters.openadr.settings import OpenAdrSettings
from kapelle.adapters.openadr.vtn import Vtn
from kapelle.app.doors import Doors
from kapelle.app.polling import Polling
from kapelle.config import Config
from kapelle.dispatch.delivery import decide
from kapelle.fleet.columns import Fleet
from kapelle.fleet.desired import apply_commands, apply_phases
from kapelle.model.blocks import Commands, Phases
from kapelle.model.enums import AckStatus, Exclusion, Phase
from kapelle.ports import Polled
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock

LATER_S = np.array([12.0] * 5 + [0.0] * 5)
POLLED, CALLED = ALL[:5], ALL[5:]


class Mixed(Plant):
    """Five batteries that poll every 12 s, five that are told at once."""

    def tick(self, at_s: float) -> Commands | None:
        self.fleet.now_ns = s(at_s)
        sent = None
        for body in decide(self.fleet, SETTINGS, EPOCH, LATER_S):
            if isinstance(body, Commands):
                sent = body
                apply_commands(self.fleet, body)
            elif isinstance(body, Phases):
                apply_phases(self.fleet, body)
        return sent

    def given_up(self) -> list[int]:
        excluded = self.fleet.excluded[: self.fleet.size] == Exclusion.UNKNOWN
        return [int(row) for row in np.flatnonzero(excluded)]


def test_each_command_lives_until_its_device_is_given_up() -> None:
    plant = Mixed()
    plant.order(0.5)
    sent = plant.tick(0)
    assert sent is not None
    assert sent.ttl_s.tolist() == [17.0] * 5 + [5.0] * 5
    assert sent.not_after_ns.tolist() == [s(17)] * 5 + [s(5)] * 5


def test_only_those_that_should_have_answered_are_asked_again_and_given_up() -> None:
    plant = Mixed()
    plant.order(0.5)
    plant.tick(0)
    again = plant.tick(3)
    assert again is not None
    assert again.device_no.tolist() == plant.fleet.device_nos(np.array(CALLED, np.int32)).tolist()
    plant.tick(6)
    assert plant.given_up() == CALLED
    # A refusal is heard at once: nobody waits for the sake of waiting.
    plant.answer([0], 7, AckStatus.REJECTED)
    assert plant.phases()[0] == Phase.REJECTED
    plant.tick(16)
    assert plant.given_up() == CALLED
    plant.tick(18)
    assert plant.given_up() == [1, 2, 3, 4, *CALLED]


def test_an_answer_within_the_time_keeps_a_polled_device() -> None:
    plant = Mixed()
    plant.order(0.5)
    plant.tick(0)
    plant.answer(POLLED, 12)
    plant.tick(18)
    assert not set(plant.given_up()) & set(POLLED)


class _Adapter:
    def __init__(self, name: str, told_within_s: float) -> None:
        self.name, self.told_within_s = name, told_within_s


def bearer(device_no: int, adapter: str) -> Bearer:
    return Bearer(device_no, f"d-{device_no}", True, 1.0, 1.0, adapter=adapter)


@given(st.lists(st.sampled_from(["slow", "slower", "ocpp", "mqtt"]), max_size=12))
def test_however_the_fleet_is_parted_each_device_has_the_time_of_its_adapter(
    spoken: list[str],
) -> None:
    adapters = [_Adapter("slow", 10.0), _Adapter("slower", 900.0), SimpleNamespace(name="ocpp")]
    bound_s = Config().safety.valid_s_max - Config().dispatch.command_ttl_s
    wanted = [{"slow": 10.0, "slower": bound_s}.get(name, 0.0) for name in spoken]
    for partitions in (1, 2, 3):
        rows = [bearer(number, name) for number, name in enumerate(spoken)]
        directory = Directory.build(partitions, rows)
        doors = SimpleNamespace(directory=directory, config=Config(), adapters=adapters)
        polling = Polling(cast("Doors", doors))
        found = np.zeros(len(spoken))
        for partition in range(partitions):
            fleet = Fleet.empty(partition, partitions)
            fleet.reserve(len(range(partition, len(spoken), partitions)))
            later_s = polling.later_s(fleet)
            assert later_s is not None
            found[partition::partitions] = later_s
        assert found.tolist() == wanted
        # Who is enrolled elsewhere since is told at once.
        directory.apply([bearer(number, "mqtt") for number in range(len(spoken))])
        fleet = Fleet.empty(0, partitions)
        fleet.reserve(len(range(0, len(spoken), partitions)))
        after_s = polling.later_s(fleet)
        assert after_s is not None
        assert not after_s.any()


def test_protocols_that_are_polled_say_so() -> None:
    directory, clock = Directory(1), SystemClock()
    file = Path("never opened")
    asked = OpenAdrSettings(poll_s=7.0)
    vtn = Vtn(settings=asked, directory=directory, clock=clock, file=file)
    given = Ieee2030Settings(
        poll_s=10, poll_spread_s=2, tls_certificate="a", tls_key="b", tls_client_authority="c"
    )
    utility = Ieee2030Endpoint(settings=given, directory=directory, clock=clock)
    mqtt = MqttEndpoint(settings=MqttSettings(), directory=directory, clock=clock)
    assert isinstance(vtn, Polled)
    assert isinstance(utility, Polled)
    assert not isinstance(mqtt, Polled)
    assert (vtn.told_within_s, utility.told_within_s) == (7.0, 12.0)


def test_without_a_protocol_that_is_polled_nothing_is_counted() -> None:
    doors = SimpleNamespace(
        directory=Directory(1), config=Config(), adapters=[SimpleNamespace(name="ocpp")]
    )
    assert Polling(cast("Doors", doors)).later_s(Fleet.empty()) is None
