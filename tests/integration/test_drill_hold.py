"""The hold, drilled as an operator does it: a plant of its own, and four ways to stop it."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]


def test_the_hold_is_drilled_in_four_ways() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kapelle.cli", "drill", "hold", "--devices", "60", "--json"],
        capture_output=True, text=True, timeout=390, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert [each for each in told["criteria"] if not each["passed"]] == []
    assert (done.returncode, len(told["criteria"])) == (0, 12)
