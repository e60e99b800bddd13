"""Which protocols a plant speaks: one adapter for each that is configured."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kapelle.adapters.http.route import HttpTelemetry
from kapelle.adapters.keeping import IEEE2030, OPENADR
from kapelle.adapters.mqtt.bridge import BrokerClient
from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.replay.link import Replay
from kapelle.api.asgi import Application
from kapelle.api.metrics import SessionCounters
from kapelle.config import Config
from kapelle.errors import Invalid, Problem
from kapelle.ports import Adapter, Clock, Directory

if TYPE_CHECKING:
    from kapelle.adapters.cloud.endpoint import Cloud


@dataclass(frozen=True, slots=True)
class Adapters:
    """Everything that brings telemetry in, and the parts of it others must know."""

    all: list[Adapter]
    telemetry: HttpTelemetry | None
    """Also a route of the API; None where it is off."""
    replay: Replay
    webhooks: dict[str, Application]
    """Routes of the API to which vendors' clouds deliver."""
    sessions: dict[str, SessionCounters]
    """What those count that keep sessions, by adapter."""
    clouds: "list[Cloud]"
    """Those of vendors, which can be out while the plant's side of them is open."""


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Say which extra to install where the libraries of a protocol are missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "kapelle":
            raise
        remedy = f"pip install 'kapelle[{extra}]'"
        problem = Problem(extra, f"needs the library {error.name}", remedy)
        raise Invalid(f"[{extra}] cannot be served", [problem]) from error


def make_adapters(config: Config, directory: Directory, clock: Clock, token: str) -> Adapters:
    """Return the adapters of a configuration, not yet open.

    Raises:
        Invalid: The settings of one contradict each other.
    """
    endpoint = MqttEndpoint(settings=config.mqtt, directory=directory, clock=clock)
    every: list[Adapter] = [endpoint]
    sessions: dict[str, SessionCounters] = {endpoint.name: endpoint.counters}
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
    if config.ocpp is not None:
        with needs("ocpp"):
            from kapelle.adapters.ocpp.endpoint import OcppEndpoint
        stations = OcppEndpoint(settings=config.ocpp, directory=directory, clock=clock)
        every.append(stations)
        sessions[stations.name] = stations.counters
    if config.openadr is not None:
        from kapelle.adapters.openadr.vtn import Vtn

        file = config.plant.data_dir / OPENADR
        vtn = Vtn(settings=config.openadr, directory=directory, clock=clock, file=file)
        every.append(vtn)
        sessions[vtn.name] = vtn.counters
    if config.ieee2030 is not None:
        with needs("ieee2030"):
            from kapelle.adapters.ieee2030.endpoint import Ieee2030Endpoint
        file = config.plant.data_dir / IEEE2030
        utility = Ieee2030Endpoint(
            settings=config.ieee2030, directory=directory, clock=clock, file=file
        )
        every.append(utility)
        sessions[utility.name] = utility.counters
    if config.sparkplug is not None:
        with needs("sparkplug"):
            from kapelle.adapters.sparkplug.endpoint import SparkplugEndpoint
        nodes = SparkplugEndpoint(settings=config.sparkplug, directory=directory, clock=clock)
        every.append(nodes)
        sessions[nodes.name] = nodes.counters
    if config.topics is not None:
        from kapelle.adapters.topics.endpoint import TopicsEndpoint

        topics = TopicsEndpoint(settings=config.topics, directory=directory, clock=clock)
        every.append(topics)
        sessions[topics.name] = topics.counters
    webhooks: dict[str, Application] = {}
    clouds: list[Cloud] = []
    if config.clouds is not None:
        from kapelle.adapters.cloud import endpoint as vendors

        for row in config.clouds.cloud:
            file = config.plant.data_dir / f"cloud-{row.name}.token"
            cloud = vendors.Cloud(settings=row, directory=directory, clock=clock, file=file)
            every.append(cloud)
            clouds.append(cloud)
            sessions[cloud.name] = cloud.counters
            if cloud.webhook_path:
                webhooks[cloud.webhook_path] = cloud
    replay = Replay()
    every.append(replay)
    return Adapters(every, telemetry, replay, webhooks, sessions, clouds)
