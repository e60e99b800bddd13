"""The worked mapping of Enode against a server of its published shapes."""

import asyncio
import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tests.adapters.cloud.conftest import Example
from tests.adapters.cloud.vendors import EnodeLike, battery, charger, deliver, now, silence
from tests.adapters.cloud.worlds import World, directory, has, play, world
from tests.adapters.conformance.plant import until

from kapelle.adapters.cloud.endpoint import Cloud
from kapelle.adapters.cloud.settings import CloudSettings
from kapelle.model.blocks import Readings
from kapelle.model.enums import AckStatus, Metric
from kapelle.runtime.clock import SystemClock

EVERYONE = ("bat-1", "bat-2", "bat-3", "cha-1")


def vendor() -> EnodeLike:
    enode = EnodeLike()
    for name, rate_kw in (("bat-1", 2.0), ("bat-2", -1.5), ("bat-3", None), ("bat-x", 1.0)):
        enode.assets["batteries"][name] = battery(name, rate_kw)
    enode.assets["chargers"]["cha-1"] = charger("cha-1", 7.2)
    return enode


def test_every_page_of_every_kind_is_read_and_strangers_are_said_once(example: Example) -> None:
    enode = vendor()

    async def act(here: World) -> None:
        async def read() -> bool:
            return len(await here.latest()) == len(await here.up()) == len(EVERYONE)

        await until(read)
        values = await here.latest()
        assert has(values, 0, -2_000.0)
        assert has(values, 1, 1_500.0)
        assert values[2] == {Metric.SOC: 0.5}
        assert has(values, 3, -7_200.0)
        # Two rounds further nothing has changed, so nothing more is stored.
        rows, rounds = await here.rows(), enode.asked["GET /batteries"]
        await until(lambda: enode.asked["GET /batteries"] > rounds + 4)
        assert await here.rows() == rows
        strange = [one for one in await here.plant.reasons() if "bat-x" in one]
        assert strange == ["device: bat-x: is not enrolled; enrol it, or mend its name"]
        assert enode.tokens == 1

    play(enode, partial(example, "enode"), EVERYONE, act)


def test_a_token_that_is_taken_back_is_renewed_once(example: Example) -> None:
    enode = vendor()

    async def act(here: World) -> None:
        await until(lambda: enode.asked["GET /batteries"] > 1)
        enode.token = "another"
        enode.assets["batteries"]["bat-1"] = battery("bat-1", 3.0)

        async def read() -> bool:
            return has(await here.latest(), 0, -3_000.0)

        await until(read)
        assert enode.tokens == 2
        assert here.cloud.counters.outages == 0

    play(enode, partial(example, "enode"), EVERYONE, act)


def test_a_cloud_that_falls_silent_is_one_outage_and_comes_back(example: Example) -> None:
    enode = vendor()

    async def act(here: World) -> None:
        async def are_up() -> bool:
            return len(await here.up()) == len(EVERYONE)

        async def are_down() -> bool:
            return not await here.up()

        await until(are_up)
        enode.mood = silence
        began = asyncio.get_running_loop().time()
        await until(are_down)
        # Cadence 0.25 s, noticed after 1 s; far below cadence plus 20 s on a busy machine, too.
        assert asyncio.get_running_loop().time() - began < 15
        assert here.cloud.counters.outages == 1
        assert here.cloud.outage
        assert here.cloud.counters.drops == {"outage": len(EVERYONE)}
        assert not await here.plant.send(-7_000.0)
        enode.mood = None
        await until(are_up)

    play(enode, partial(example, "enode"), EVERYONE, act)


def test_one_that_enode_cannot_reach_goes_alone(example: Example) -> None:
    enode = vendor()

    async def act(here: World) -> None:
        async def up() -> bool:
            return await here.up() == {0, 1, 2, 3}

        await until(up)
        enode.assets["batteries"]["bat-2"]["isReachable"] = False

        async def gone() -> bool:
            return await here.up() == {0, 2, 3}

        await until(gone)

    play(enode, partial(example, "enode"), EVERYONE, act)


def test_a_webhook_is_stored_once_and_only_the_vendor_s(example: Example) -> None:
    enode = vendor()

    async def act(here: World) -> None:
        # 100 events in one delivery, the most Enode sends; all but one of devices not enrolled.
        events = [enode.event("battery", battery(f"b-{n}", 1.0)) for n in range(99)]
        events.append(enode.event("battery", battery("bat-3", -4.0)))
        body = json.dumps(events).encode()
        assert (await deliver(here.cloud, None, body=body)).status_code == 200
        assert has(await here.latest(), 2, 4_000.0)
        rows = await here.rows()
        assert (await deliver(here.cloud, None, body=body)).status_code == 200
        # The delivery's id is in no signature: whoever replays may change it.
        assert here.cloud.counters.repeated == 1
        assert await here.rows() == rows
        forged = await deliver(here.cloud, events, secret="a secret nobody gave to Enode")
        assert forged.status_code == 401
        altered = {"x-enode-signature": "sha1=" + "0" * 40}
        assert (await deliver(here.cloud, events, **altered)).status_code == 401
        heartbeat = {"event": "system:heartbeat", "createdAt": now(), "pendingEvents": 0}
        assert (await deliver(here.cloud, [heartbeat])).status_code == 200

    play(enode, partial(example, "enode"), EVERYONE, act)


def test_a_delivery_repeated_after_a_restart_changes_nothing(example: Example) -> None:
    """The plant forgets what was delivered: what a delivery says bears its own time."""

    async def run() -> None:
        settings = replace(example("enode", "http://127.0.0.1:9"), polls=())
        known = directory("enode", "bat-1")
        enode = vendor()
        events = [
            enode.event("battery", battery("bat-1", -kw), createdAt=now(ago_s=ago_s))
            for kw, ago_s in ((4.0, 90_000 - 60), (2.0, 0))
        ]
        for event, ago_s in zip(events, (90_000 - 60, 0), strict=True):
            event["battery"]["chargeState"]["lastUpdated"] = now(ago_s=ago_s)
        bodies = [json.dumps([event]).encode() for event in events]
        stored: list[Readings] = []
        for _ in range(2):
            cloud = Cloud(settings=settings, directory=known, clock=SystemClock())
            async with world(cloud, known) as here:
                for body in reversed(bodies):
                    assert (await deliver(cloud, None, body=body)).status_code == 200
                stored += await here.plant.stored(Readings)
        times = [block.measured_at_ns.tolist() for block in stored]
        # What is the newest is the same by its own time, and not by when it came.
        assert times[:2] == times[2:]
        newest = max(stored, key=lambda block: int(block.measured_at_ns[0]))
        assert newest.values[Metric.POWER_W].tolist() == [2_000.0]

    asyncio.run(run())


def test_an_old_event_changes_nothing(example: Example) -> None:
    enode = vendor()

    async def act(here: World) -> None:
        old = enode.event("battery", battery("bat-3", -4.0), createdAt=now(ago_s=100_000))
        assert (await deliver(here.cloud, [old])).status_code == 200
        assert not has(await here.latest(), 2, 4_000.0)

    play(enode, partial(example, "enode"), EVERYONE, act)


def test_a_full_disk_is_503_within_the_vendor_s_patience(example: Example) -> None:
    enode = vendor()

    async def act(here: World) -> None:
        here.plant.fill_disk()
        event = enode.event("battery", battery("bat-3", -4.0))
        body = json.dumps([event]).encode()
        async with asyncio.timeout(5):
            answered = await deliver(here.cloud, None, body=body)
        assert answered.status_code == 503
        assert int(answered.headers["retry-after"]) > 0
        here.plant.empty_disk()
        assert (await deliver(here.cloud, None, body=body)).status_code == 200
        assert has(await here.latest(), 2, 4_000.0)

    play(enode, partial(example, "enode"), EVERYONE, act)


def test_a_command_is_accepted_by_the_answer_and_applied_by_the_webhook(example: Example) -> None:
    enode = vendor()

    async def told(here: World, setpoint_w: float, revision: int) -> dict[str, Any]:
        await here.plant.send(setpoint_w, revision=revision)

        async def accepted() -> bool:
            return (revision, AckStatus.ACCEPTED) in await here.plant.answers()

        await until(accepted)
        return enode.actions["cha-1"]

    async def act(here: World) -> None:
        async def up() -> bool:
            return 0 in await here.up()

        await until(up)
        stop = await told(here, 0.0, 1)
        assert stop["kind"] == "STOP"
        # Of an action nobody began here, and of one that is still under way.
        for action in (stop | {"id": "other", "state": "CONFIRMED"}, stop):
            await deliver(here.cloud, [enode.event("vendor-action", action)])
        assert (1, AckStatus.APPLIED) not in await here.plant.answers()
        done = enode.event("vendor-action", stop | {"state": "CONFIRMED"})
        for _ in range(2):
            assert (await deliver(here.cloud, [done])).status_code == 200

        async def applied() -> bool:
            return (1, AckStatus.APPLIED) in await here.plant.answers()

        await until(applied)
        assert (await here.plant.answers()).count((1, AckStatus.APPLIED)) == 1
        start = await told(here, -7_000.0, 2)
        assert start["kind"] == "START"
        await deliver(here.cloud, [enode.event("vendor-action", start | {"state": "FAILED"})])

        async def failed() -> bool:
            return (2, AckStatus.REJECTED) in await here.plant.answers()

        await until(failed)

    play(enode, partial(example, "enode"), ("cha-1",), act)


@pytest.mark.parametrize("name", ["an action", ".."])
def test_an_action_is_asked_about_where_no_webhook_tells(example: Example, name: str) -> None:
    enode = vendor()

    def made(base_url: str) -> CloudSettings:
        cloud = example("enode", base_url)
        path = "/chargers/actions/{action}"
        return replace(cloud, actions=replace(cloud.actions, path=path, every_s=0.1))

    async def act(here: World) -> None:
        async def up() -> bool:
            return 0 in await here.up()

        await until(up)
        enode.action_id = name
        await here.plant.send(0.0)
        await until(lambda: "cha-1" in enode.actions)
        enode.actions["cha-1"]["state"] = "CONFIRMED"

        async def told() -> bool:
            statuses = {status for _, status in await here.plant.answers()}
            return (AckStatus.APPLIED if name != ".." else AckStatus.ACCEPTED) in statuses

        await until(told)

    play(enode, made, ("cha-1",), act)


def test_a_refusal_is_a_rejection_and_an_error_of_the_cloud_is_unknown(example: Example) -> None:
    enode = vendor()

    async def act(here: World) -> None:
        async def up() -> bool:
            return 0 in await here.up()

        await until(up)

        async def sulk(request: Request) -> Response | None:
            status = 422 if asked.count(request.method) % 2 else 500
            if request.method != "POST" or "oauth2" in request.url.path:
                return None
            asked.append(request.method)
            return JSONResponse({}, status)

        asked: list[str] = []
        enode.mood = sulk
        await here.plant.send(0.0, revision=1)
        await until(lambda: len(asked) == 1)
        await here.plant.send(0.0, revision=2)

        async def rejected() -> bool:
            return (2, AckStatus.REJECTED) in await here.plant.answers()

        await until(rejected)
        assert all(revision != 1 for revision, _ in await here.plant.answers())

    play(enode, partial(example, "enode"), ("cha-1",), act)
