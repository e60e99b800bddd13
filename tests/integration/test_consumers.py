"""What people and programs get out of a real plant: `kapelle up`, its devices, its past, energy."""

import csv
import io
import json
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import httpx
import paho.mqtt.client as paho
import polars
import pyarrow.parquet
import pytest
from tests.integration.conftest import Site

from kapelle.api import tables
from kapelle.api.client import Client, connect
from kapelle.errors import Conflict, NotFound

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

FLEET = (
    "id,site,kind,vendor,nameplate_up_w,nameplate_down_w,energy_wh\n"
    "garage,home-1,battery,acme,5000,5000,10000\n"
    "roof,home-2,battery,sunny,8000,8000,10000\n"
)


class Home(Site):
    """Two batteries, of which the one sends over HTTP and MQTT what a test wants it to."""

    @property
    def token(self) -> str:
        return (self.directory / "kapelle-data/api.token").read_text().strip()

    def post(self, rows: list[dict[str, object]]) -> None:
        answer = httpx.post(
            f"http://127.0.0.1:{self.api}/v1/telemetry",
            json=rows,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["accepted"] == len(rows), answer.text

    def publish(self, name: str, secret: str, *messages: dict[str, object]) -> None:
        """Send over MQTT and wait until each is acknowledged: until it is durable."""
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name)
        client.username_pw_set(name, secret)
        client.connect("127.0.0.1", self.mqtt)
        client.loop_start()
        for message in messages:
            told = client.publish(f"v1/{name}/tel", json.dumps(message), qos=1)
            told.wait_for_publish(30)
            assert told.is_published()
        client.disconnect()
        client.loop_stop()


def test_a_new_user_asks_exports_and_mends(tmp_path: Path) -> None:
    site = Home(tmp_path, plant={"partitions": 2}, history={"flush_s": 1})
    (tmp_path / "fleet.csv").write_text(FLEET)
    rows = csv.DictReader(io.StringIO(site.run("devices", "import", "fleet.csv")))
    secrets = {row["id"]: row["secret"] for row in rows}
    with (
        site.plant(2, signal.SIGINT),
        connect(f"http://127.0.0.1:{site.api}", site.token) as client,
    ):
        enrolled = datetime.now(UTC)
        first, last = _send_a_morning(site, client)
        _mend(site, client, first)
        _look_back(site, client, first, last)
        _as_published_and_as_known(site, client, enrolled, secrets["garage"])
        _look_now(site)


def _send_a_morning(site: Home, client: Client) -> tuple[datetime, datetime]:
    """Send three hours of one device's past; its meter counts only half of the second hour."""
    last = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
    first = last.replace(minute=last.minute // 15 * 15) - timedelta(hours=3)
    wh, rows = 1_000.0, list[dict[str, object]]()
    for minute in range(int((last - first).total_seconds()) // 60):
        at = first + timedelta(minutes=minute)
        rows.append(
            {"device": "garage", "at": at.isoformat(), "power_w": -600.0, "import_wh": wh,
             "export_wh": 0.0}
        )  # fmt: skip
        wh += 5.0 if 60 <= minute < 120 else 10.0
    site.post(rows)
    span = {"since": first.isoformat(), "until": last.isoformat()}
    site.wait(
        lambda: (
            _is_known(client)
            and client.device_history("garage", step="raw", **span).num_rows == len(rows)
        )
    )
    return first, last


def _is_known(client: Client) -> bool:
    """Tell whether the record knows the device already."""
    try:
        return client.device_history("garage", day="2020-01-01").num_rows == 0
    except NotFound:
        return False


def _mend(site: Home, client: Client, first: datetime) -> None:
    """Wrong quarter-hours, a preview, a repair, its undo; nothing published first is lost."""
    hour = first + timedelta(hours=1), first + timedelta(hours=2)
    span = ["--from", hour[0].isoformat(), "--to", hour[1].isoformat()]
    repair = ["energy", "repair", "garage", "--register", "import", *span, "--scale", "2"]
    reason = ["--reason", "CT ratio was wrong", "--author", "api"]

    def told(revision: Literal["latest"] | int = "latest") -> list[int]:
        # The command line starts anew each time; this asks the same.
        table = client.energy("garage", since=span[1], until=span[3], revision=revision)
        return [row["mwh"] for row in tables.rows(table) if row["register"] == "import"]

    wrong = [75_000] * 4
    site.wait(lambda: told() == wrong)
    assert "say --yes" in site.run(*repair, *reason, code=2)
    preview = site.run(*repair, *reason, "--dry-run")
    for part in ("300.0 Wh", "600.0 Wh", "corrected"):
        assert part in preview
    assert max(map(len, preview.splitlines())) <= 80
    assert told() == wrong
    assert "correction 1 is in the ledger" in site.run(*repair, *reason, "--yes")
    assert told() == [150_000] * 4
    assert told(0) == wrong
    shown = site.json("energy", "show", "garage", *span)
    assert [row["mwh"] for row in shown if row["register"] == "import"] == told()
    story = site.run("energy", "show", "garage", *span, "--revision", "all")
    assert story.count("CT ratio was wrong (api)") == 4

    undone = site.json("energy", "undo", "1", "--reason", "it was right", "--yes")
    assert undone["correction"]["applied"] is True
    assert (told(), told(1), told(0)) == (wrong, [150_000] * 4, wrong)
    again = {"since": span[1], "until": span[3], "method": "set", "reason": "one", "key": "k"}
    client.correct_energy("garage", "import", value=1.0, **again)  # type: ignore[arg-type]  # texts all
    with pytest.raises(Conflict):
        client.correct_energy("garage", "import", value=2.0, **again)  # type: ignore[arg-type]  # texts all
    listed = [(c.correction_no, c.method, c.undone_by) for c in client.corrections().corrections]
    assert listed == [(3, "set", None), (2, "undo", None), (1, "scale", 2)]
    assert "undone by 2" in site.run("energy", "corrections", "garage")
    events = site.json("query", "SELECT kind FROM events WHERE kind = 'correction'")
    assert len(events) == 3


def _look_back(site: Home, client: Client, first: datetime, last: datetime) -> None:
    """One past, the same by SQL, as a file, in pandas and in Polars."""
    since, until = first.isoformat(), last.isoformat()
    minutes = int((last - first).total_seconds()) // 60

    frame = client.device_history("garage", since=since, until=until).to_pandas()
    table = polars.from_arrow(client.device_history("garage", since=since, until=until))

    assert isinstance(table, polars.DataFrame)
    assert len(frame) == len(table) == minutes
    assert frame["power_w"].sum() == table["power_w"].sum() == -600.0 * minutes
    assert str(frame["time"].iloc[0]) == f"{first:%Y-%m-%d %H:%M:%S}+00:00"
    export = ["export", "device", "garage", "--from", since, "--to", until, "--out"]
    site.run(*export, "garage.parquet")
    parquet = pyarrow.parquet.read_table(site.directory / "garage.parquet")
    assert parquet.column("power_w").to_pylist() == frame["power_w"].tolist()
    site.run(*export, "garage.csv", "--step", "raw")
    with (site.directory / "garage.csv").open() as file:
        assert sum(float(row["power_w"]) for row in csv.DictReader(file)) == -600.0 * minutes
    (found,) = site.json(
        "query",
        "SELECT device_id, sum(power_w) AS w, min(time) AS since FROM readings "
        "JOIN devices USING (device_no) GROUP BY 1",
    )
    assert (found["device_id"], found["w"]) == ("garage", -600.0 * minutes)
    assert found["since"] == f"{first:%Y-%m-%dT%H:%M:%SZ}"


def _as_published_and_as_known(site: Home, client: Client, enrolled: datetime, secret: str) -> None:
    """Late data changes what is known of a minute, and nothing of what was said in it."""
    # The first minute that both devices were members of from its start.
    minute = enrolled.replace(second=0, microsecond=0) + timedelta(minutes=1)
    time.sleep(max(0.0, (minute - datetime.now(UTC)).total_seconds() + 5.0))
    span = {"since": minute.isoformat(), "until": (minute + timedelta(seconds=60)).isoformat()}
    at = (minute + timedelta(seconds=1)).isoformat()
    site.publish("garage", secret, {"power_w": -500.0, "at": at})

    def known() -> tuple[float | None, float]:
        (row,) = client.resource_history(step="1m", **span).to_pylist()
        return row["power_w"], row["coverage"]

    site.wait(lambda: known() == (-500.0, 0.5))
    early = {"since": span["since"], "until": (minute + timedelta(seconds=4)).isoformat()}
    said = client.resource_history(step="raw", series="published", **early)
    assert said.num_rows >= 3
    assert all(n == 2 for n in said.column("devices").to_pylist())
    computed, ticks = said.column("computed_at_ns"), said.column("at_ns")
    assert all(c.as_py() >= t.as_py() for c, t in zip(computed, ticks, strict=True))
    site.post([{"device": "roof", "at": at, "power_w": 2_500.0}])
    site.wait(lambda: known() == (2_000.0, 1.0))
    assert client.resource_history(step="raw", series="published", **early).equals(said)


def _look_now(site: Home) -> None:
    shown = site.run("devices", "now")
    assert max(map(len, shown.splitlines())) <= 80
    assert {"garage", "roof"} <= set(shown.split())
    told = site.json("devices", "show", "garage")
    assert told["device_id"] == "garage"
    assert told["observed"]["power_w"] == -500.0
    assert [
        d["device_id"] for d in site.json("devices", "now", "--vendor", "sunny")["devices"]
    ] == ["roof"]
    assert "no device" in site.run("devices", "show", "nobody", code=3)
