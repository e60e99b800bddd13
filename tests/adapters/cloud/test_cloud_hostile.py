"""Clouds that misbehave, and those who pretend to be one."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from tests.adapters.cloud.conftest import Example
from tests.adapters.cloud.vendors import (
    WEBHOOK_SECRET,
    EnodeLike,
    TeslaLike,
    battery,
    deliver,
    served,
    signature,
)
from tests.adapters.cloud.worlds import World, directory, play, world
from tests.adapters.conformance.plant import until

from kapelle import adapters
from kapelle.adapters.cloud.counters import Counters
from kapelle.adapters.cloud.endpoint import Cloud
from kapelle.adapters.cloud.requests import opened, retry_after_s
from kapelle.adapters.cloud.settings import CloudAuth, CloudSettings
from kapelle.config import as_toml, parse
from kapelle.errors import Invalid
from kapelle.runtime.clock import SystemClock

PATIENCE_S = 2.0
PACKED = gzip.compress(b"0" * 10_000_000, mtime=0)


async def elsewhere(request: Request) -> Response:
    return RedirectResponse(f"http://127.0.0.1:1/{request.url.path}", 307)


async def page(_: Request) -> Response:
    return Response("<html>Please sign in</html>", media_type="text/html")


async def endless(_: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        # It would go on if nobody hung up.
        for _ in range(500):
            yield b"[" * 65_536
            await asyncio.sleep(0)

    return StreamingResponse(parts(), media_type="application/json")


async def dripping(_: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b" "
            await asyncio.sleep(0.2)

    return StreamingResponse(parts(), media_type="application/json")


async def bomb(_: Request) -> Response:
    return Response(PACKED, headers={"content-encoding": "gzip"}, media_type="application/json")


async def another(_: Request) -> Response:
    return JSONResponse({"data": {"of": "another shape"}, "pagination": 7} | {"items": []})


@pytest.mark.parametrize("mood", [endless, dripping, bomb], ids=lambda mood: mood.__name__)
def test_an_answer_is_bounded_in_size_and_time(
    example: Example, mood: Callable[[Request], Awaitable[Response]]
) -> None:
    async def run() -> None:
        tesla = TeslaLike()
        tesla.mood = mood
        async with asyncio.timeout(20), served(tesla.app()) as base_url:
            settings = replace(example("tesla", base_url), auth=CloudAuth())
            async with opened(settings, Counters(), SystemClock()) as requests:
                with pytest.raises(OSError):
                    await requests.poll("/anything")

    asyncio.run(run())


@pytest.mark.parametrize("mood", [elsewhere, page], ids=lambda mood: mood.__name__)
def test_what_is_no_answer_is_an_outage_and_ends_with_it(
    example: Example, mood: Callable[[Request], Awaitable[Response]]
) -> None:
    enode = EnodeLike()
    enode.assets["batteries"]["bat-1"] = battery("bat-1", 1.0)

    async def act(here: World) -> None:
        async def up() -> bool:
            return bool(await here.up())

        async def down() -> bool:
            return not await here.up()

        await until(up)
        enode.mood = mood
        await until(down)
        enode.mood = None
        await until(up)

    play(enode, partial(example, "enode"), ("bat-1",), act)


def test_a_list_of_another_shape_is_said_and_proves_nothing(example: Example) -> None:
    enode = EnodeLike()

    async def only_lists(request: Request) -> Response | None:
        return None if "oauth2" in request.url.path else await another(request)

    enode.mood = only_lists

    async def act(here: World) -> None:
        async def said() -> bool:
            return bool(await here.plant.reasons())

        await until(said)
        await until(lambda: here.cloud.counters.outages == 1)
        assert not await here.up()

    play(enode, partial(example, "enode"), ("bat-1",), act)


def test_wrong_credentials_are_an_outage_and_are_not_tried_in_a_loop(example: Example) -> None:
    enode = EnodeLike()

    def made(base_url: str) -> CloudSettings:
        cloud = example("enode", base_url)
        return replace(cloud, auth=replace(cloud.auth, client_secret="not the secret"))

    async def act(here: World) -> None:
        await until(lambda: here.cloud.counters.outages == 1)
        assert "answered 401" in here.cloud.outage
        assert enode.asked["GET /batteries"] == 0
        assert enode.asked["POST /oauth2/token"] < 20

    play(enode, made, ("bat-1",), act)


def test_the_quota_is_kept_and_makes_nobody_look_gone(example: Example) -> None:
    """Three lists at 1.5 requests a second: each comes every 2 s, and was to come every 0.25 s."""
    enode = EnodeLike()
    enode.assets["batteries"]["bat-1"] = battery("bat-1", 1.0)

    def made(base_url: str) -> CloudSettings:
        return replace(example("enode", base_url), requests_per_s=1.5, requests_burst=2)

    async def act(here: World) -> None:
        await asyncio.sleep(2 * PATIENCE_S)
        asked = sum(count for name, count in enode.asked.items() if name.startswith("GET"))
        assert 5 <= asked <= 2 + 1.5 * (2 * PATIENCE_S + 1)
        assert here.cloud.counters.outages == 0
        assert not here.cloud.counters.drops
        assert await here.up() == {0}

    play(enode, made, ("bat-1",), act)


def test_pages_without_end_are_left_at_a_bound_and_said(example: Example) -> None:
    enode = EnodeLike()

    async def more(request: Request) -> Response | None:
        if "oauth2" in request.url.path:
            return None
        after = request.query_params.get("after", "0")
        found = [battery(f"x-{after}-{n}", 1.0) for n in range(200)]
        after = str(int(after) + 1)
        return JSONResponse({"data": found, "pagination": {"after": after}})

    enode.mood = more

    def made(base_url: str) -> CloudSettings:
        cloud = example("enode", base_url)
        return replace(cloud, polls=(replace(cloud.polls[0], every_s=60),), pages_max=8)

    async def act(here: World) -> None:
        async def said() -> bool:
            return any(one.startswith("too-many: ") for one in await here.plant.reasons())

        await until(said)
        assert enode.asked["GET /batteries"] == 8
        # Whoever is not enrolled is said one by one only so often, and counted.
        assert here.cloud.counters.unreadable > 1_600
        strange = [one for one in await here.plant.reasons() if one.startswith("device: ")]
        assert len(strange) == 1_000

    play(enode, made, ("bat-1",), act)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nobody_leads_the_plant_to_another_address(example: Example, method: str) -> None:
    """A vendor, or who has taken its place, points at a machine inside: it is not asked."""
    enode, inside = EnodeLike(), EnodeLike()
    cursors: list[str] = []

    async def run() -> None:
        async with (
            asyncio.timeout(60),
            served(inside.app()) as secret_url,
            served(enode.app()) as base_url,
        ):

            async def led(request: Request) -> Response | None:
                if request.method == method:
                    return RedirectResponse(f"{secret_url}/latest/meta-data", 307)
                return None

            async def lured(request: Request) -> Response | None:
                if request.method == "POST":
                    return None
                cursors.append(request.query_params.get("after", ""))
                return JSONResponse({"data": [], "pagination": {"after": secret_url}})

            enode.mood = led
            known = directory("enode", "bat-1")
            settings = example("enode", base_url)
            cloud = Cloud(settings=settings, directory=known, clock=SystemClock())
            async with world(cloud, known):
                await until(lambda: cloud.counters.outages == 1)
                enode.mood = lured
                await until(lambda: secret_url in cursors)
            assert not inside.asked

    asyncio.run(run())


def test_a_cloud_that_is_busy_for_good_is_asked_ever_more_seldom(example: Example) -> None:
    tesla = TeslaLike()

    async def busy(request: Request) -> Response | None:
        return None if "oauth2" in request.url.path else JSONResponse({}, 429)

    tesla.mood = busy

    def made(base_url: str) -> CloudSettings:
        return replace(example("tesla", base_url), retry_s_max=60.0)

    async def act(here: World) -> None:
        await until(lambda: here.cloud.counters.outages == 1)
        asked = here.cloud.counters.requests
        await asyncio.sleep(PATIENCE_S)
        # Pauses of 0.5 to 1 s, then twice as long each time: without them it would be hundreds.
        assert here.cloud.counters.requests <= asked + 2 <= 6
        assert here.cloud.counters.outages == 1

    play(tesla, made, ("1001", "1002", "1003"), act)


def test_a_path_that_leads_nowhere_is_said_once(example: Example) -> None:
    enode = EnodeLike()
    enode.assets["batteries"]["bat-1"] = battery("bat-1", None)

    def made(base_url: str) -> CloudSettings:
        cloud = example("enode", base_url)
        shape = cloud.shapes[0]
        power, soc = shape.values
        wrong = replace(shape, values=(power, replace(soc, paths=("chargeState.level",))))
        return replace(cloud, shapes=(wrong, *cloud.shapes[1:]))

    async def act(here: World) -> None:
        await until(lambda: enode.asked["GET /batteries"] > 2)
        # Null is there: only what is nowhere is said.
        said = [one for one in await here.plant.reasons() if one.startswith("path: ")]
        (one,) = said
        assert one.startswith("path: chargeState.level: stands in no document")
        assert one.endswith("shape battery; mend it in the mapping")

    play(enode, made, ("bat-1",), act)


def test_deliveries_are_bounded_in_size_time_and_number(example: Example) -> None:
    async def run() -> None:
        settings = example("enode", "http://127.0.0.1:9")
        webhook = replace(settings.webhook, answer_s=0.5, at_once_max=2)
        known = directory("enode", "bat-1")
        cloud = Cloud(
            settings=replace(settings, webhook=webhook), directory=known, clock=SystemClock()
        )
        path = cloud.webhook_path
        assert (await deliver(cloud, [])).status_code == 503
        async with (
            world(cloud, known),
            served(cloud) as address,
            httpx.AsyncClient(base_url=address) as client,
        ):

            async def never() -> AsyncIterator[bytes]:
                yield b"["
                await asyncio.sleep(1)

            assert (await client.get(path)).status_code == 405
            big = b" " * (webhook.body_bytes_max + 1)
            assert (await client.post(path, content=big)).status_code == 413
            assert (await client.post(path, content=b"[]")).status_code == 401
            codes: list[int] = []

            async def slow() -> None:
                codes.append((await client.post(path, content=never())).status_code)

            async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
                for _ in range(4):
                    tasks.create_task(slow())
            assert codes == [503] * 4
            assert cloud.counters.connects_refused["queue-full"] == 2
            # And it is still there for the vendor.
            body = json.dumps([]).encode()
            signed = {"x-enode-signature": signature(body, WEBHOOK_SECRET)}
            answered = await client.post(path, content=body, headers=signed)
            assert answered.status_code == 200

    asyncio.run(run())


def test_no_secret_is_written_down(example: Example, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    enode = EnodeLike()

    async def act(here: World) -> None:
        await until(lambda: enode.asked["GET /batteries"] > 0)
        enode.mood = elsewhere
        await until(lambda: here.cloud.counters.outages == 1)
        await deliver(here.cloud, [], secret="a secret nobody gave to Enode")
        shown = repr(here.cloud._settings) + caplog.text
        for secret in (WEBHOOK_SECRET, here.cloud._settings.auth.client_secret, "token-1"):
            assert secret not in shown

    play(enode, partial(example, "enode"), ("bat-1",), act)


@pytest.mark.parametrize(
    ("told", "pause_s"),
    [
        ("", 0),
        ("0", 0),
        ("120", 120),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 110),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("999999999999999999", 86_400),
        ("soon", 0),
        ("-5", 0),
        ("1e9", 0),
        ("Fri, 99 Foo 9999", 0),
        ("٣", 0),
    ],
)
def test_retry_after(told: str, pause_s: float) -> None:
    assert retry_after_s(told, 10 * 10**9) == pause_s


CLOUD = """
[[clouds.cloud]]
name = "vendor"
base_url = "https://api.example"
polls = [{ path = "/all", shape = "s" }]
[[clouds.cloud.shapes]]
name = "s"
id = "id"
values = [{ metric = "power_w", paths = ["p"], unit = "W", positive = "export" }]
"""


def problems(text: str) -> str:
    with pytest.raises(Invalid) as caught:
        parse(text, {})
    return "\n".join(map(str, caught.value.problems))


@pytest.mark.parametrize(
    "table",
    [
        '[clouds.cloud.auth]\nkind = "bearer"\ntoken = "in plain text"',
        '[clouds.cloud.auth]\nkind = "basic"\nuser = "u"\npassword = "in plain text"',
        '[clouds.cloud.webhook]\nsecret = "in plain text, and long"',
    ],
)
def test_secrets_in_tables_of_rows_are_refused_in_plain_text(table: str) -> None:
    said = problems(CLOUD + table)
    assert "secret in plain text" in said
    assert "file:" in said
    assert "in plain text," not in said.replace("is a secret in plain text", "")


def test_secrets_from_files_are_hidden_where_settings_are_shown(tmp_path: object) -> None:
    file = f"{tmp_path}/token"
    with open(file, "w") as out:
        out.write("very secret\n")
    loaded = parse(CLOUD + f'[clouds.cloud.auth]\nkind = "bearer"\ntoken = "file:{file}"', {})
    assert loaded.config.clouds is not None
    assert loaded.config.clouds.cloud[0].auth.token == "very secret"
    shown = as_toml(loaded)
    assert "very secret" not in shown
    assert "(hidden)" in shown


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("https://api.example", "http://api.example"), "plain HTTP"),
        (("https://api.example", "file:///etc/passwd"), "not the address"),
        (("https://api.example", "https://"), "not the address"),
        (('"vendor"', '"mqtt"'), "another adapter"),
        (('"vendor"', '"Ven dor"'), "name is"),
        ((', positive = "export"', ""), "positive"),
        (('"W"', '"kWh"'), "unit of power_w"),
        (('"power_w"', '"mode"'), "metric is one of"),
        (('shape = "s"', 'shape = "t"'), "no shape is called t"),
        (('id = "id"\n', ""), "shape s lacks `id`"),
        (("values = [", "value = ["), "[clouds.cloud.1.shapes.1] lacks values; it has no default"),
    ],
)
def test_what_contradicts_itself_is_said(change: tuple[str, str], said: str) -> None:
    assert said in problems(CLOUD.replace(*change))
    parse(CLOUD, {})


def test_a_delivery_that_says_nothing_of_its_time_needs_a_signed_one(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret of some length\n")
    untimed = (
        CLOUD
        + f"""
[clouds.cloud.webhook]
secret = "file:{tmp_path}/secret"
events = [{{ name = "told", item = "device", shape = "s" }}]
"""
    )
    assert "an old delivery of told would look new" in problems(untimed)
    assert parse(untimed + 'timestamp_header = "x-at"\n', {}).config.clouds


def test_no_cloud_bears_the_name_of_another_adapter() -> None:
    folders = {path.parent.name for path in Path(adapters.__file__).parent.glob("*/__init__.py")}
    assert len(folders) > 7
    for name in sorted(folders - {"cloud"}):
        assert "another adapter" in problems(CLOUD.replace('"vendor"', f'"{name}"'))
