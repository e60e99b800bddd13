"""The worked mappings, pointed at the servers of these tests."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.adapters.cloud.vendors import CLIENT_ID, CLIENT_SECRET, WEBHOOK_SECRET

from kapelle.adapters.cloud.settings import CloudSettings
from kapelle.config import parse

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
SECRETS = {
    "enode-client": CLIENT_SECRET,
    "enode-webhook": WEBHOOK_SECRET,
    "tesla": "refresh-0",
}

Example = Callable[[str, str], CloudSettings]


@pytest.fixture
def example(tmp_path: Path) -> Example:
    """Return a worked mapping as an operator writes it, but for addresses, secrets and haste."""
    for name, secret in SECRETS.items():
        (tmp_path / name).write_text(secret + "\n")

    def made(name: str, base_url: str) -> CloudSettings:
        text = (EXAMPLES / f"{name}.toml").read_text()
        text = text.replace("file:/run/secrets/", f"file:{tmp_path}/")
        text = text.replace("your client id", CLIENT_ID)
        text = re.sub(r'token_url = "https://[^/]*', f'token_url = "{base_url}', text)
        text = re.sub(r'base_url = "[^"]*"', f'base_url = "{base_url}"', text)
        text = re.sub(r"every_s = \d+", "every_s = 0.25", text)
        clouds = parse(text, {}).config.clouds
        assert clouds is not None
        (cloud,) = clouds.cloud
        return replace(cloud, requests_per_s=200.0, noticed_s=1.0, answer_s=1.0, retry_s_max=1.0)

    return made
