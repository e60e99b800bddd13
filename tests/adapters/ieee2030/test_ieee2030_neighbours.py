"""Of two clients neither sees nor touches what is the other's; what one says harms nobody."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from lxml import etree
from tests.adapters.conformance.plant import Plant, opened, until
from tests.adapters.ieee2030.certificates import client_tls, signed
from tests.adapters.ieee2030.test_ieee2030_codec import BOMB, FILE
from tests.adapters.ieee2030.test_ieee2030_hostile import Http, browser, subscription
from tests.adapters.ieee2030.test_ieee2030_server import controls, document, said, watts
from tests.adapters.ieee2030.trial import MUP, mirror, response, settings

from kapelle.adapters.ieee2030.endpoint import Ieee2030Endpoint
from kapelle.registry.directory import Bearer, Directory
from kapelle.runtime.clock import SystemClock

OTHER = "neighbour"
NO_WAY = (
    "reading: flowDirection: 0 does not say which way power flows; post 1 (forward) or 19"
    " (reverse), or set ieee2030.unsaid_flow"
)
Act = Callable[[Plant, Ieee2030Endpoint, Http, Http], Awaitable[None]]


def play(act: Act, **more: object) -> None:
    """Play with device 0 and its neighbour, device 1."""

    async def run() -> None:
        rows = [
            Bearer(number, f"dev-{number}", True, 5e3, 5e3, adapter="ieee2030", address=lfdi)
            for number, lfdi in enumerate((signed("device").lfdi, signed(OTHER).lfdi))
        ]
        directory = Directory.build(1, rows)
        endpoint = Ieee2030Endpoint(
            settings=settings(**more), directory=directory, clock=SystemClock()
        )
        async with (
            asyncio.timeout(60),
            opened(endpoint, directory) as plant,
            browser(endpoint, client_tls(signed("device"))) as http,
            browser(endpoint, client_tls(signed(OTHER))) as other,
        ):
            await act(plant, endpoint, http, other)

    asyncio.run(run())


def test_nobody_sees_or_touches_what_is_anothers() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http, other: Http) -> None:
        assert await controls(http) == []
        assert await plant.send(-1_000.0)
        (control,) = await controls(http)
        mrid = said(control, "mRID") or ""
        assert (await http.post("/mup", content=mirror(-5))).status_code == 201
        rated = document("DERSettings", watts("setMaxW", 8_000))
        assert (await http.put("/edev/0/der/1/derg", content=rated)).status_code == 204
        made = await http.post("/edev/0/sub", content=subscription("https://a.example/"))
        below = ["", "/fsa", "/der", "/der/1/derg", "/sub", "/derp", "/derp/1/derc", "/rg"]
        below += [f"/derp/1/derc/{mrid}"]
        paths = [f"/edev/0{path}" for path in below]
        for path in [*paths, f"/mup/{MUP}", made.headers["Location"]]:
            assert (await other.get(path)).status_code == 404, path
        assert etree.fromstring((await other.get("/mup")).content).get("all") == "0"
        (home,) = etree.fromstring((await other.get("/edev?l=9")).content)
        assert (home.get("href"), said(home, "lFDI")) == ("/edev/1", signed(OTHER).lfdi)
        # Nor does it answer, measure, rate or subscribe for another.
        answered = response(signed("device").lfdi, mrid, 4)
        assert (await other.post("/edev/0/rsp", content=answered)).status_code == 404
        assert (await other.post("/edev/1/rsp", content=answered)).status_code == 201
        assert (await other.post(f"/mup/{MUP}", content=mirror(9))).status_code == 404
        assert (await other.put("/edev/0/der/1/derg", content=rated)).status_code == 404
        asked = subscription("https://a.example/")
        assert (await other.post("/edev/0/sub", content=asked)).status_code == 404
        assert (await other.post("/edev/1/sub", content=asked)).status_code == 400
        for path in (f"/mup/{MUP}", made.headers["Location"], "/edev/0"):
            assert (await other.delete(path)).status_code == 404
        assert await plant.answers() == []
        assert await plant.power_w() == [-5.0]
        assert endpoint.counters.astray == 1
        assert len(await controls(http)) == 1
        assert (await http.get(made.headers["Location"])).status_code == 200

    play(act)


@pytest.mark.parametrize("attack", ["bomb", "file", "long", "deep"])
def test_what_one_client_sends_costs_its_neighbour_nothing(attack: str) -> None:
    bodies = {
        "bomb": BOMB,
        "file": FILE,
        "long": b"<MirrorUsagePoint>" + b" " * 80_000,
        "deep": b'<MirrorUsagePoint xmlns="urn:ieee:std:2030.5:ns">' + b"<a>" * 15_000,
    }

    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http, other: Http) -> None:
        began = time.perf_counter()
        answer = await http.post("/mup", content=bodies[attack])
        assert answer.status_code == (413 if attack == "long" else 400)
        assert b"root:" not in answer.content
        assert (await other.get("/dcap")).status_code == 200
        assert time.perf_counter() - began < 10.0
        if attack != "long":
            (reason,) = await plant.reasons()
            assert reason.startswith("message: body: ")

    play(act)


def test_a_mirror_that_lies_about_itself_is_refused_in_part() -> None:
    """Of several readings those that mean something count, the others are kept with the reason."""

    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http, other: Http) -> None:
        said_so = {
            "uom of nothing we know": (mirror(-5).replace("<uom>38", "<uom>199"), 201, []),
            "multiplier": (
                mirror(-5).replace("<powerOfTenMultiplier>0", "<powerOfTenMultiplier>99"),
                201,
                ["reading: value: is out of range; mend multiplier or time"],
            ),
            "no direction": (
                mirror(-5).replace("<flowDirection>1", "<flowDirection>0"),
                201,
                [NO_WAY],
            ),
            "no mRID": (
                mirror(-5).replace(f"<mRID>{MUP}</mRID>", ""),
                400,
                ["mirror: mRID: is missing; give each mirror usage point one"],
            ),
        }
        wanted: list[str] = []
        for name, (body, status, reasons) in said_so.items():
            number = f"{list(said_so).index(name):032X}"
            answer = await http.post("/mup", content=body.replace(MUP, number))
            assert answer.status_code in (status, status + 3), name
            wanted += reasons
            assert await plant.reasons() == wanted, name
        assert await plant.power_w() == []
        # A thousand times too much is for the last check before the journal, by the nameplate.
        absurd = mirror(-5).replace("<powerOfTenMultiplier>0", "<powerOfTenMultiplier>6")
        assert (await http.post("/mup", content=absurd)).is_success
        assert await plant.power_w() == []
        assert len(await plant.reasons()) == len(wanted) + 1

    play(act)


def test_the_time_is_the_hosts_in_utc() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http, other: Http) -> None:
        before = int(time.time())
        now = etree.fromstring((await http.get("/tm")).content)
        assert before <= int(said(now, "currentTime") or 0) <= time.time()
        assert [said(now, name) for name in ("tzOffset", "dstOffset")] == ["0", "0"]

    play(act)


def test_who_is_removed_hears_nothing_on_the_connection_it_has() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http, other: Http) -> None:
        assert (await http.get("/dcap")).status_code == 200
        gone = Bearer(0, "dev-0", False, 0.0, 0.0, adapter="ieee2030")
        plant.directory.apply([gone._replace(address=signed("device").lfdi)])
        for path in ("/dcap", "/edev/0", "/mup"):
            assert (await http.get(path)).status_code == 403
        assert (await http.post("/mup", content=mirror(-5))).status_code == 403
        assert (await other.get("/dcap")).status_code == 200
        assert await plant.power_w() == []
        await until(lambda: endpoint.counters.sessions == 1)

    play(act)
