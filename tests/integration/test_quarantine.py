"""Poison over real MQTT and HTTP: nobody stalls, everything is accounted for, and it comes back."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
import websockets
from tests.adapters.ocpp.stations import basic

from kapelle.adapters.mqtt.settings import MqttSettings
from kapelle.adapters.ocpp.endpoint import OcppEndpoint
from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.api.settings import ApiSettings
from kapelle.api.times import to_datetime
from kapelle.app import Plant, open_plant
from kapelle.config import Config, PlantSettings
from kapelle.journal.settings import JournalSettings
from kapelle.model.blocks import Mutings, Readings
from kapelle.model.entries import Kind
from kapelle.model.enums import Metric, Quality
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.registry.importing import import_devices

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
DEVICES = 12
STATION = "cp-1"
Document = dict[str, Any]


@dataclass
class Running:
    plant: Plant
    secrets: dict[str, str]
    api: httpx.AsyncClient
    mqtt_port: int
    clients: list[paho.Client] = field(default_factory=list)

    async def connect(self, name: str) -> paho.Client:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name)
        client.username_pw_set(name, self.secrets[name])
        client.connect("127.0.0.1", self.mqtt_port)
        client.loop_start()
        self.clients.append(client)
        async with asyncio.timeout(10):
            while not client.is_connected():  # noqa: ASYNC110  # its thread sets no event of ours
                await asyncio.sleep(0.01)
        return client

    async def cli(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
        environment["KAPELLE_TOKEN"] = str(self.api.headers["Authorization"]).partition(" ")[2]
        command = [sys.executable, "-m", "kapelle.cli", "dlq", *arguments]
        return await asyncio.to_thread(
            subprocess.run, [*command, "--url", str(self.api.base_url)],
            env=environment, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    async def ask(self, method: str, path: str, body: object = None, status: int = 200) -> Document:
        answer = await self.api.request(method, path, json=body)
        assert answer.status_code == status, answer.text
        told: Document = answer.json()
        return told

    async def written(self, kind: Kind) -> list[Any]:
        topics = [*(f"p/{k}" for k in range(2)), PLANT]
        journal = self.plant.doors.journal
        return [e.body for t in topics for e in await journal.read(t, 0, 100_000, {kind})]

    def count(self, protocol: str) -> dict[str, int]:
        counted = self.plant.doors.counters[protocol]
        return {
            "accepted": counted.accepted,
            "quarantined": sum(counted.quarantined.values()),
            "muted": counted.muted,
        }


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Running]:
    config = Config(
        plant=PlantSettings(data_dir=directory, partitions=2),
        journal=JournalSettings(directory=directory / "journal"),
        mqtt=MqttSettings(port=0),
        ocpp=OcppSettings(port=0),
        api=ApiSettings(port=0),
    )
    rows = [
        {"id": f"dev-{n}", "kind": "battery", "nameplate_up_w": 5_000, "energy_wh": 10_000}
        for n in range(DEVICES)
    ]
    rows.append({"id": STATION, "kind": "ev", "adapter": "ocpp", "nameplate_down_w": 11_000})
    async with open_plant(config) as plant:
        made = import_devices(plant.registry, json.dumps(rows).encode(), "json", 1)
        task = asyncio.create_task(plant.run())
        try:
            async with asyncio.timeout(20):
                await plant.api.ready.wait()
            token = (directory / "api.token").read_text().strip()
            (endpoint,) = [a for a in plant.doors.adapters if a.name == "mqtt"]
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{plant.api.port}",
                headers={"Authorization": f"Bearer {token}"},
                timeout=20,
            ) as api:
                up = Running(plant, made.credentials, api, endpoint.port)  # type: ignore[attr-defined]  # the only adapter with a port
                yield up
                for client in up.clients:
                    client.disconnect()
                    client.loop_stop()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def test_one_percent_of_poison_stalls_nobody_and_all_is_accounted_for(tmp_path: Path) -> None:
    """R-36: `dev-0` sends garbage over MQTT, `dev-1` over HTTP; the others are the witnesses."""
    rounds, witnesses = 60, range(2, DEVICES)

    async def main() -> None:
        async with running(tmp_path) as up:
            now_ns = up.plant.doors.clock.now_ns()
            clients = {n: await up.connect(f"dev-{n}") for n in (0, *witnesses)}
            waits: list[float] = []
            sent_mqtt = sent_http = bad_mqtt = bad_http = 0
            for round_ in range(rounds):
                began = perf_counter()
                good = json.dumps(
                    [
                        {"at_ns": now_ns - (rounds - round_) * 10**7 + n, "power_w": 100.0 + n}
                        for n in range(10)
                    ]
                ).encode()
                answers = [clients[n].publish(f"v1/dev-{n}/tel", good, 1) for n in witnesses]
                sent_mqtt += 10 * len(answers)
                poison = [b"{", b'{"power_w":"x"}', b'{"power_w":9e9}'][round_ % 3]
                answers.append(clients[0].publish("v1/dev-0/tel", poison, 1))
                sent_mqtt, bad_mqtt = sent_mqtt + 1, bad_mqtt + 1
                body = [{"device": "dev-2", "at_ns": now_ns - round_, "soc": 0.5}] * 99
                body.append({"device": "dev-1", "soc": 50, "at_ns": now_ns - round_})
                told = await up.ask("POST", "/v1/telemetry", body)
                assert told["accepted"] == 99
                sent_http, bad_http = sent_http + 100, bad_http + 1
                for answer in answers:
                    await asyncio.to_thread(answer.wait_for_publish, 5)
                    assert answer.is_published(), "a publication was not acknowledged"
                waits.append(perf_counter() - began)
            mqtt, http = up.count("mqtt"), up.count("http")
            assert sum(mqtt.values()) == sent_mqtt
            assert mqtt["accepted"] == sent_mqtt - bad_mqtt
            assert sum(http.values()) == sent_http
            assert http["accepted"] == sent_http - bad_http
            assert (mqtt["quarantined"], http["quarantined"]) == (20, 20), "each muted alone"
            assert max(waits) < 2.0, "somebody was held up"

            counts = await up.ask("GET", "/v1/quarantine/counts")
            assert counts["open"] == 40
            muted = {one["device"]: one for one in counts["muted"]}
            assert {n: (m["protocol"], m["not_kept"]) for n, m in muted.items()} == {
                "dev-0": ("mqtt", bad_mqtt - 20), "dev-1": ("http", bad_http - 20),
            }  # fmt: skip
            mutings = [m for m in await up.written(Kind.MUTINGS) if isinstance(m, Mutings)]
            numbers = up.plant.doors.directory.resolve(["dev-0", "dev-1"]).tolist()
            assert sorted(n for m in mutings for n in m.device_no.tolist()) == sorted(numbers)

            told = await up.ask("POST", "/v1/quarantine/unmute", {"devices": ["dev-0", "dev-7"]})
            assert told == {"unmuted": ["dev-0"]}
            answer = clients[0].publish("v1/dev-0/tel", b"{", 1)
            await asyncio.to_thread(answer.wait_for_publish, 5)
            assert up.count("mqtt")["quarantined"] == 21

    asyncio.run(main())


def test_rows_are_mended_replayed_once_and_keep_their_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as up:
            now_ns = up.plant.doors.clock.now_ns()
            client = await up.connect("dev-3")
            # Sent as kW times 1000 too often, an hour ago; and something nobody can read.
            at_ns = now_ns - 3_600 * NS_PER_S
            for payload in (f'{{"at_ns":{at_ns},"power_w":3000000}}'.encode(), b"{nonsense"):
                answer = client.publish("v1/dev-3/tel", payload, 1)
                await asyncio.to_thread(answer.wait_for_publish, 5)
            body = [{"device": "dev-4", "at_ns": at_ns, "soc": 50}, {"device": "new", "soc": 0.5}]
            await up.ask("POST", "/v1/telemetry", body, 422)

            listed = (await up.ask("GET", "/v1/quarantine"))["rows"]
            assert {row["code"] for row in listed} == {
                "power-unit", "json", "soc-range", "device-unknown"
            }  # fmt: skip
            row = {one["code"]: one for one in listed}
            assert row["power-unit"]["device"] == "dev-3"
            assert row["power-unit"]["raw"] == f'{{"at_ns":{at_ns},"power_w":3000000}}'
            one = await up.ask("GET", f"/v1/quarantine/{row['soc-range']['id']}")
            assert one == row["soc-range"]

            fix = {"scale": {"power_w": 0.001}}
            asked: Document = {"filter": {"code": "power-unit"}, "fix": fix, "reason": "was kW"}
            looked = await up.ask("POST", "/v1/quarantine/replay", {**asked, "dry_run": True})
            assert (looked["stored"], looked["matched"], looked["refused"]) == (1, 1, {})
            assert looked["rows"][0]["values"] == {"power_w": 3000.0}
            assert (await up.ask("GET", "/v1/quarantine/counts"))["open"] == 4, "nothing changed"
            done = await up.ask("POST", "/v1/quarantine/replay", asked)
            assert done["stored"] == 1
            again = await up.ask("POST", "/v1/quarantine/replay", asked)
            assert (again["matched"], again["stored"]) == (0, 0)
            by_id = {"ids": [row["power-unit"]["id"]], "fix": fix}
            again = await up.ask("POST", "/v1/quarantine/replay", by_id)
            assert (again["skipped"], again["stored"]) == (1, 0)

            def replayed(block: Readings) -> bool:
                return bool((block.quality & Quality.REPLAYED).any())

            (block,) = [b for b in await up.written(Kind.READINGS) if replayed(b)]
            assert block.values[Metric.POWER_W].tolist() == [3000.0]
            assert block.measured_at_ns.tolist() == [at_ns]
            assert now_ns <= block.received_at_ns[0], "as it arrived, not as it was replayed"
            decided = await up.ask("GET", f"/v1/quarantine/{row['power-unit']['id']}")
            assert (decided["state"], decided["decision_reason"]) == ("replayed", "was kW")
            assert decided["fix"] == {"scale": {"power_w": 0.001}}

            # What is refused again stays open, with its new reason; and nobody is muted for it.
            for _ in range(30):
                body = {"ids": [row["soc-range"]["id"]], "fix": {"scale": {"soc": 0.1}}}
                told = await up.ask("POST", "/v1/quarantine/replay", body)
                assert told["refused"] == {"soc-range": 1}
            one = await up.ask("GET", f"/v1/quarantine/{row['soc-range']['id']}")
            assert one["state"] == "open"
            assert one["reason"].startswith("soc-range: 5 is not between")
            assert (await up.ask("GET", "/v1/quarantine/counts"))["muted"] == []

            body = {"ids": [row["device-unknown"]["id"]], "fix": {"device": "dev-5"}}
            assert (await up.ask("POST", "/v1/quarantine/replay", body))["stored"] == 1
            body = {"filter": {"code": "json"}, "reason": "noise", "author": "api"}
            assert (await up.ask("POST", "/v1/quarantine/drop", body))["dropped"] == 1

            counts = await up.ask("GET", "/v1/quarantine/counts")
            assert counts["open"] == 1

            # The same on the command line; it looks first, and asks.
            shown = await up.cli("ls")
            assert shown.returncode == 0
            assert max(map(len, shown.stdout.splitlines())) <= 80
            assert row["soc-range"]["id"] in shown.stdout
            listed = json.loads((await up.cli("ls", "--json")).stdout)["rows"]
            assert [one["code"] for one in listed] == ["soc-range"]
            assert (
                await up.cli("replay", "--code", "soc-range", "--scale", "soc=.01")
            ).returncode == 2
            assert (await up.cli("replay", "7:7:7", "--yes")).returncode == 3
            assert (await up.ask("GET", "/v1/quarantine/counts"))["open"] == 1, "only looked at"
            export = (await up.api.get("/v1/quarantine/export")).text.splitlines()
            states = sorted(json.loads(line)["state"] for line in export)
            assert states == ["dropped", "open", "replayed", "replayed"]
            csv = (await up.api.get("/v1/quarantine/export?form=csv&state=open")).text
            assert csv.splitlines()[0].startswith("id,device,device_no,source,code")
            assert len(csv.splitlines()) == 2

            page = await up.ask("GET", "/v1/quarantine?limit=3&state=any")
            rest = await up.ask("GET", f"/v1/quarantine?state=any&cursor={page['cursor']}")
            ids = [one["id"] for one in page["rows"] + rest["rows"]]
            assert len(ids) == len(set(ids)) == 4
            assert rest["cursor"] is None

            # Whatever the calendar knows may be asked for.
            path = "/v1/quarantine?since=0001-01-01T00:00:00Z&until=9999-12-31T00:00:00Z&state=any"
            assert len((await up.ask("GET", path))["rows"]) == 4
            await up.ask("GET", "/v1/quarantine?cursor=x", status=422)
            await up.ask("GET", "/v1/quarantine?device=%00", status=404)
            await up.ask("GET", "/v1/quarantine/1:2", status=404)

            # Nothing by mistake: every row at once, neither, both, a field nobody knows.
            for wrong in (
                {"filter": {}}, {}, {"ids": [], "filter": {"code": "x"}},
                {"ids": ["0:1:0"], "fix": {"scale": {"watts": 2.0}}}, {"ids": ["0:1:0"], "x": 1},
            ):  # fmt: skip
                await up.ask("POST", "/v1/quarantine/replay", wrong, 422)

    asyncio.run(main())


def test_a_station_s_calls_are_let_out_of_quarantine(tmp_path: Path) -> None:
    """It says kW times 1000: the readings are refused, mended by an operator, and counted then."""

    async def main() -> None:
        async with running(tmp_path) as up:
            (endpoint,) = [a for a in up.plant.doors.adapters if isinstance(a, OcppEndpoint)]
            async with asyncio.timeout(20):
                while not endpoint.port:  # noqa: ASYNC110  # it tells nobody that it listens
                    await asyncio.sleep(0.01)
            at = to_datetime(up.plant.doors.clock.now_ns()).isoformat()
            value = {"value": "3000000", "measurand": "Power.Active.Import", "unit": "W"}
            meter = [{"timestamp": at, "sampledValue": [value]}]
            call = [2, "1", "MeterValues", {"connectorId": 1, "meterValue": meter}]
            async with websockets.connect(
                f"ws://127.0.0.1:{endpoint.port}/{STATION}",
                subprotocols=["ocpp1.6"],  # type: ignore[list-item]  # a plain text
                additional_headers=basic(STATION, up.secrets[STATION]),
            ) as station:
                await station.send(json.dumps(call))
                while not str(await station.recv()).startswith('[3,"1"'):
                    pass
            (row,) = (await up.ask("GET", "/v1/quarantine"))["rows"]
            assert (row["code"], row["device"], row["source"]) == ("power-unit", STATION, "ocpp")
            assert json.loads(row["raw"])[2:] == call[2:]

            asked = ("replay", "--device", STATION, "--scale", "power_w=0.001", "--yes")
            unsaid = await up.cli(*asked)
            assert unsaid.returncode == 1, unsaid.stderr
            assert "say whose it is" in unsaid.stdout
            told = await up.cli(*asked, "--set-device", STATION, "--reason", "said kW")
            assert told.returncode == 0, told.stderr
            blocks = [b for b in await up.written(Kind.READINGS) if isinstance(b, Readings)]
            (block,) = [b for b in blocks if (b.quality & Quality.REPLAYED).any()]
            assert block.values[Metric.POWER_W].tolist() == [-3000.0]
            assert (await up.ask("GET", "/v1/quarantine/counts"))["open"] == 0

    asyncio.run(main())
