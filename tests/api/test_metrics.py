"""The metrics text parses, adds up, and names no device."""

import asyncio
import time
import timeit
from collections import Counter as Count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families

from kapelle.adapters.mqtt import reader, writer
from kapelle.adapters.mqtt.counters import Counters as MqttCounters
from kapelle.adapters.mqtt.endpoint import MqttEndpoint
from kapelle.adapters.mqtt.settings import BrokerSettings, MqttSettings
from kapelle.api.asgi import Application
from kapelle.api.metrics import render
from kapelle.api.requests import Requests
from kapelle.api.server import build
from kapelle.api.settings import ApiSettings
from kapelle.api.sources import Disk, LinkState, Sources
from kapelle.api.watch import Watch
from kapelle.app import open_plant
from kapelle.config import Config, PlantSettings
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.timings import Timings
from kapelle.history.counters import Counters as HistoryCounters
from kapelle.ingest.breaker import Breaker
from kapelle.ingest.service import Counters
from kapelle.ingest.settings import IngestSettings
from kapelle.journal.memory import MemoryJournal
from kapelle.journal.metrics import JournalMetrics
from kapelle.journal.metrics import Timings as Timings_
from kapelle.journal.settings import JournalSettings
from kapelle.model.entries import Entry, Kind
from kapelle.model.enums import OrderStatus, Phase
from kapelle.model.orders import Order, Plan
from kapelle.model.summaries import Curve, ResourceSummary, Spread, Summary
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock

TOKEN = "test-token-of-32-characters-here"
NOW = 1_790_000_000 * 10**9


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
        application = _application(Damaged(SystemClock()))
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
        application = _application(
            MemoryJournal(clock), sessions={endpoint.name: endpoint.counters}
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


def _application(
    journal: MemoryJournal, sessions: dict[str, MqttCounters] | None = None
) -> Application:
    clock = SystemClock()
    return build(
        journal=journal,
        watch=Watch(journal=journal, clock=clock, partitions=2),
        clock=clock,
        settings=ApiSettings(),
        token=TOKEN,
        sessions=sessions,
    )


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


def everything(devices: int = 4) -> Sources:
    """Every source there is, with something in it."""
    breaker = Breaker(IngestSettings(bad_per_minute=1))
    breaker.step(np.zeros(devices, np.int32), NOW)
    timings = Timings()
    timings.entered[Phase.UNKNOWN] = 3
    requests = Requests()
    requests.note("/v1/orders/{order_no}", 200, 0.02)
    history = HistoryCounters(rows=Count({"readings": 5}), bytes=100, oldest_ns=NOW - 10**9)
    return Sources(
        timings=timings,
        blocked=Count({"rate": 2}),
        breakers={"mqtt": breaker},
        history=history,
        links={"mqtt": LinkState(True, NOW), "http": LinkState(False, NOW)},
        requests=requests,
        journal=lambda: JournalMetrics(
            Timings_(), 4096, 1, 1 << 40, 1 << 26, 0, 0, 0, {"history": 3}, 7
        ),
        disk=lambda: Disk(1 << 40, 1 << 41),
        clock_ahead_s=lambda: 0.0,
        backup_at_ns=lambda: NOW,
    )


def full_view(partitions: int = 2, resources: int = 1, devices: int = 1_000_000) -> PlantView:
    view = PlantView(partitions)
    curve = Curve([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0])
    spread = Spread([devices] + [0] * 17, 1.0, [0] * 18, 0.0, [1] * 18, 9.0,
                    {"battery": [0, devices, 0, 0, 0]})  # fmt: skip
    parts = [
        ResourceSummary(
            resource="all" if n == 0 else f"group-{n}", devices=devices, power_w=1.0,
            variance_w2=1.0, shared_std_w={"acme": 1.0}, measured_w=1.0,
            freshness=[0, devices, 0, 0, 0], oldest_age_s=1.0, nameplate_w=10.0,
            uncontrolled_w=0.0, headroom_up_w=1.0, headroom_down_w=1.0, commanded_w=0.0,
            continuous=curve, blocks=curve, phases=[0] * 18, excluded={"silent": 1},
            by_kind_w={"battery": 1.0}, vendors={"acme": [devices, devices]},
            standings=[0] * 10, conditions={"muted": 1},
        )
        for n in range(resources)
    ]  # fmt: skip
    for k in range(partitions):
        entry = Entry("plant", k + 1, Kind.SUMMARY, "owner", 1, NOW,
                      Summary(k, NOW, 1, parts, spread))  # fmt: skip
        apply_plant(view, entry)
    order = Order(1, "all", 5.0, NOW - 1, NOW + 10**12, NOW)
    apply_plant(view, Entry("plant", 90, Kind.ORDER, "api", 0, NOW, order))
    plan = Plan(1, NOW, 1, OrderStatus.ACTIVE, 1.0, 5.0, 0.0, "")
    apply_plant(view, Entry("plant", 91, Kind.PLAN, "dispatch", 1, NOW, plan))
    return view


def test_every_name_is_there_and_both_parsers_read_it() -> None:
    counters = {"mqtt": Counters(accepted=1, quarantined={"json": 1})}
    sessions = {"mqtt": MqttCounters()}
    for is_open, parse in ((False, text_string_to_metric_families), (True, open_families)):
        text = render(full_view(), NOW, counters, sessions, 1, everything(), is_open=is_open)
        families = {family.name: family for family in parse(text)}
        names = {name.removesuffix("_total") for name in families}
        for name in NAMES:
            assert name.removesuffix("_total") in names, name
        for family in families.values():
            assert family.documentation, family.name
            assert family.type != "unknown", family.name
            if family.type == "counter":
                assert all(s.name.endswith(("_total", "_created")) for s in family.samples)
        assert ("# EOF" in text) == is_open


NAMES = (
    "kapelle_ingest_readings_total", "kapelle_ingest_commit_seconds", "kapelle_log_bytes",
    "kapelle_log_fsync_seconds", "kapelle_log_reader_lag_entries",
    "kapelle_partition_lag_seconds", "kapelle_shed_total", "kapelle_quarantine_total",
    "kapelle_devices", "kapelle_device_report_age_seconds", "kapelle_clock_skew_seconds",
    "kapelle_aggregate_power_watts", "kapelle_target_power_watts",
    "kapelle_dispatch_commands_total", "kapelle_dispatch_stage_seconds",
    "kapelle_redispatch_total", "kapelle_redispatch_seconds", "kapelle_tracking_error_watts",
    "kapelle_safety_blocks_total",
    "kapelle_kill_switch_state", "kapelle_session_connects_total", "kapelle_http_request_seconds",
    "kapelle_energy_conservation_error_wh", "kapelle_build_info", "kapelle_health",
    "kapelle_backup_timestamp_seconds",
    "kapelle_history_rows_total", "kapelle_muted_devices", "kapelle_device_conditions",
)  # fmt: skip


def test_what_a_role_does_not_have_it_does_not_tell() -> None:
    found = {name for name, _ in samples(render(PlantView(2), NOW, {}, {}))}
    for name in ("kapelle_log_bytes", "kapelle_history_lag_seconds", "kapelle_redispatch_total"):
        assert name not in found


def test_a_hostile_fleet_cannot_lengthen_the_labels() -> None:
    def labels(text: str) -> int:
        return len(samples(text))

    quarantined = {f"code-{n}": n for n in range(5_000)}
    told = everything(5_000)
    told.blocked = Count({f"rule-{n}": 1 for n in range(5_000)})
    many = render(full_view(), NOW, {"mqtt": Counters(quarantined=quarantined)}, {}, 0, told)
    few = render(full_view(devices=1), NOW, {"mqtt": Counters()}, {}, 0, everything())
    assert labels(many) <= labels(few) + 2 * 64
    total = sum(
        value for (name, _), value in samples(many).items() if name == "kapelle_quarantine_total"
    )
    assert total == sum(quarantined.values()), "what is beyond the bound is summed up"


def test_the_tracking_error_is_against_what_is_promised() -> None:
    found = samples(render(full_view(), NOW, {}, {}))
    # Two partitions with 1 W each, against a baseline of 1 W and 5 W promised.
    assert found["kapelle_tracking_error_watts", (("group", "all"),)] == 2.0 - 6.0


@pytest.mark.integration
def test_requests_are_timed_by_route_never_by_path() -> None:
    async def main() -> str:
        application = _application(MemoryJournal(SystemClock()))
        transport = httpx.ASGITransport(app=application)  # type: ignore[arg-type]  # as above
        async with httpx.AsyncClient(transport=transport, base_url="http://plant") as client:
            head = {"Authorization": f"Bearer {TOKEN}"}
            for n in range(30):
                await client.get(f"/v1/orders/{n}", headers=head)
                await client.get(f"/nothing/{n}", headers=head)
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            assert ready.json()["reasons"][0]["code"] == "partition-silent"
        return await _metrics_of(application)

    found = samples(asyncio.run(main()))
    counts = {
        dict(labels)["route"]: value
        for (name, labels), value in found.items()
        if name == "kapelle_http_request_seconds_count"
    }
    assert counts == {"/v1/orders/{order_no}": 30, "unknown": 30, "/readyz": 1}


def test_a_scrape_costs_the_same_whatever_the_fleet() -> None:
    view, told = full_view(partitions=8, resources=20), everything()
    # Of this process: what else the machine does must not count.
    best = min(
        timeit.repeat(
            lambda: render(view, NOW, {"mqtt": Counters()}, {}, 0, told),
            timer=time.process_time,
            number=1,
            repeat=5,
        )
    )
    assert best < 0.05
