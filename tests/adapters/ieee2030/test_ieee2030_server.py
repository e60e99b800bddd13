"""What a client is shown and what becomes of what it says, over TLS; by the published schema."""

from pathlib import Path

import pytest
from lxml import etree
from tests.adapters.conformance.plant import DEVICE, DEVICE_NO, Plant, until
from tests.adapters.foreign import python_environment
from tests.adapters.ieee2030.certificates import signed
from tests.adapters.ieee2030.test_ieee2030_hostile import Http, play, subscription
from tests.adapters.ieee2030.test_py20305 import PEER
from tests.adapters.ieee2030.trial import NS, mirror, response

from kapelle.adapters.ieee2030.endpoint import Ieee2030Endpoint
from kapelle.model.enums import AckStatus, SessionEvent
from kapelle.registry.directory import Bearer

CONTROLS = "/edev/0/derp/1/derc?l=9"


async def controls(http: Http) -> list[etree._Element]:
    return list(etree.fromstring((await http.get(CONTROLS)).content))


def said(element: etree._Element, *path: str) -> str | None:
    return element.findtext("/".join(f"{{*}}{name}" for name in path))


def document(name: str, inner: str) -> str:
    return f'<{name} xmlns="{NS}" xmlns:csipaus="https://csipaus.org/ns/v1.3">{inner}</{name}>'


def watts(name: str, value: int, multiplier: int = 0) -> str:
    return f"<{name}><multiplier>{multiplier}</multiplier><value>{value}</value></{name}>"


def test_a_percentage_is_of_what_the_client_says_it_is_set_to() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        rated = watts("rtgMaxChargeRateW", 9_000) + watts("rtgMaxW", 9_000) + "<type>80</type>"
        text = document("DERCapability", f"<modesSupported>00000080</modesSupported>{rated}")
        assert (await http.put("/edev/0/der/1/dercap", content=text)).status_code == 204
        text = document("DERSettings", watts("setMaxChargeRateW", 4, 3) + watts("setMaxW", 8_000))
        assert (await http.put("/edev/0/der/1/derg", content=text)).status_code == 204
        assert (await http.get("/edev/0/der/1/derg")).text == text
        assert await plant.send(-1_000.0)
        assert said((await controls(http))[0], "DERControlBase", "opModFixedW") == "-2500"
        assert await plant.send(2_000.0, revision=2)
        rows = await controls(http)
        (newest,) = [one for one in rows if said(one, "EventStatus", "currentStatus") == "1"]
        assert len(rows) == 2
        assert said(newest, "DERControlBase", "opModFixedW") == "2500"

    play(act)


def test_a_client_that_takes_watts_is_told_in_watts() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        storage = "<csipaus:vppModesSupported>01</csipaus:vppModesSupported>"
        text = document("DERCapability", f"<modesSupported>00400080</modesSupported>{storage}")
        assert (await http.put("/edev/0/der/1/dercap", content=text)).status_code == 204
        assert await plant.send(-48_000.0)
        (control,) = await controls(http)
        target = ("DERControlBase", "opModStorageTargetW")
        assert said(control, *target, "value") == "-4800"
        assert said(control, *target, "multiplier") == "1"

    play(act)


def test_a_newer_control_is_the_only_one_active_and_an_old_owner_is_refused() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        assert await controls(http) == []
        assert await plant.send(-1_000.0, epoch=2)
        assert len(await controls(http)) == 1
        assert await plant.send(-2_000.0, epoch=2, revision=2)
        assert await plant.send(-3_000.0, epoch=1, revision=3)
        active = etree.fromstring((await http.get("/edev/0/derp/1/actderc?l=9")).content)
        assert [said(one, "DERControlBase", "opModFixedW") for one in active] == ["-4000"]
        status = [said(one, "EventStatus", "currentStatus") for one in await controls(http)]
        assert sorted(status) == ["1", "4"]

        async def refused() -> bool:
            return (3, AckStatus.REJECTED) in await plant.answers()

        await until(refused)

    play(act)


def test_a_response_counts_once_it_is_stored() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        assert await controls(http) == []
        assert await plant.send(-1_000.0)
        (control,) = await controls(http)
        mrid, where = said(control, "mRID") or "", control.get("replyTo")
        lfdi = signed("device").lfdi
        for status in (1, 4):
            answer = await http.post(where, content=response(lfdi, mrid.lower(), status))
            assert answer.status_code == 201
        assert await plant.answers() == [(1, AckStatus.RECEIVED), (1, AckStatus.OPTED_OUT)]
        # One nobody knows: the client is to forget it, and nothing comes of it.
        answer = await http.post(where, content=response(lfdi, "0" * 32, 1))
        assert answer.status_code == 201
        assert endpoint.counters.astray == 1
        assert (await http.post(where, content=document("Response", ""))).status_code == 400
        plant.fill_disk()
        assert (await http.post(where, content=response(lfdi, mrid, 2))).status_code == 503

    play(act)


def test_who_is_removed_is_out_at_once() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        assert (await http.get("/dcap")).status_code == 200
        assert await plant.send(-1_000.0)
        gone = Bearer(DEVICE_NO, DEVICE, False, 0.0, 0.0, adapter="ieee2030")
        plant.directory.apply([gone._replace(address=signed("device").lfdi)])

        async def down() -> bool:
            return (await plant.events())[-1:] == [SessionEvent.DOWN]

        await until(down)
        assert (await http.get("/dcap")).status_code == 403
        assert not await plant.send(-2_000.0, revision=2)

    play(act)


def test_the_pin_limits_and_delay_an_operator_has_set(tmp_path: Path) -> None:
    pins = tmp_path / "pins"
    pins.write_text(f"{signed('device').lfdi} 111115\n")

    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        (home,) = etree.fromstring((await http.get("/edev")).content)
        registration = etree.fromstring((await http.get(f"{home.get('href')}/rg")).content)
        assert said(registration, "pIN") == "111115"
        default = etree.fromstring((await http.get("/edev/0/derp/1/dderc")).content)
        assert said(default, "DERControlBase", "opModExpLimW", "value") == "5000"
        program = etree.fromstring((await http.get("/edev/0/derp/1")).content)
        assert said(program, "primacy") == "7"
        assert await plant.send(-1_000.0)
        assert said((await controls(http))[0], "randomizeStart") == "30"
        own = document("EndDevice", f"<lFDI>{signed('device').lfdi}</lFDI><sFDI>0</sFDI>")
        made = await http.post("/edev", content=own)
        assert (made.status_code, made.headers["Location"]) == (201, "/edev/0")
        other = document("EndDevice", f"<lFDI>{signed('stranger').lfdi}</lFDI>")
        assert (await http.post("/edev", content=other)).status_code == 403

    play(act, pins=str(pins), default_export_w=5_000.0, primacy=7, randomize_s=30)


@pytest.mark.integration
def test_every_resource_is_valid_by_the_schema_of_the_standard() -> None:
    python = python_environment("py20305", PEER)
    (file,) = python.parents[1].glob("lib/*/site-packages/py20305/schemas/sep2_schema_2018.xsd")
    schema = etree.XMLSchema(etree.parse(file))

    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        assert (await http.post("/mup", content=mirror(-5))).status_code == 201
        place = subscription("https://a.example/b")
        assert (await http.post("/edev/0/sub", content=place)).status_code == 201
        assert await plant.send(-1_000.0)
        await controls(http)
        assert await plant.send(-2_000.0, revision=2)
        below = ("", "/fsa", "/fsa/1", "/der", "/der/1", "/sub", "/sub/1", "/derp", "/derp/1")
        below += ("/derp/1/derc", "/derp/1/actderc", "/derp/1/dderc")
        paths = ["/dcap", "/tm", "/edev", "/mup", *(f"/edev/{DEVICE_NO}{path}" for path in below)]
        for path in paths:
            answer = await http.get(f"{path}?l=9")
            assert answer.status_code == 200, path
            schema.assertValid(etree.fromstring(answer.content))

    play(act)
