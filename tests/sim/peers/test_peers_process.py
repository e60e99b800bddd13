"""The process of simulated devices says what it has to say on stdout, and else nothing."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np

from kapelle.sim.devices import FleetPlan, make_fleet
from kapelle.sim.peers.messages import Start
from kapelle.sim.ports import free_port


def test_devices_whose_plant_is_gone_leave_the_terminal_alone(tmp_path: Path) -> None:
    """The demo shares stderr with them; edge agents that lose their plant would write over it."""
    plan, seed = FleetPlan(devices=20, telemetry_period_s=1.0), 1
    enrolled = make_fleet(plan, np.random.default_rng(seed)).enrolled
    start = Start(
        host="127.0.0.1",
        port=free_port(),
        plan=plan,
        seed=seed,
        secrets=dict.fromkeys((name.decode() for name in enrolled.device_id), "secret"),
        mix={"mqtt": 0.9, "sunspec": 0.1},
        directory=str(tmp_path),
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "kapelle.sim.peers.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(start) + b"\n")
    process.stdin.flush()
    # Ready, and two truths later every agent has called once at least.
    said = [msgspec.json.decode(process.stdout.readline())["event"] for _ in range(3)]
    assert said == ["ready", "truth", "truth"]
    _, complained = process.communicate(timeout=20)
    assert complained.decode() == ""
    assert process.returncode == 0
