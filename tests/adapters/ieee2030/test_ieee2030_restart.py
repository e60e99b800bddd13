"""A restart of the plant: what clients were told and may still follow is known and can be ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings as effort
from hypothesis.stateful import rule
from lxml import etree
from tests.adapters.conformance.plant import DEVICE_NO, Plant, enrolled, opened, until
from tests.adapters.ieee2030.certificates import client_tls, signed
from tests.adapters.ieee2030.test_ieee2030_controls import LFDI, START_NS, Polling, command
from tests.adapters.ieee2030.test_ieee2030_hostile import Http, subscription
from tests.adapters.ieee2030.test_ieee2030_server import CONTROLS, document, said, watts
from tests.adapters.ieee2030.trial import MUP, mirror, response, settings

from kapelle.adapters.ieee2030 import store
from kapelle.adapters.ieee2030.client import Client
from kapelle.adapters.ieee2030.controls import Control, Controls, Status
from kapelle.adapters.ieee2030.endpoint import Ieee2030Endpoint
from kapelle.adapters.ieee2030.metering import Signs
from kapelle.adapters.mqtt.throttle import TokenBucket
from kapelle.errors import LinkLost
from kapelle.model.enums import AckStatus, SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock


@asynccontextmanager
async def life(file: Path, directory: Directory) -> AsyncIterator[tuple[Plant, Http]]:
    """One life of the plant, and a client of it."""
    clock = SystemClock()
    endpoint = Ieee2030Endpoint(settings=settings(), directory=directory, clock=clock, file=file)
    async with asyncio.timeout(60), opened(endpoint, directory) as plant:
        tls = client_tls(signed("device"))
        where = f"https://127.0.0.1:{endpoint.port}"
        async with Http(verify=tls, base_url=where, timeout=20) as http:
            yield plant, http


def known() -> Directory:
    return enrolled("ieee2030", signed("device").lfdi)


async def shown(http: Http) -> list[tuple[str, str, str, str]]:
    """Return mRID, status, amount and start of every control."""
    listed = etree.fromstring((await http.get(CONTROLS)).content)
    return [
        (
            said(one, "mRID") or "",
            said(one, "EventStatus", "currentStatus") or "",
            said(one, "DERControlBase", "opModFixedW") or "",
            said(one, "interval", "start") or "",
        )
        for one in listed
    ]


async def respond(http: Http, mrid: str, status: int) -> None:
    said_so = response(signed("device").lfdi, mrid, status)
    assert (await http.post(f"/edev/{DEVICE_NO}/rsp", content=said_so)).status_code == 201


def test_a_client_that_asks_again_waits_for_the_disk_as_well() -> None:
    async def act() -> None:
        async with store.opened(None) as notes:
            bucket, signs = TokenBucket(1, 1, START_NS), Signs(1.0, 0.0)
            client = Client(LFDI, DEVICE_NO, Controls(LFDI), bucket, signs, 0)
            client.controls.place(command(1, 1.0, START_NS), "target_w", 1, START_NS)
            for control, _, _ in client.controls.shown(START_NS):
                client.controls.serve(control)
            assert notes.keep(client, START_NS)
            # It gave the first request up, or asks on two connections.
            assert notes.keep(client, START_NS)
            writing = asyncio.create_task(notes.run())
            await notes.written()
            assert not notes.keep(client, START_NS)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    asyncio.run(act())


def test_a_control_goes_on_and_is_answered_and_ended_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        file = tmp_path / "notes.db"
        async with life(file, known()) as (plant, http):
            assert await shown(http) == []
            assert await plant.send(-1_000.0)
            before = await shown(http)
            assert [(status, amount) for _, status, amount, _ in before] == [("1", "-2000")]
            await respond(http, before[0][0], 1)
            # Nobody has seen this one.
            assert await plant.send(-4_000.0, revision=2)
        async with life(file, known()) as (plant, http):
            assert await shown(http) == before
            await respond(http, before[0][0], 2)
            assert await plant.answers() == [(1, AckStatus.APPLIED)]
            assert await plant.send(float("nan"), revision=3, epoch=2)
            assert [status for _, status, *_ in await shown(http)] == ["2"]
        async with life(file, known()) as (plant, http):
            # Cancelled for ever; and as its client has not said so, the release is not done.
            assert [status for _, status, *_ in await shown(http)] == ["2"]
            assert await plant.send(float("nan"), revision=3, epoch=3)
            assert await plant.answers() == []
            await respond(http, before[0][0], 6)
            assert await plant.answers() == [(3, AckStatus.APPLIED)]
        async with life(file, known()) as (plant, http):
            assert [status for _, status, *_ in await shown(http)] == ["2"]
            assert await plant.send(float("nan"), revision=4, epoch=4)

            async def released() -> bool:
                return await plant.answers() == [(4, AckStatus.APPLIED)]

            await until(released)

    asyncio.run(run())


def test_a_link_that_is_opened_again_begins_with_nobody_there(tmp_path: Path) -> None:
    async def run() -> None:
        directory = known()
        endpoint = Ieee2030Endpoint(
            settings=settings(), directory=directory, clock=SystemClock(), file=tmp_path / "notes"
        )
        for expected in ([SessionEvent.UP], [SessionEvent.DOWN, SessionEvent.UP]):
            async with asyncio.timeout(60), opened(endpoint, directory) as plant:
                where = f"https://127.0.0.1:{endpoint.port}"
                async with Http(verify=client_tls(signed("device")), base_url=where) as http:
                    assert (await http.get("/dcap")).status_code == 200

                async def told(plant: Plant = plant, expected: list[int] = expected) -> bool:
                    return await plant.events() == expected

                await until(told)
                assert endpoint.counters.sessions == 1

    asyncio.run(run())


def test_what_a_client_says_once_is_known_and_what_it_says_again_is_asked_for(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        file, der = tmp_path / "notes.db", f"/edev/{DEVICE_NO}/der/1"
        rated = document("DERSettings", watts("setMaxChargeRateW", 4_000) + watts("setMaxW", 8_000))
        async with life(file, known()) as (_, http):
            assert (await http.put(f"{der}/derg", content=rated)).status_code == 204
            place = subscription("https://a.example/")
            made = await http.post(f"/edev/{DEVICE_NO}/sub", content=place)
            assert made.status_code == 201
            assert (await http.post("/mup", content=mirror(-5))).status_code == 201
        async with life(file, known()) as (plant, http):
            assert (await http.get(f"{der}/derg")).text == rated
            assert await plant.send(-1_000.0)
            # Of 4 kW as it is set to charge, not of its nameplate.
            assert [amount for *_, amount, _ in await shown(http)] == ["-2500"]
            assert (await http.get(made.headers["Location"])).status_code == 200
            assert (await http.post(f"/mup/{MUP}", content=mirror(-5))).status_code == 404
            assert (await http.post("/mup", content=mirror(-5))).status_code == 201
            assert await plant.power_w() == [-5.0]

    asyncio.run(run())


def test_who_was_removed_or_is_another_device_now_finds_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        file = tmp_path / "notes.db"
        async with life(file, known()) as (plant, http):
            assert await shown(http) == []
            assert await plant.send(-1_000.0)
            assert len(await shown(http)) == 1
        other = Bearer(7, "dev-7", True, 5e3, 5e3, adapter="ieee2030")
        moved = Directory.build(1, [other._replace(address=signed("device").lfdi)])
        async with life(file, moved) as (_, http):
            listed = await http.get("/edev/7/derp/1/derc?l=9")
            assert etree.fromstring(listed.content).get("all") == "0"
        async with life(file, known()) as (_, http):
            assert await shown(http) == []

    asyncio.run(run())


def test_a_file_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    async def run() -> None:
        broken = tmp_path / "notes.db"
        broken.write_bytes(b"no database" * 100)
        with pytest.raises(LinkLost, match=r"notes\.db"):
            async with life(broken, known()):
                pass

    asyncio.run(run())


class Restarting(Polling):
    """The same client, while the plant restarts now and then."""

    @rule()
    def restart(self) -> None:
        before = {one.mrid: status for one, status, _ in self.controls.shown(self.now_ns)}
        kept = msgspec.msgpack.encode(self.controls.kept(self.now_ns))
        told = msgspec.msgpack.decode(kept, type=list[Control])
        self.controls = Controls.restored(LFDI, told, self.now_ns)
        after = {one.mrid: status for one, status, _ in self.controls.shown(self.now_ns)}
        # Only what nobody has seen is gone; what was cancelled stays so.
        assert set(after) == set(before) & self.shown
        for mrid, status in after.items():
            assert (status is Status.CANCELLED) == (before[mrid] is Status.CANCELLED)
        running = self.controls.running(self.now_ns // NS_PER_S)
        self.wanted = running.revision if running is not None else None


TestRestarting = Restarting.TestCase
TestRestarting.settings = effort(max_examples=40, stateful_step_count=30, deadline=None)
