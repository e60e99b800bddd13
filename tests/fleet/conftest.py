"""Makes `fleet_worlds`, the tiny worlds of these tests, importable."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.append(str(Path(__file__).parent))

# A deadline per example measures the machine's other work, not ours; pytest has its own.
settings.register_profile("fleet", deadline=None)
settings.load_profile("fleet")
