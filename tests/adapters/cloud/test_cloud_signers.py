"""Deliveries signed and sent by libraries nobody here wrote: Standard Webhooks', and Octokit's."""

import asyncio
import base64
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.adapters.cloud.conftest import Example
from tests.adapters.cloud.vendors import EnodeLike, battery, served
from tests.adapters.cloud.worlds import World, directory, has, world
from tests.adapters.foreign import node_environment

from kapelle.adapters.cloud.endpoint import Cloud
from kapelle.adapters.cloud.settings import CloudWebhook
from kapelle.runtime.clock import SystemClock

FOLDER = Path(__file__).parents[2] / "peers" / "clouds"
KEY = "whsec_" + base64.b64encode(bytes(range(24))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 25))).decode()
STANDARD = {
    "secret": KEY,
    "key_form": "base64",
    "algorithm": "sha256",
    "signature_header": "webhook-signature",
    "signature_prefix": "v1,",
    "encoding": "base64",
    "id_header": "webhook-id",
    "timestamp_header": "webhook-timestamp",
}
PLAIN = {
    "secret": KEY,
    "algorithm": "sha256",
    "signature_header": "x-hub-signature-256",
    "signature_prefix": "sha256=",
}

pytestmark = pytest.mark.integration


async def deliver(url: str, scheme: str, secret: str, body: bytes, age_s: float = 0.0) -> int:
    """Have the library sign and deliver; returns the status of our answer."""
    modules = await asyncio.to_thread(node_environment, FOLDER)
    process = await asyncio.create_subprocess_exec(
        "node",
        str(FOLDER / "deliver.js"),
        url,
        scheme,
        secret,
        str(age_s),
        env=os.environ | {"NODE_PATH": str(modules)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate(body)
    return int(said)


@pytest.mark.parametrize(("scheme", "how"), [("standard", STANDARD), ("hub", PLAIN)])
def test_what_the_library_signs_is_taken_and_nothing_else(
    example: Example, scheme: str, how: dict[str, str]
) -> None:
    async def run() -> None:
        settings = example("enode", "http://127.0.0.1:9")
        webhook: CloudWebhook = replace(settings.webhook, **how)  # type: ignore[arg-type]  # test data
        settings = replace(settings, webhook=webhook, polls=())
        known = directory("enode", "bat-1")
        cloud = Cloud(settings=settings, directory=known, clock=SystemClock())
        body = json.dumps([EnodeLike().event("battery", battery("bat-1", 2.0))]).encode()

        async def stored(here: World) -> bool:
            return has(await here.latest(), 0, -2_000.0)

        async with world(cloud, known) as here, served(cloud) as address:
            url = address + cloud.webhook_path
            assert await deliver(url, scheme, OTHER, body) == 401
            assert not await stored(here)
            assert await deliver(url, scheme, KEY, body) == 200
            assert await stored(here)
            if scheme == "standard":
                assert await deliver(url, scheme, KEY, body, 900) == 401
                assert await deliver(url, scheme, KEY, body, -900) == 401
                assert await deliver(url, scheme, KEY, body, 60) == 200
            assert await deliver(url, scheme, KEY, '[{"event": "ü"}]'.encode()) == 200

    asyncio.run(run())
