"""What every test shares."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of measured data and golden cases that stands beside a full checkout."""
    if not (SHARED / "goldens").is_dir():
        pytest.skip("needs ../shared beside the checkout: measured data and golden cases")
    return SHARED
