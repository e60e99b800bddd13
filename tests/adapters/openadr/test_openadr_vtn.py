"""What the VTN promises: who sees and writes what, and the life of a command's event."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.adapters.conformance.plant import DEVICE, SECRET, until
from tests.adapters.openadr.site import BUSINESS_SECRET, OTHER_SECRET, Site, site
from tests.adapters.openadr.trial import TELEMETRY, report

from kapelle.adapters.openadr.objects import Kept
from kapelle.adapters.openadr.shapes import Event, Subscription
from kapelle.model.enums import AckStatus
from kapelle.registry import credentials
from kapelle.registry.directory import Bearer


def play(act: Callable[[Site], Awaitable[None]], **settings: object) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), site(**settings) as opened:
            await act(opened)

    asyncio.run(run())


async def dispatched(client: httpx.AsyncClient) -> list[dict]:
    """Return the events that carry commands, as this client sees them."""
    answer = await client.get("/events", params={"programID": "kapelle"})
    return [event for event in answer.json() if event["id"] != TELEMETRY]


def test_a_token_takes_the_right_secret_and_ends_with_the_enrolment() -> None:
    async def act(site: Site) -> None:
        for client_id, secret in (
            (DEVICE, "wrong"),
            ("nobody", SECRET),
            ("business", SECRET),
            ("gw", SECRET),
            (DEVICE, BUSINESS_SECRET),
        ):
            answer = await site.token(client_id, secret)
            assert answer.status_code == 401
            assert answer.json()["error"] == "invalid_client"
        async with site.client(DEVICE) as client:
            assert (await client.get("/programs")).status_code == 200
            site.directory.apply(
                [Bearer(0, DEVICE, True, 1.0, 1.0, credentials.hash_secret("new"), address=DEVICE)]
            )
            assert (await client.get("/programs")).status_code == 401

    play(act)


@pytest.mark.parametrize("authorization", ["", "Bearer x", "Basic x", "Bearer \xe9"])
def test_without_a_token_nothing_is_answered(authorization: str) -> None:
    async def act(site: Site) -> None:
        headers = {"Authorization": authorization.encode("latin-1")} if authorization else {}
        async with httpx.AsyncClient(base_url=site.base) as client:
            for path in ("/programs", "/events/x", "/vens", "/notifiers", "/nowhere"):
                assert (await client.get(path, headers=headers)).status_code == 401

    play(act)


def test_a_ven_sees_its_own_and_what_is_meant_for_it() -> None:
    async def act(site: Site) -> None:
        async with (
            site.client("business", BUSINESS_SECRET) as business,
            site.client(DEVICE) as one,
            site.client("gw", OTHER_SECRET) as other,
        ):
            names = {ven["venName"] for ven in (await business.get("/vens")).json()}
            assert names == {DEVICE, "gw"}
            assert len((await business.get("/resources")).json()) == 3
            (mine,) = (await one.get("/vens")).json()
            assert mine["venName"] == DEVICE
            theirs = (await other.get("/resources")).json()
            assert {(r["resourceName"], r["targets"][0]) for r in theirs} == {
                ("pv", "gw/pv"),
                ("ev", "gw/ev"),
            }
            assert (await other.get(f"/vens/{mine['id']}")).status_code == 404
            assert (await other.delete(f"/vens/{mine['id']}")).status_code == 404

            program = (await business.post("/programs", json={"programName": "prices"})).json()
            for target in ("gw/pv", DEVICE, "nobody"):
                event = {"programID": program["id"], "targets": [target]}
                assert (await business.post("/events", json=event)).status_code == 201
            query = {"programID": program["id"]}
            (seen,) = (await one.get("/events", params=query)).json()
            assert seen["targets"] == [DEVICE]
            assert (await other.get(f"/events/{seen['id']}")).status_code == 404
            asked = query | {"targets": DEVICE}
            assert (await other.get("/events", params=asked)).json() == []
            assert len((await business.get("/events", params=query)).json()) == 3

    play(act)


def test_roles_write_what_they_may() -> None:
    async def act(site: Site) -> None:
        async with (
            site.client("business", BUSINESS_SECRET) as business,
            site.client(DEVICE) as ven,
            site.client("gw", OTHER_SECRET) as other,
        ):
            assert (await ven.post("/programs", json={"programName": "x"})).status_code == 403
            assert (await ven.post("/events", json={"programID": "kapelle"})).status_code == 403
            assert (await business.post("/reports", json=report(-1.0))).status_code == 403
            assert (await business.delete("/programs/kapelle")).status_code == 403
            payload = {"type": "DISPATCH_SETPOINT", "values": [2.0]}
            event = {"programID": "kapelle", "intervals": [{"id": 0, "payloads": [payload]}]}
            # What commands a device goes through the last hop, or not at all.
            assert (await business.post("/events", json=event)).status_code == 403

            (own,) = (await ven.get("/vens")).json()
            taken = {"objectType": "VEN_VEN_REQUEST", "venName": DEVICE}
            grabbing = taken | {"targets": ["gw/pv"], "clientID": DEVICE}
            answer = await ven.put(f"/vens/{own['id']}", json=grabbing)
            assert answer.json()["targets"] == own["targets"]
            business_form = grabbing | {"objectType": "BL_VEN_REQUEST"}
            assert (await ven.put(f"/vens/{own['id']}", json=business_form)).status_code == 403
            assert (await ven.delete(f"/vens/{own['id']}")).status_code == 403
            foreign = {
                "objectType": "VEN_RESOURCE_REQUEST",
                "resourceName": "x",
                "venID": own["id"],
            }
            assert (await other.post("/resources", json=foreign)).status_code == 409
            assert (await other.post("/vens", json=taken)).status_code == 400

            granted = business_form | {"targets": ["zone-1"]}
            answer = await business.put(f"/vens/{own['id']}", json=granted)
            assert set(answer.json()["targets"]) == {DEVICE, "zone-1"}

    play(act)


def test_pages_are_bounded_and_add_up() -> None:
    async def act(site: Site) -> None:
        async with site.client("business", BUSINESS_SECRET) as client:
            for number in range(55):
                await client.post("/programs", json={"programName": f"p{number}"})
            first = (await client.get("/programs")).json()
            rest = (await client.get("/programs", params={"skip": 50})).json()
            assert (len(first), len(rest)) == (50, 6)
            assert len({one["id"] for one in first + rest}) == 56
            for wrong in ("51", "-1", "x", "", "1e1", "\u0661", "9" * 5_000):
                answer = await client.get("/programs", params={"limit": wrong})
                assert answer.status_code == 400
            assert (await client.get("/programs", params={"limit": 0})).json() == []

    play(act)


async def told(site: Site, client: httpx.AsyncClient, *args: float, **more: float) -> None:
    """Send a command once the gateway counts as present."""

    async def written() -> bool:
        await client.get("/programs")
        return await site.plant.send(*args, **more)  # type: ignore[arg-type]

    await until(written)


def test_an_event_is_replaced_ended_and_forgotten() -> None:
    async def act(site: Site) -> None:
        async with site.client(DEVICE) as client:
            await told(site, client, -2_000.0)
            (first,) = await dispatched(client)
            period = first["intervalPeriod"]
            assert period["duration"] == "PT300S"
            await told(site, client, 1_500.0, revision=2)
            (second,) = await dispatched(client)
            assert second["id"] == first["id"]
            assert second["createdDateTime"] == first["createdDateTime"]
            # Export is negative consumption of a setpoint; a demand cannot be.
            assert second["intervals"] == [
                {"id": 2, "payloads": [{"type": "DISPATCH_SETPOINT", "values": [-1.5]}]}
            ]
            await told(site, client, float("nan"), revision=3)
            (third,) = await dispatched(client)
            assert third["intervalPeriod"]["duration"] == "PT0S"
            active = {"programID": "kapelle", "active": "true"}
            assert [e["id"] for e in (await client.get("/events", params=active)).json()] == [
                TELEMETRY
            ]

            async def gone() -> bool:
                return not await dispatched(client)

            await until(gone)

    play(act, ended_s=1.0)


def test_a_report_answers_only_the_command_it_names() -> None:
    async def act(site: Site) -> None:
        async with site.client(DEVICE) as client, site.client("gw", OTHER_SECRET) as other:
            await told(site, client, -2_000.0, revision=7)
            (event,) = await dispatched(client)

            async def said(interval: int, kind: str, value: object) -> int:
                one = report(-1_000.0, event["id"])
                part = one["resources"][0]["intervals"][0]  # type: ignore[index]
                part["id"] = interval
                part["payloads"] = [{"type": kind, "values": [value]}]
                return (await client.post("/reports", json=one)).status_code

            for interval, kind, value in (
                (6, "OPERATING_STATE", "RUNNING_CURTAILED"),
                (7, "OPERATING_STATE", "NORMAL"),
                (7, "SETPOINT", 1.0),
                (7, "SETPOINT", 2.0),
                (7, "OPERATING_STATE", "RUNNING_OPTED_OUT"),
                (7, "OPERATING_STATE", "ERROR"),
            ):
                assert await said(interval, kind, value) == 201
            assert await site.plant.answers() == [
                (7, AckStatus.RECEIVED),
                (7, AckStatus.RECEIVED),
                (7, AckStatus.APPLIED),
                (7, AckStatus.OPTED_OUT),
                (7, AckStatus.REJECTED),
            ]
            foreign = await other.post("/reports", json=report(-1.0, event["id"]))
            assert foreign.status_code == 409

    play(act)


def test_what_no_gateway_fetched_in_time_is_never_shown() -> None:
    async def act(site: Site) -> None:
        async with site.client(DEVICE) as client:
            await told(site, client, -2_000.0, ttl_s=0.3)
            await asyncio.sleep(0.35)
            assert await dispatched(client) == []

            async def expired() -> bool:
                return (1, AckStatus.EXPIRED) in await site.plant.answers()

            await until(expired)

    play(act)


def test_what_was_promised_outlives_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        file = tmp_path / "openadr.db"
        async with site(file) as first, first.client(DEVICE) as client:
            await told(first, client, -2_000.0)
            (event,) = await dispatched(client)
            made = (await client.post("/reports", json=report(-1.0))).json()
        async with site(file) as second, second.client(DEVICE) as client:
            assert await dispatched(client) == [event]
            answer = await client.get(f"/reports/{made['id']}")
            assert answer.json() == made
            # Its last word before the restart was never fetched, so nobody may act on it now.
            await told(second, client, -1_000.0, revision=2)
        async with site(file) as third, third.client(DEVICE) as client:
            assert await dispatched(client) == []
        assert file.stat().st_mode & 0o077 == 0

    asyncio.run(run())


def test_a_gateway_speaks_for_its_own_devices_only() -> None:
    async def act(site: Site) -> None:
        async with site.client("gw", OTHER_SECRET) as client:
            one = report(-1_000.0)
            rows = one["resources"]
            assert isinstance(rows, list)
            for name in ("ev", "gw/ev", "pv", "AGGREGATED_REPORT"):
                rows.append(rows[0] | {"resourceName": name})
            assert (await client.post("/reports", json=one)).status_code == 201
            readings = [block.device_no.tolist() for block in await site.plant.stored(_readings())]
            assert readings == [[2, 1]]
            reasons = await site.plant.reasons()
            assert [reason.partition(":")[0] for reason in reasons] == ["device"] * 3

    play(act)


def _readings() -> type:
    from kapelle.model.blocks import Readings

    return Readings


def test_one_flood_is_turned_away_and_harms_nobody_else() -> None:
    async def act(site: Site) -> None:
        async with site.client(DEVICE) as client, site.client("gw", OTHER_SECRET) as other:
            answers = [await client.get("/programs") for _ in range(50)]
            turned = [one for one in answers if one.status_code == 429]
            assert len(turned) >= 20
            assert int(turned[0].headers["retry-after"]) >= 1
            assert (await other.get("/programs")).status_code == 200

    play(act, requests_per_s=0.1, requests_burst=30)


def test_bodies_are_bounded_in_size_and_time() -> None:
    async def act(site: Site) -> None:
        async with site.client(DEVICE) as client:
            headers = {"Content-Type": "application/json"}
            answer = await client.post("/reports", content=b" " * 300_000, headers=headers)
            assert answer.status_code == 413
            deep = b'{"eventID":' + b"[" * 100_000
            assert (await client.post("/reports", content=deep, headers=headers)).status_code == 400
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = await client.post("/auth/token", content=b"a=1&" * 5_000, headers=form)
            assert answer.status_code == 400

            async def slow() -> "object":
                yield b"{"
                await asyncio.sleep(1.5)
                yield b"}"

            answer = await client.post("/reports", content=slow(), headers=headers)
            assert answer.status_code == 408

    play(act, body_s=0.5)


def test_half_open_connections_are_closed() -> None:
    async def act(site: Site) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.vtn.port)
        writer.write(b"GET /openadr3/3.1.0/programs HTTP/1.1\r\nHost:")
        assert await reader.read() == b""
        writer.close()

    play(act, body_s=0.5)


def test_a_client_has_so_many_objects_and_its_oldest_reports_go() -> None:
    async def act(site: Site) -> None:
        async with site.client(DEVICE) as client:
            ids = [
                (await client.post("/reports", json=report(-1.0))).json()["id"] for _ in range(5)
            ]
            kept = [one["id"] for one in (await client.get("/reports")).json()]
            assert kept == ids[-3:]
            (ven,) = (await client.get("/vens")).json()
            resource = {"objectType": "VEN_RESOURCE_REQUEST", "venID": ven["id"]}
            statuses = [
                (await client.post("/resources", json=resource | {"resourceName": n})).status_code
                for n in ("a", "b", "c")
            ]
            assert statuses == [201, 201, 403]

    play(act, objects_max=3)


def test_one_who_is_enrolled_no_more_is_gone() -> None:
    async def act(site: Site) -> None:
        async with (
            site.client("business", BUSINESS_SECRET) as business,
            site.client(DEVICE) as client,
        ):
            await told(site, client, -2_000.0)
            assert len(await dispatched(client)) == 1
            gone = Bearer(0, DEVICE, False, 1.0, 1.0, adapter="openadr", address=DEVICE)
            site.directory.apply([gone])
            assert (await client.get("/events")).status_code == 401
            assert await dispatched(business) == []
            names = {ven["venName"] for ven in (await business.get("/vens")).json()}
            assert names == {"gw"}
            assert not np.any(site.directory.resolve([DEVICE]) >= 0)

    play(act)


def test_guessing_a_secret_is_slow_and_locks_nobody_else_out() -> None:
    async def act(site: Site) -> None:
        answers = [await site.token("business", f"guess {number}") for number in range(30)]
        assert [one.status_code for one in answers[:20]] == [401] * 20
        # By then even the right one has to wait.
        late = await site.token("business", BUSINESS_SECRET)
        assert late.status_code == 429
        assert int(late.headers["retry-after"]) >= 1
        assert (await site.token(DEVICE, SECRET)).status_code == 200

    play(act)


def test_nobody_is_told_who_may_not_ask() -> None:
    """Whoever was enrolled once, or only bears the business party's name, hears of nothing."""

    async def act(site: Site) -> None:
        desk = site.vtn.desk
        assert desk is not None
        priced = Kept("EVENT", "price", "", 1, 1, Event(program_id="kapelle"))
        meant = replace(priced, body=Event(program_id="kapelle", targets=["gw/pv"]))
        assert desk._audience(priced) == [DEVICE, "gw"]
        await until(lambda: desk._audience(meant) == ["gw"])
        gone = Bearer(0, DEVICE, False, 1.0, 1.0, adapter="openadr", address=DEVICE)
        site.directory.apply([gone])
        assert desk._audience(priced) == ["gw"]
        theirs = Subscription(client_name=DEVICE, object_operations=[])
        assert desk._audience(Kept("SUBSCRIPTION", "s", DEVICE, 1, 1, theirs)) == []

    play(act, business_secret="", business_client=DEVICE)
