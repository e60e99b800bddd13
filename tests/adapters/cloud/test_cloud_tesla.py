"""The worked mapping of an API like Tesla's: a document for each site, and a budget."""

import asyncio
from dataclasses import replace
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tests.adapters.cloud.conftest import Example
from tests.adapters.cloud.vendors import TeslaLike, live_status, now
from tests.adapters.cloud.worlds import World, has, play
from tests.adapters.conformance.plant import until

from kapelle.adapters.cloud.settings import CloudSettings
from kapelle.model.enums import AckStatus, Metric

SITES = ("1001", "1002", "1003")


def vendor() -> TeslaLike:
    tesla = TeslaLike()
    tesla.sites = {"1001": live_status(-1_800), "1002": live_status(2_500)}
    return tesla


def test_each_site_is_asked_for_and_one_that_is_unknown_harms_nobody(example: Example) -> None:
    tesla = vendor()

    async def act(here: World) -> None:
        async def read() -> bool:
            return len(await here.latest()) == 2 and await here.up() == {0, 1}

        await until(read)
        values = await here.latest()
        assert has(values, 0, -1_800.0)
        assert has(values, 1, 2_500.0)
        assert abs(values[0][Metric.SOC] - 0.784) < 1e-9
        rounds = tesla.asked["GET /api/1/energy_sites/1003/live_status"]
        await until(lambda: tesla.asked["GET /api/1/energy_sites/1003/live_status"] > rounds + 2)
        assert await here.up() == {0, 1}
        assert here.cloud.counters.outages == 0

    play(tesla, partial(example, "tesla"), SITES, act)


def test_a_cloud_that_repeats_what_it_once_heard_brings_nothing_new(example: Example) -> None:
    tesla = vendor()
    tesla.sites["1001"] = live_status(-1_800, timestamp=now(ago_s=7_200))

    async def act(here: World) -> None:
        async def read() -> bool:
            return len(await here.latest()) == 2

        await until(read)
        rows = await here.rows()
        path = "GET /api/1/energy_sites/1001/live_status"
        rounds = tesla.asked[path]
        await until(lambda: tesla.asked[path] > rounds + 2)
        assert await here.rows() == rows

    play(tesla, partial(example, "tesla"), SITES[:2], act)


def test_an_exhausted_budget_is_left_alone_for_as_long_as_was_asked(example: Example) -> None:
    tesla = vendor()

    async def act(here: World) -> None:
        async def up() -> bool:
            return await here.up() == {0, 1}

        async def nobody() -> bool:
            return not await here.up()

        await until(up)

        async def exhausted(_: Request) -> Response | None:
            return JSONResponse({"error": "rate limited"}, 429, {"retry-after": "3"})

        asked = tesla.asked.total()
        tesla.mood = exhausted
        await until(lambda: tesla.asked.total() > asked)
        first = tesla.asked.total()
        at_s = asyncio.get_running_loop().time()
        # It says nothing of its devices: after a while they count as unreachable.
        await until(nobody)
        await asyncio.sleep(0.5)
        # Those under way as it began may still have come.
        assert tesla.asked.total() <= first + 1
        tesla.mood = None
        await until(up)
        assert asyncio.get_running_loop().time() - at_s >= 2.9

    play(tesla, partial(example, "tesla"), SITES[:2], act)


def test_modes_are_told_and_accepted_is_all_that_is_known(example: Example) -> None:
    tesla = vendor()

    async def act(here: World) -> None:
        async def up() -> bool:
            return 0 in await here.up()

        await until(up)
        for revision, (setpoint_w, mode) in enumerate(
            [(-3_000.0, "backup"), (3_000.0, "autonomous"), (float("nan"), "self_consumption")], 1
        ):
            await here.plant.send(setpoint_w, revision=revision)

            async def told(mode: str = mode) -> bool:
                return tesla.modes.get("1001") == mode

            await until(told)

        async def accepted() -> bool:
            return (3, AckStatus.ACCEPTED) in await here.plant.answers()

        await until(accepted)
        assert {status for _, status in await here.plant.answers()} == {AckStatus.ACCEPTED}
        # There is no mode for standing still.
        await here.plant.send(0.0, revision=4)

        async def rejected() -> bool:
            return (4, AckStatus.REJECTED) in await here.plant.answers()

        await until(rejected)

    play(tesla, partial(example, "tesla"), SITES[:1], act)


def test_a_vendor_slower_than_its_quota_makes_nobody_look_gone(example: Example) -> None:
    """Each answer takes 0.5 s, so 12 sites at two at once take 3 s; `noticed_s` is 1 s."""
    tesla = TeslaLike()
    sites = tuple(str(number) for number in range(2_000, 2_012))
    tesla.sites = {site: live_status(1_000) for site in sites}

    async def slow(request: Request) -> Response | None:
        if "live_status" in request.url.path:
            await asyncio.sleep(0.5)
        return None

    tesla.mood = slow

    def made(base_url: str) -> CloudSettings:
        return replace(example("tesla", base_url), at_once=2, answer_s=5.0)

    async def act(here: World) -> None:
        async def up() -> bool:
            return len(await here.up()) == len(sites)

        await until(up)
        # Who had not been asked yet was not counted on; from now on everybody stays.
        drops, asked = here.cloud.counters.drops.total(), tesla.asked.total()
        await until(lambda: tesla.asked.total() > asked + len(sites))
        assert here.cloud.counters.drops.total() == drops
        assert await up()

    play(tesla, made, sites, act)
