"""What every test shares."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# Continuous integration judges a change, not the luck of a draw; everyone else draws anew.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of measured data and golden cases that stands beside a full checkout."""
    if not (SHARED / "goldens").is_dir():
        pytest.skip("needs ../shared beside the checkout: measured data and golden cases")
    return SHARED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is installed (continuous integration), a skipped test is a failed one."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("KAPELLE_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped although KAPELLE_NO_SKIPS is set: {report.longrepr}"
    return report
