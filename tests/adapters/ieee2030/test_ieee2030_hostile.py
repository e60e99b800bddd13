"""Strangers, garbage, floods and silence over TLS: refused or ended, and nobody else notices."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from lxml import etree
from tests.adapters.conformance.plant import Plant, enrolled, opened, until
from tests.adapters.ieee2030.certificates import (
    Pair,
    client_tls,
    folder,
    signed,
)
from tests.adapters.ieee2030.trial import MUP, NS, mirror, settings

from kapelle.adapters.ieee2030.client import Client
from kapelle.adapters.ieee2030.controls import Controls
from kapelle.adapters.ieee2030.counters import Counters
from kapelle.adapters.ieee2030.endpoint import Ieee2030Endpoint
from kapelle.adapters.ieee2030.metering import Signs
from kapelle.adapters.ieee2030.resources import Library
from kapelle.adapters.ieee2030.route import respond
from kapelle.adapters.ieee2030.server import Request
from kapelle.adapters.mqtt.throttle import TokenBucket
from kapelle.errors import Invalid, LinkLost
from kapelle.runtime.clock import SystemClock

Http = httpx.AsyncClient
unhurried = effort(deadline=None)


@asynccontextmanager
async def serving(**more: object) -> AsyncIterator[tuple[Plant, Ieee2030Endpoint]]:
    directory = enrolled("ieee2030", signed("device").lfdi)
    endpoint = Ieee2030Endpoint(settings=settings(**more), directory=directory, clock=SystemClock())
    async with asyncio.timeout(60), opened(endpoint, directory) as plant:
        yield plant, endpoint


def browser(endpoint: Ieee2030Endpoint, tls: ssl.SSLContext) -> Http:
    return Http(verify=tls, base_url=f"https://127.0.0.1:{endpoint.port}", timeout=20)


def device(endpoint: Ieee2030Endpoint) -> Http:
    return browser(endpoint, client_tls(signed("device")))


def play(act: Callable[[Plant, Ieee2030Endpoint, Http], Awaitable[None]], **more: object) -> None:
    async def run() -> None:
        async with serving(**more) as (plant, endpoint), device(endpoint) as http:
            await act(plant, endpoint, http)

    asyncio.run(run())


async def raw(endpoint: Ieee2030Endpoint, pair: Pair | None = None) -> tuple[Any, Any]:
    tls = client_tls(pair if pair is not None else signed("device"))
    return await asyncio.open_connection("127.0.0.1", endpoint.port, ssl=tls)


async def said_to(endpoint: Ieee2030Endpoint, words: bytes) -> bytes:
    """Return all that is answered until the connection ends."""
    reader, writer = await raw(endpoint)
    try:
        writer.write(words)
        with suppress(ConnectionError):
            return bytes(await reader.read(-1))
        return b""
    finally:
        writer.transport.abort()


def test_the_suite_of_the_standard_is_spoken_and_nothing_weaker() -> None:
    async def act(_: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        _, writer = await raw(endpoint)
        assert writer.get_extra_info("cipher")[0] == "ECDHE-ECDSA-AES128-CCM8"
        writer.transport.abort()
        gcm = client_tls(signed("device"), "ECDHE-ECDSA-AES128-GCM-SHA256")
        async with browser(endpoint, gcm) as utility:
            assert (await utility.get("/dcap")).status_code == 200
        cbc = client_tls(signed("device"), "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0")
        newer = client_tls(signed("device"))
        newer.maximum_version = newer.minimum_version = ssl.TLSVersion.TLSv1_3
        for tls in (cbc, newer):
            async with browser(endpoint, tls) as other:
                with pytest.raises(httpx.TransportError):
                    await other.get("/dcap")

    play(act)


def test_who_has_no_certificate_of_the_authority_hears_nothing() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        for pair in (None, signed("device-of-others", "others")):
            async with browser(endpoint, client_tls(pair)) as stranger:
                with pytest.raises(httpx.TransportError):
                    await stranger.post("/mup", content=mirror(-5))
        assert await plant.power_w() == []

    play(act)


def test_who_is_not_enrolled_hears_403_and_sees_nobody() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        async with browser(endpoint, client_tls(signed("stranger"))) as stranger:
            for path in ("/dcap", "/edev", "/edev/0", "/edev/0/derp/1/derc"):
                answer = await stranger.get(path)
                assert answer.status_code == 403
                assert signed("stranger").lfdi in answer.text
            assert (await stranger.post("/mup", content=mirror(-5))).status_code == 403
        assert (await http.get("/edev/1")).status_code == 404
        assert (await http.get("/edev/00")).status_code == 404
        assert await plant.power_w() == []
        assert endpoint.counters.connects_refused["not enrolled"] == 5

    play(act)


def test_what_is_too_long_or_no_http_ends_its_connection_alone() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        assert (await http.post("/mup", content=b"x" * 70_000)).status_code == 413
        endless = b"POST /mup HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert b" 413 " in await said_to(endpoint, endless + b"11170\r\n" + b"x" * 70_000)
        assert b" 400 " in await said_to(endpoint, b"\x16\x03nonsense\r\n\r\n")
        assert b" 400 " in await said_to(endpoint, b"GET / HTTP/1.1\r\nA: " + b"a" * 40_000)
        smuggled = (
            b"POST /mup HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\n"
        )
        assert b" 400 " in await said_to(endpoint, smuggled)
        assert (await http.get("/dcap")).status_code == 200
        assert endpoint.counters.drops["no HTTP"] == 3

    play(act)


def test_who_dawdles_or_says_nothing_is_let_go() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        half = b"POST /mup HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n<"
        assert await asyncio.gather(said_to(endpoint, half), said_to(endpoint, b"")) == [b"", b""]
        assert endpoint.counters.drops["slow or idle"] == 2
        # One that never finishes its handshake.
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        with suppress(ConnectionError):
            assert await reader.read(-1) == b""
        writer.close()
        assert (await http.get("/dcap")).status_code == 200

    play(act, request_s=1.0, idle_s=1.0, handshake_s=2.0)


def test_connections_that_say_nothing_keep_others_waiting_for_a_moment_and_take_no_more() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", endpoint.port) for _ in range(20)]
        try:
            # Five at a time, half a second each: it waits behind those before it.
            assert (await http.get("/dcap")).status_code == 200
            await until(lambda: endpoint.counters.connects_refused["TLS handshake"] >= 15)
        finally:
            for _, writer in silent:
                writer.close()

    play(act, handshake_s=0.5, half_open_max=5)


def test_a_flood_is_told_to_wait_and_connections_are_counted() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        status = [(await http.get("/tm")).status_code for _ in range(20)]
        assert 429 in status
        assert status[0] == 200
        held = [await raw(endpoint) for _ in range(3)]
        refused = endpoint.counters.connects_refused
        name = "too many connections of one client"
        await until(lambda: refused[name] > 0)
        for _, writer in held:
            writer.transport.abort()

    play(act, requests_per_s=0.1, requests_burst=5, connections_per_client_max=2)


def test_garbage_is_answered_400_and_kept() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        for path in ("/mup", "/edev/0/rsp"):
            answer = await http.post(path, content=b"<nonsense>")
            assert answer.status_code == 400
            assert etree.fromstring(answer.content).tag == f"{{{NS}}}Error"
        assert (await http.put("/edev/0/der/1/ders", content=b"")).status_code == 400
        assert (await http.put("/edev/0/der/1/other", content=b"")).status_code == 404
        assert (await http.put("/dcap", content=b"")).status_code == 405
        assert (await http.post(f"/mup/{MUP}", content=mirror(1))).status_code == 404
        assert len(await plant.reasons()) == 3

    play(act)


def test_what_the_journal_does_not_take_is_to_be_sent_again() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        plant.fill_disk()
        answer = await http.post("/mup", content=mirror(-7))
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        plant.empty_disk()
        assert (await http.post("/mup", content=mirror(-7))).is_success
        assert await plant.power_w() == [-7.0]

    play(act)


def test_lists_come_in_pages_and_what_has_not_changed_is_not_sent_again() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        for number in range(3):
            posted = mirror(-7).replace(MUP, f"{number:032X}")
            assert (await http.post("/mup", content=posted)).status_code == 201
        first = etree.fromstring((await http.get("/mup")).content)
        assert (first.get("all"), first.get("results"), len(first)) == ("3", "1", 1)
        rest = etree.fromstring((await http.get("/mup?s=1&l=255")).content)
        assert (rest.get("all"), rest.get("results"), len(rest)) == ("3", "2", 2)
        odd = await http.get("/mup?s=-1&l=x&a=9&l=9&zz=%00")
        assert odd.status_code == 200
        known = await http.get("/edev")
        again = await http.get("/edev", headers={"If-None-Match": known.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await http.delete(f"/mup/{1:032X}")).status_code == 204
        assert (await http.delete(f"/mup/{1:032X}")).status_code == 404

    play(act)


def subscription(uri: str) -> str:
    return (
        f'<Subscription xmlns="{NS}"><subscribedResource>/edev/0/derp/1/derc</subscribedResource>'
        "<encoding>0</encoding><level>+S1</level><limit>1</limit>"
        f"<notificationURI>{uri}</notificationURI></Subscription>"
    )


def test_notifications_go_to_no_place_only_the_plant_can_reach() -> None:
    async def act(plant: Plant, endpoint: Ieee2030Endpoint, http: Http) -> None:
        called = asyncio.Event()

        async def listen(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            called.set()
            writer.close()

        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for bad in (
            "http://a/",
            "file:///etc/passwd",
            "https://",
            "https://u:p@host/",
            "x" * 9_000,
        ):
            answer = await http.post("/edev/0/sub", content=subscription(bad))
            assert answer.status_code == 400, bad
        for inside in (f"https://127.0.0.1:{port}/", f"https://[::ffff:127.0.0.1]:{port}/"):
            answer = await http.post("/edev/0/sub", content=subscription(inside))
            assert answer.status_code == 201
            assert (await http.get(answer.headers["Location"])).status_code == 200
        await until(lambda: plant.send(-500.0))
        await until(lambda: endpoint.counters.unnotified == 2)
        assert not called.is_set()
        assert (await http.delete(answer.headers["Location"])).status_code == 204
        server.close()

    play(act)


def test_settings_that_cannot_be_served_say_why_at_start() -> None:
    async def opens(**more: object) -> None:
        async with serving(**more):
            pass

    with pytest.raises(Invalid, match="mutual TLS"):
        asyncio.run(opens(tls_key=""))
    key, certificate = folder() / "rsa.key", folder() / "rsa.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=rsa"]
    subprocess.run(
        [*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    with pytest.raises(LinkLost, match="ECDSA key"):
        asyncio.run(opens(tls_key=str(key), tls_certificate=str(certificate)))
    with pytest.raises(LinkLost, match="its key cannot be used"):
        asyncio.run(opens(tls_key=str(key)))


paths = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(
            [
                *("edev", "0", "1", "derp", "derc", "actderc", "dderc", "der", "ders", "dercap"),
                *("fsa", "rg", "rsp", "sub", "mup", "dcap", "tm", "", "..", "9" * 40, "²", MUP),
            ]
        ),
        max_size=6,
    ).map(lambda parts: "/" + "/".join(parts)),
)


@unhurried
@given(
    st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "x"]),
    paths,
    st.dictionaries(st.sampled_from("sal"), st.text(max_size=6), max_size=3),
    st.sampled_from([b"", b"<", mirror(3).encode(), subscription("https://a.example/").encode()]),
)
def test_whatever_is_asked_there_is_an_answer(
    method: str, path: str, query: dict[str, str], body: bytes
) -> None:
    given_settings = settings()

    async def accept(_: object) -> list[str]:
        return []

    host: Any = SimpleNamespace(
        settings=given_settings,
        clock=SystemClock(),
        counters=Counters(),
        inbox=SimpleNamespace(accept=accept),
        library=Library(given_settings, {}),
    )
    lfdi = "A" * 40
    client = Client(lfdi, 0, Controls(lfdi), TokenBucket(1, 1, 0), Signs(), 0)
    answer = asyncio.run(respond(host, client, Request(lfdi, method, path, query, body, "")))
    assert 200 <= answer.status < 500
