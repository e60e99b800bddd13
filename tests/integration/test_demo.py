"""The demo, small: it keeps its promise, and Ctrl-C leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kapelle.sim.protocols import PROTOCOLS

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(240)]

DEMO = [sys.executable, "-m", "kapelle.cli", "demo", "--json"]


def children(parent: int) -> list[int]:
    """Return the processes a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def test_a_small_demo_delivers_what_it_promised(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--devices", "100", "--seconds", "30", "--seed", "3"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    said = json.loads(done.stdout)
    assert done.returncode == 0, (said, done.stderr.decode()[-2000:])
    assert said["passed"]
    assert abs(said["delivered_mean"] - 1) <= said["tolerance"]
    assert said["double_effects"] == 0
    assert said["readings"]["accepted"] >= 0.9 * said["readings"]["sent"] > 500
    assert said["readings"]["quarantined"] == 0
    assert {fault["text"].split()[0] for fault in said["faults"]} == {"10", "vendor"}
    assert said["journal_bytes"] > 10_000
    assert list(tmp_path.iterdir()) == []


def test_one_order_moves_devices_of_every_protocol(tmp_path: Path) -> None:
    shares = dict.fromkeys(PROTOCOLS, 0.1)
    shares["mqtt"] = 1.0 - 0.1 * (len(PROTOCOLS) - 1)
    mix = ",".join(f"{name}={share:.1f}" for name, share in shares.items())
    # Of this fleet's chargers nearly all have a vehicle: whoever has none cannot move.
    done = subprocess.run(
        [*DEMO, "--devices", "120", "--seconds", "45", "--seed", "2", "--mix", mix],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        timeout=180,
        check=False,
    )
    said = json.loads(done.stdout)
    told = said, done.stderr.decode()[-2000:]
    assert {name: part["devices"] for name, part in said["protocols"].items()} == {
        name: round(120 * share) for name, share in shares.items()
    }, told
    assert all(part["moved"] for part in said["protocols"].values()), told
    assert said["passed"], told
    assert done.returncode == 0, told
    assert said["double_effects"] == 0
    assert said["readings"]["quarantined"] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [*DEMO, "--devices", "50", "--seconds", "60"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "live" in line and "actual" in line:
                break
        peers = children(process.pid)
        assert peers, "the devices run in a process of their own"
        assert any(tmp_path.iterdir())
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130, err
        assert out == ""
        assert "Traceback" not in err
        assert not [pid for pid in peers if Path(f"/proc/{pid}").exists()]
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()
