"""An owner's refresh token: replaced with every use, never lost, never used twice, never shown."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tests.adapters.cloud.conftest import Example
from tests.adapters.cloud.vendors import TeslaLike, live_status, served
from tests.adapters.cloud.worlds import World, directory, world
from tests.adapters.conformance.plant import until

from kapelle.adapters.cloud.auth import Auth, Fetch
from kapelle.adapters.cloud.endpoint import Cloud
from kapelle.adapters.cloud.settings import CloudAuth
from kapelle.adapters.cloud.tokens import RefreshToken
from kapelle.config import parse
from kapelle.errors import Invalid
from kapelle.runtime.background import background
from kapelle.runtime.clock import SystemClock

Act = Callable[[World], Awaitable[None]]
OWNER = CloudAuth(
    "oauth2", token_url="https://a.example/t", client_id="c", refresh_token="refresh-0"
)


async def with_auth(
    settings: CloudAuth, fetch: Fetch, act: Callable[[Auth], Awaitable[None]]
) -> None:
    refresh = RefreshToken(settings.refresh_token, None)
    async with asyncio.timeout(20), background() as beside:
        await act(
            Auth(
                settings,
                name="vendor",
                fetch=fetch,
                refresh=refresh,
                beside=beside,
                clock=SystemClock(),
            )
        )


def owner() -> TeslaLike:
    tesla = TeslaLike()
    tesla.sites = {"1001": live_status(-1_800)}
    return tesla


def lives(example: Example, tesla: TeslaLike, file: Path, *lives: Act) -> None:
    """Run the plant several times against one vendor."""

    async def run() -> None:
        async with asyncio.timeout(60), served(tesla.app()) as base_url:
            settings = example("tesla", base_url)
            known = directory("tesla", "1001")
            for act in lives:
                cloud = Cloud(settings=settings, directory=known, clock=SystemClock(), file=file)
                async with world(cloud, known) as here:
                    await act(here)

    asyncio.run(run())


async def is_up(here: World) -> None:
    async def up() -> bool:
        return 0 in await here.up()

    await until(up)


def test_a_token_is_renewed_and_its_successor_survives_a_restart(
    example: Example, tmp_path: Path
) -> None:
    tesla, file = owner(), tmp_path / "cloud-tesla.token"
    tesla.lasts_s = 1.0

    async def first(here: World) -> None:
        await is_up(here)
        await until(lambda: tesla.tokens > 2)

    async def second(here: World) -> None:
        renewed = tesla.tokens
        await is_up(here)
        await until(lambda: tesla.tokens > renewed)

    lives(example, tesla, file, first, second)
    assert not tesla.is_locked
    assert file.stat().st_mode & 0o777 == 0o600
    assert RefreshToken("refresh-0", file).newest == tesla.refresh_token
    assert sorted(path.name for path in tmp_path.glob("cloud-*")) == [file.name]


def test_a_renewal_that_nobody_waits_for_any_more_is_heard_out(
    example: Example, tmp_path: Path
) -> None:
    """A request's patience is 1 s. Asking again with the same token would lock the owner out."""
    tesla = owner()

    async def slow(request: Request) -> Response | None:
        if "oauth2" in request.url.path:
            answer = await tesla.refresh(request)
            await asyncio.sleep(1.5)
            return answer
        return None

    tesla.mood = slow
    lives(example, tesla, tmp_path / "t", is_up)
    assert not tesla.is_locked
    assert tesla.asked["POST /oauth2/v3/token"] == tesla.tokens == 1


def test_a_plant_that_stops_hears_a_renewal_out(example: Example, tmp_path: Path) -> None:
    tesla, file = owner(), tmp_path / "t"

    async def slow(request: Request) -> Response | None:
        if "oauth2" in request.url.path:
            answer = await tesla.refresh(request)
            await asyncio.sleep(0.3)
            return answer
        return None

    async def stops(here: World) -> None:
        await until(lambda: tesla.tokens == 1)

    tesla.mood = slow
    lives(example, tesla, file, stops, is_up)
    assert not tesla.is_locked


def test_another_token_from_the_operator_takes_the_place_of_what_was_kept(tmp_path: Path) -> None:
    file = tmp_path / "t"
    first = RefreshToken("given", file)
    assert first.newest == "given"
    first.replace("newer")
    assert RefreshToken("given", file).newest == "newer"
    assert RefreshToken("given again", file).newest == "given again"
    for damage in (b"", b"{", b"[1]", b'{"given": 1}'):
        file.write_bytes(damage)
        assert RefreshToken("given", file).newest == "given"


def test_a_token_the_disk_does_not_take_is_used_all_the_same(
    example: Example, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tesla = owner()
    lives(example, tesla, tmp_path / "nowhere" / "t", is_up)
    assert "was not kept" in caplog.text
    assert "refresh-" not in caplog.text


def test_a_refused_token_is_an_outage_and_said_once_with_its_remedy(
    example: Example, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tesla = owner()
    tesla.refresh_token = "revoked"

    async def act(here: World) -> None:
        await until(lambda: here.cloud.counters.outages == 1)
        asked = tesla.asked["POST /oauth2/v3/token"]
        await until(lambda: tesla.asked["POST /oauth2/v3/token"] > asked + 1)

    lives(example, tesla, tmp_path / "t", act)
    said = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 1
    assert "sign in again" in said[0].getMessage()
    assert "refresh-0" not in caplog.text


@pytest.mark.parametrize(
    "told",
    [
        b"{}",
        b'{"access_token": ""}',
        b'{"access_token": "two\\nlines"}',
        b'{"access_token": 7}',
        b'{"access_token": "t", "expires_in": "nan"}',
        b'{"access_token": "t", "expires_in": "soon"}',
        b'{"access_token": "t", "expires_in": "inf"}',
        b'["t"]',
        b"[" * 5_000,
        b"<html>",
        b"\xff",
    ],
    ids=range(11),
)
def test_what_is_no_token_is_no_answer_and_the_next_may_be_one(told: bytes) -> None:
    answers = [(200, told), (200, b'{"access_token": "good", "expires_in": 3600}')]

    async def fetch(form: dict[str, str], header: str) -> tuple[int, bytes]:
        return answers.pop(0)

    async def act(auth: Auth) -> None:
        with pytest.raises(OSError, match="sent no token"):
            await auth.header()
        assert await auth.header() == await auth.header() == "Bearer good"

    asyncio.run(with_auth(OWNER, fetch, act))


def test_many_who_need_a_token_ask_once() -> None:
    asked = 0

    async def fetch(form: dict[str, str], header: str) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return 200, b'{"access_token": "good"}'

    async def act(auth: Auth) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(auth.header())
        assert asked == 1

    asyncio.run(with_auth(OWNER, fetch, act))


def test_tokens_that_are_never_good_are_not_fetched_in_a_loop(
    example: Example, tmp_path: Path
) -> None:
    tesla = owner()

    async def never(request: Request) -> Response | None:
        return None if "oauth2" in request.url.path else JSONResponse({}, 401)

    async def act(here: World) -> None:
        await until(lambda: here.cloud.counters.outages == 1)
        # Each try takes a second token once, and tries are 0.5 s apart by then.
        assert tesla.asked["GET /api/1/energy_sites/1001/live_status"] <= 12
        assert tesla.tokens <= 12

    tesla.mood = never
    lives(example, tesla, tmp_path / "t", act)
    assert not tesla.is_locked


CLIENT = 'kind = "oauth2"\nclient_id = "c"\ntoken_url = "https://a.example/t"\n'


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ('kind = "bearer"', "needs token"),
        ('kind = "basic"', "needs user"),
        ('kind = "oauth2"', "needs token_url and client_id"),
        (CLIENT, "needs client_secret, refresh_token or both"),
        (CLIENT.replace("https", "http") + 'refresh_token = "file:FILE"', "plain HTTP"),
        (CLIENT + 'refresh_token = "in plain text"', "secret in plain text"),
    ],
    ids=["token", "user", "client", "secret", "plain HTTP", "plain text"],
)
def test_what_is_missing_is_said(auth: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("refresh-0\n")
    text = """
[[clouds.cloud]]
name = "vendor"
base_url = "https://api.example"
polls = [{ path = "/all", shape = "s" }]
shapes = [{ name = "s", id = "id", values = [{ metric = "soc", paths = ["p"], unit = "percent" }] }]
[clouds.cloud.auth]
"""
    with pytest.raises(Invalid) as caught:
        parse(text + auth.replace("FILE", str(tmp_path / "secret")), {})
    assert said in "\n".join(map(str, caught.value.problems))


@pytest.mark.parametrize(
    ("change", "form", "has_header"),
    [
        ({}, {"grant_type", "refresh_token", "client_id"}, False),
        ({"client_secret": "s"}, {"grant_type", "refresh_token"}, True),
        (
            {"client_secret": "s", "client_in": "form", "audience": "a", "scope": "b"},
            {"grant_type", "refresh_token", "client_id", "client_secret", "audience", "scope"},
            False,
        ),
        (
            {"client_secret": "s", "client_in": "form", "refresh_token": ""},
            {"grant_type", "client_id", "client_secret"},
            False,
        ),
    ],
)
def test_who_asks_stands_where_the_vendor_wants_it(
    change: dict[str, str], form: set[str], has_header: bool
) -> None:
    asked: list[tuple[set[str], bool]] = []

    async def fetch(form: dict[str, str], header: str) -> tuple[int, bytes]:
        asked.append((set(form), bool(header)))
        return 200, b'{"access_token": "t"}'

    async def act(auth: Auth) -> None:
        await auth.header()

    asyncio.run(with_auth(replace(OWNER, **change), fetch, act))  # type: ignore[arg-type]  # test data
    assert asked == [(form, has_header)]
