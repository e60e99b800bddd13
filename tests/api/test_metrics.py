"""The metrics text parses, adds up, and names no device."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kapelle.adapters.mqtt import reader, writer
from kapelle.adapters.mqtt.counters import Counters as MqttCounters
from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.mqtt.settings import BrokerSettings, MqttSettings
from kapelle.api.asgi import Application
from kapelle.api.metrics import render
from kapelle.api.server import build
from kapelle.api.settings import ApiSettings
from kapelle.api.watch import Watch
from kapelle.app import open_plant
from kapelle.config import Config, PlantSettings
from kapelle.fleet.plant import PlantView
from kapelle.ingest.service import Counters
from kapelle.journal.memory import MemoryJournal
from kapelle.journal.settings import JournalSettings
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock

TOKEN = "test-token-of-32-characters-here"


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_an_empty_plant_says_only_what_it_knows() -> None:
    found = samples(render(PlantView(2), 1, {}, {}))
    assert found["kapelle_kill_switch_state", ()] == 0
    assert not [name for name, _ in found if name.startswith("kapelle_aggregate")]


def test_ingest_adds_up() -> None:
    counters = Counters(
        accepted=90, quarantined={"power-unit": 4, 'odd"\n\\': 1}, muted=5, commits=3, commit_s=0.5
    )
    counters.commit_buckets[0], counters.commit_buckets[-1] = 2, 1
    found: Any = samples(render(PlantView(2), 1, {"mqtt": counters, "http": Counters()}, {}))
    label = (("protocol", "mqtt"),)
    readings = {
        key[1]: value for key, value in found.items() if key[0] == "kapelle_ingest_readings_total"
    }
    assert readings[("protocol", "mqtt"), ("result", "accepted")] == 90
    assert readings[("protocol", "mqtt"), ("result", "quarantined")] == 5
    assert readings[("protocol", "mqtt"), ("result", "muted")] == 5
    assert found["kapelle_quarantine_total", (("reason", 'odd"\n\\'),)] == 1
    bucket = "kapelle_ingest_commit_seconds_bucket"
    assert found[bucket, (("le", "0.001"), *label)] == 2
    assert found[bucket, (("le", "+Inf"), *label)] == 3
    assert found["kapelle_ingest_commit_seconds_count", label] == 3
    assert found["kapelle_ingest_commit_seconds_sum", label] == 0.5


def test_sessions_add_up() -> None:
    mqtt = MqttCounters(
        sessions=7, connected=9, takeovers=2, flaps=1,
        commands_sent=5, commands_received=4, commands_unsent=3,
    )  # fmt: skip
    mqtt.refused.update({"connect: too many connections": 2, "TLS handshake": 3})
    mqtt.refused["publish on foreign topic"] = 11
    mqtt.dropped["keep-alive"] = 4
    mqtt.malformed["packet identifier 0"] = 6
    found = samples(render(PlantView(2), 1, {}, {"mqtt": mqtt, "broker": MqttCounters()}))

    def value(name: str, **labels: str) -> float | None:
        return found.get((name, tuple(sorted({"protocol": "mqtt", **labels}.items()))))

    assert value("kapelle_sessions") == 7
    assert value("kapelle_sessions", protocol="broker") == 0
    connects = {
        dict(labels)["result"]: count
        for (name, labels), count in found.items()
        if name == "kapelle_session_connects_total" and ("protocol", "mqtt") in labels
    }
    assert connects == {
        "accepted": 9, "refused: too many connections": 2, "refused: TLS handshake": 3,
    }, "a refused publication is no refused connection"  # fmt: skip
    assert value("kapelle_connection_drops_total", reason="keep-alive") == 4
    assert value("kapelle_connection_drops_total", reason="packet identifier 0") == 6
    assert value("kapelle_session_takeovers_total") == 2
    assert value("kapelle_session_flaps_total") == 1
    for result, count in (("sent", 5), ("received", 4), ("unsent", 3)):
        assert value("kapelle_session_commands_total", result=result) == count


@pytest.mark.integration
def test_damage_in_the_journal_is_told() -> None:
    class Damaged(MemoryJournal):
        def damage(self) -> list[str]:
            return [f"p/0 {n}: checksum wrong; left out" for n in range(30)]

    async def main() -> tuple[str, dict[str, Any]]:
        clock = SystemClock()
        journal = Damaged(clock)
        application = build(
            journal=journal,
            watch=Watch(journal=journal, clock=clock, partitions=2),
            clock=clock,
            settings=ApiSettings(),
            token=TOKEN,
        )
        return await _metrics_of(application), (await _get(application, "/v1/status")).json()

    text, status = asyncio.run(main())
    assert samples(text)["kapelle_journal_damage", ()] == 30
    assert status["journal_damage"] == 30
    assert status["damage"][0] == "p/0 0: checksum wrong; left out"
    assert len(status["damage"]) == 20


def test_what_peers_do_to_the_real_endpoint_is_seen_and_cannot_lengthen_the_labels() -> None:
    def connect(given: bytes) -> bytes:
        # CONNECT of MQTT 5 with the given properties.
        head = writer.text("MQTT") + bytes((5, 2)) + b"\0\x3c"
        return writer.packet(0x10, head, bytes((len(given),)), given, writer.text("dev"))

    def flag(name: int) -> list[bytes]:
        return [connect(bytes((name, value))) for value in range(2, 250, 8)]

    unknown = [connect(bytes((0x80 | n, 0x33, 0))) for n in range(30)]
    flags = flag(reader.Property.REQUEST_PROBLEM)
    refused = writer.connect(4, "dev", username="dev", password="wrong")

    async def main() -> dict[str, dict[str, float]]:
        clock = SystemClock()
        endpoint = MqttEndpoint(
            settings=MqttSettings(port=0), directory=Directory.build(2, []), clock=clock
        )
        journal = MemoryJournal(clock)
        application = build(
            journal=journal,
            watch=Watch(journal=journal, clock=clock, partitions=2),
            clock=clock,
            settings=ApiSettings(),
            token=TOKEN,
            sessions={endpoint.name: endpoint.counters},
        )
        async with endpoint.open():
            for packet in (*unknown, *flags, refused):
                stream, out = await asyncio.open_connection("127.0.0.1", endpoint.port)
                out.write(packet)
                await stream.read()
                out.close()
                await out.wait_closed()
            found = samples(await _metrics_of(application))
        told: dict[str, dict[str, float]] = {}
        for (name, labels), value in found.items():
            if name in ("kapelle_session_connects_total", "kapelle_connection_drops_total"):
                of = dict(labels)
                assert of.pop("protocol") == "mqtt"
                told.setdefault(name, {})[of.popitem()[1]] = value
        return told

    assert asyncio.run(main()) == {
        "kapelle_session_connects_total": {
            "accepted": 0,
            "refused: wrong user name or password": 1,
        },
        "kapelle_connection_drops_total": {
            "a property has an unknown identifier": len(unknown),
            "a property must be 0 or 1": len(flags),
        },
    }


def test_the_plant_joins_endpoint_and_broker(tmp_path: Path) -> None:
    config = Config(
        plant=PlantSettings(data_dir=tmp_path),
        journal=JournalSettings(directory=tmp_path / "journal"),
        broker=BrokerSettings(),
    )

    async def main() -> str:
        async with open_plant(config) as plant:
            token = (tmp_path / "api.token").read_text().strip()
            return await _metrics_of(plant.api._application, token)

    found = samples(asyncio.run(main()))
    for protocol in ("broker", "mqtt"):
        assert found["kapelle_sessions", (("protocol", protocol),)] == 0


async def _metrics_of(application: Application, token: str = TOKEN) -> str:
    answer = await _get(application, "/metrics", token)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


async def _get(application: Application, path: str, token: str = TOKEN) -> httpx.Response:
    transport = httpx.ASGITransport(app=application)  # type: ignore[arg-type]  # httpx has looser types for ASGI
    async with httpx.AsyncClient(transport=transport, base_url="http://plant") as client:
        answer = await client.get(path, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    return answer
