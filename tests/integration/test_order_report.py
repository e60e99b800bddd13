"""An order as an operator sees it: watched while it runs, judged when it is over, told for good."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.conftest import SHORT_LEASES, Peers, Site

from kapelle.sim.devices import FleetPlan

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

DEVICES = 80


def test_an_order_is_watched_judged_and_told_when_the_plant_is_gone(
    tmp_path: Path, start_peers: Callable[..., Peers]
) -> None:
    site = Site(
        tmp_path,
        plant={"data_dir": "data", "partitions": 2},
        history={"flush_s": 2},
        **SHORT_LEASES,
    )
    plan = FleetPlan(devices=DEVICES, telemetry_period_s=1.0, revert_s=30.0)
    secrets = site.enrol(plan)
    with site.plant(DEVICES):
        peers = start_peers(site.mqtt, plan, secrets, keep_alive_s=10, back_off_s_max=2.0)
        peers.until(lambda s: s["connected"] == DEVICES, 60)
        peers.newest(4.0)
        # A tolerance that holds on a machine that has other things to do as well.
        site.json("order", "create", "--kw", "60", "--for", "25s", "--tolerance", "0.2")
        site.json("order", "create", "--kw", "1", "--for", "60s", "--at", "+40s")
        told = site.run("order", "watch", "1")
        assert "verified" in told
        assert "order 1 · delivered" in told
        over = site.json("order", "report", "1", "--url", f"http://127.0.0.1:{site.api}")
        site.json("order", "cancel", "2")
        ended = site.ask("order", "watch", "2")
        assert ended.returncode == 1, "what was cancelled was not delivered"
        assert "order 2 · cancelled" in ended.stdout
    kept = site.json("order", "report", "1")
    for part in ("judged", "energy", "plans", "points", "worst"):
        assert kept[part] == over[part], "the files say what the plant said"
    assert kept["is_complete"]
    assert kept["judged"]["verdict"] == "delivered"
    funnel = {stage["stage"]: stage["devices"] for stage in kept["funnel"]}
    assert funnel["planned"] >= funnel["sent"] > 0
    assert funnel["verified"] > 0
    site.run("order", "report", "1", "--html", "order.html")
    assert "<svg" in (tmp_path / "order.html").read_text()
    elsewhere = site.run("order", "report", "1", "--directory", "data/history", "--json")
    assert json.loads(elsewhere)["judged"] == kept["judged"]
    assert "kapelle order ls" in site.run("order", "report", "9", code=3)
