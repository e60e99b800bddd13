"""Which protocols a plant speaks: one adapter for each that is configured."""

from dataclasses import dataclass

from kapelle.adapters.http.route import HttpTelemetry
from kapelle.adapters.mqtt.bridge import BrokerClient
from kapelle.adapters.mqtt.counters import Counters
from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.replay.link import Replay
from kapelle.config import Config
from kapelle.ports import Adapter, Clock, Directory


@dataclass(frozen=True, slots=True)
class Adapters:
    """Everything that brings telemetry in, and the parts of it others must know."""

    all: list[Adapter]
    telemetry: HttpTelemetry | None
    """Also a route of the API; None where it is off."""
    replay: Replay
    sessions: dict[str, Counters]
    """What those count that keep sessions, by adapter."""


def make_adapters(config: Config, directory: Directory, clock: Clock, token: str) -> Adapters:
    """Return the adapters of a configuration, not yet open.

    Raises:
        Invalid: The settings of one contradict each other.
    """
    endpoint = MqttEndpoint(settings=config.mqtt, directory=directory, clock=clock)
    every: list[Adapter] = [endpoint]
    sessions = {endpoint.name: endpoint.counters}
    telemetry = None
    if config.http.enabled:
        telemetry = HttpTelemetry(
            settings=config.http, directory=directory, clock=clock, token=token
        )
        every.append(telemetry)
    if config.broker is not None:
        broker = BrokerClient(settings=config.broker, directory=directory, clock=clock)
        every.append(broker)
        sessions[broker.name] = broker.counters
    replay = Replay()
    every.append(replay)
    return Adapters(every, telemetry, replay, sessions)
