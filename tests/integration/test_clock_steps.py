"""A host's clock is set by an hour, forth and back, while devices follow an order (R-27).

The plant is a real process to which libfaketime shows another wall clock; its devices are real MQTT
clients in a process of their own, and keep the true time.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.conftest import Document, Peers, Site

from kapelle.sim.devices import FleetPlan

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not LIBRARIES, reason="needs libfaketime: apt-get install libfaketime"),
]

DEVICES = 12
HOUR_S = 3600
REVERT_S = 40.0
"""Devices that hear nothing for so long go back to their own schedule; they are told again after
half of it."""


class SetHost(Site):
    """A host whose clock is set."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._wall = directory / "wall"
        self.set_by(0)
        self.environment |= {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._wall),
            "FAKETIME_NO_CACHE": "1",
            # Steps are of the wall clock alone; files keep their true times.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Else threads wait for each other by a clock that is not the one they set the time by.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",
        }

    def set_by(self, seconds: int) -> None:
        """Let the wall clock be off by so much from now on."""
        draft = self._wall.with_suffix(".new")
        draft.write_text(f"{seconds:+d}\n")
        os.replace(draft, self._wall)

    def wait_told(self, code: str) -> None:
        """Wait until the plant says that its host's clock was set."""
        self.wait(lambda: code in {one["code"] for one in self.json("status")["reasons"]})


def hold(peers: Peers) -> Document:
    """See that every device goes on following until all were told again, and took it."""
    said = list[Document]()

    def is_renewed(truth: Document) -> bool:
        said.append(truth)
        return bool(truth["effects"] >= said[0]["effects"] + DEVICES)

    last = peers.until(is_renewed, 90)
    assert {truth["following"] for truth in said} == {DEVICES}
    return last


def test_an_hour_forth_and_back_neither_expires_nor_revives_a_command(
    tmp_path: Path, start_peers: Callable[..., Peers]
) -> None:
    host = SetHost(tmp_path)
    plan = FleetPlan(
        devices=DEVICES, telemetry_period_s=1.0, revert_s=REVERT_S, mix={"battery": 1.0}
    )
    secrets = host.enrol(plan)
    with host.plant(DEVICES):
        peers = start_peers(host.mqtt, plan, secrets, keep_alive_s=10, back_off_s_max=2.0)
        peers.until(lambda s: s["connected"] == DEVICES, 60)
        peers.newest(4.0)
        order = str(host.json("order", "create", "--kw", "20", "--for", "20m")["order_no"])
        peers.until(lambda s: s["following"] == DEVICES, 60)
        host.set_by(HOUR_S)
        host.wait_told("clock-set-forward")
        assert hold(peers)["reverted"] == 0
    # Killed, set back by two hours, and started again.
    host.set_by(-HOUR_S)
    with host.plant(DEVICES):
        host.wait_told("clock-set-back")
        peers.until(lambda s: s["following"] == DEVICES, 60)
        hold(peers)
        assert host.json("order", "show", order)["status"] == "active"
        host.run("order", "cancel", order)
        peers.until(lambda s: s["following"] == 0, 60)
        # Whatever the clock says now: what is over stays over.
        host.set_by(HOUR_S)
        host.wait_told("clock-set-forward")
        said = peers.during(10.0)
        assert {truth["following"] for truth in said} == {0}
    last = said[-1]
    assert last["expired"] == 0, "no command came later than it was good for"
    assert (last["double_effects"], last["stale_effects"], last["unreadable"]) == (0, 0, 0)
    assert "the clock of this host was set" in (tmp_path / "log").read_text()
