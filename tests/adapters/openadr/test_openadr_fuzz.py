"""The VTN against its own official document: `schemathesis` in an environment of its own."""

import asyncio
import re
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.adapters.conformance.plant import DEVICE, SECRET, enrolled, opened
from tests.adapters.foreign import python_environment
from tests.adapters.openadr.trial import report

from kapelle.adapters.openadr.route import BASE
from kapelle.adapters.openadr.settings import OpenAdrSettings
from kapelle.adapters.openadr.vtn import Vtn
from kapelle.runtime.clock import SystemClock

_PINNED = ("schemathesis==4.32.5",)
_BUSINESS_SECRET = "a secret of the business party"
_HERE = Path(__file__).parent
_LEFT_OUT = ("positive_data_acceptance", "ignored_auth")
"""The document cannot say that a program must exist, nor which role may write what; and its token
routes carry a token for no reason. Both are tried in test_openadr_vtn.py."""


def _settings() -> OpenAdrSettings:
    return OpenAdrSettings(
        port=0, business_secret=_BUSINESS_SECRET, requests_per_s=1e6, requests_burst=1_000_000
    )


async def _made(client: httpx.AsyncClient, is_business: bool) -> list[str]:
    """Make one object of each kind this role may write; return ids to try."""
    watched = {"objects": ["EVENT"], "operations": ["CREATE"], "callbackUrl": "https://a.test/"}
    subscription = {"clientName": "x", "objectOperations": [watched]}
    made = {"programID": "kapelle", "eventID": "kapelle-telemetry"}
    answer = await client.post("/subscriptions", json=subscription)
    made["subscriptionID"] = answer.json()["id"]
    if is_business:
        answer = await client.post("/programs", json={"programName": "prices"})
        made["programID"] = answer.json()["id"]
        answer = await client.post("/events", json={"programID": made["programID"]})
        made["eventID"] = answer.json()["id"]
    else:
        made["reportID"] = (await client.post("/reports", json=report(-1.0))).json()["id"]
    for name, kind in (("venID", "vens"), ("resourceID", "resources")):
        made[name] = (await client.get(f"/{kind}")).json()[0]["id"]
    return [f"{name}={value}" for name, value in made.items()]


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("client_id", ["business", DEVICE])
def test_every_answer_is_one_the_document_knows(
    shared: Path, tmp_path: Path, client_id: str
) -> None:
    python = python_environment("schemathesis", _PINNED)
    source = shared / "specs" / "openadr-3.1.0" / "openadr3.yaml"
    target = tmp_path / "openadr3.yaml"
    is_business = client_id == "business"

    async def run() -> subprocess.CompletedProcess[str]:
        directory = enrolled("openadr")
        clock = SystemClock()
        file = tmp_path / "openadr.db"
        vtn = Vtn(settings=_settings(), directory=directory, clock=clock, file=file)
        async with opened(vtn, directory):
            base = f"http://127.0.0.1:{vtn.port}{BASE}"
            async with httpx.AsyncClient(base_url=base) as client:
                form = {
                    "grant_type": "client_credentials",
                    "client_id": client_id,
                    "client_secret": _BUSINESS_SECRET if is_business else SECRET,
                }
                token = (await client.post("/auth/token", data=form)).json()["access_token"]
                client.headers["Authorization"] = f"Bearer {token}"
                ids = await _made(client, is_business)
            prepare = [str(python), str(_HERE / "document.py"), str(source), str(target), base]
            await asyncio.to_thread(subprocess.run, [*prepare, *ids], check=True, timeout=60)
            command = [
                str(python.with_name("st")),
                *("run", str(target), "--url", base, "--header", f"Authorization: Bearer {token}"),
                *("--checks", "all", "--exclude-checks", ",".join(_LEFT_OUT)),
                *("--phases", "examples,fuzzing", "--max-examples", "2"),
                *("--continue-on-failure", "--warnings", "off", "--seed", "31"),
                *("--exclude-tag", "MQTT_notifier", "--no-color"),
            ]
            return await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=150, cwd=tmp_path
            )

    done = asyncio.run(run())
    assert done.returncode == 0, done.stdout[-8_000:]
    (tried,) = re.findall(r"([\d,]+) generated", done.stdout)
    assert int(tried.replace(",", "")) > 50
