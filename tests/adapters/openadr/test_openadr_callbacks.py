"""Callbacks: to whom, where they may go, and what slow or hostile ones cost."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from tests.adapters.conformance.plant import DEVICE, until
from tests.adapters.openadr.site import BUSINESS_SECRET, OTHER_SECRET, Site, site

from kapelle.model.enums import AckStatus

_NAME = "gateway.test"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a certificate for `gateway.test` that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", f"/CN={_NAME}", "-keyout", str(files[1])]
    command += ["-addext", f"subjectAltName=DNS:{_NAME}", "-out", str(files[0])]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return files


@dataclass
class Receiver:
    """A gateway's web server."""

    port: int = 0
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    delay_s: float = 0.0
    requests: list[tuple[str, dict]] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().split("content-length:")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        await asyncio.sleep(self.delay_s)
        self.requests.append((head, body))
        writer.write(self.answer)
        await writer.drain()
        writer.close()

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(body["operation"], body["objectType"]) for _, body in self.requests]


@asynccontextmanager
async def receiving(certificate: tuple[Path, Path]) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


async def at_home(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


@asynccontextmanager
async def subscribing(
    certificate: tuple[Path, Path],
    *,
    networks: tuple[str, ...] = ("127.0.0.0/8",),
    resolve: Callable = at_home,
    name: str = _NAME,
    **settings: object,
) -> AsyncIterator[tuple[Site, Receiver, httpx.AsyncClient]]:
    """Open a site in which `dev-0` has subscribed to all there is."""
    more = {"callback_authority": str(certificate[0]), "callback_networks": networks} | settings
    async with (
        asyncio.timeout(60),
        receiving(certificate) as receiver,
        site(resolve=resolve, **more) as opened,
        opened.client(DEVICE) as client,
    ):
        watched = {
            "objects": ["PROGRAM", "EVENT", "REPORT"],
            "operations": ["CREATE", "UPDATE", "DELETE"],
            "callbackUrl": f"https://{name}:{receiver.port}/told?who=me",
            "bearerToken": "let-me-in",
        }
        subscription = {"clientName": DEVICE, "objectOperations": [watched]}
        answer = await client.post("/subscriptions", json=subscription)
        assert answer.status_code == 201, answer.text
        yield opened, receiver, client


def test_a_subscriber_is_called_and_its_answer_is_evidence_of_receipt(
    certificate: tuple[Path, Path],
) -> None:
    async def run() -> None:
        async with subscribing(certificate) as (opened, receiver, _):
            await until(lambda: opened.plant.send(-2_000.0))

            async def received() -> bool:
                return await opened.plant.answers() == [(1, AckStatus.RECEIVED)]

            await until(received)
            head, body = receiver.requests[-1]
            assert head.startswith("POST /told?who=me HTTP/1.1\r\n")
            assert "Authorization: Bearer let-me-in\r\n" in head
            assert (body["operation"], body["objectType"]) == ("CREATE", "EVENT")
            assert body["object"]["targets"] == [DEVICE]
            payload = body["object"]["intervals"][0]["payloads"][0]
            assert payload == {"type": "DISPATCH_SETPOINT", "values": [2.0]}
            assert await opened.plant.send(float("nan"), revision=2)
            await until(lambda: receiver.kinds[-1] == ("UPDATE", "EVENT"))

    asyncio.run(run())


def test_nobody_hears_of_what_he_may_not_see(certificate: tuple[Path, Path]) -> None:
    async def run() -> None:
        async with (
            subscribing(certificate) as (opened, receiver, _),
            opened.client("gw", OTHER_SECRET),
            opened.client("business", BUSINESS_SECRET) as business,
        ):
            program = {"programName": "theirs", "targets": ["gw/pv"]}
            assert (await business.post("/programs", json=program)).status_code == 201
            await business.post("/programs", json={"programName": "everyone's"})
            await until(lambda: receiver.requests)
            await asyncio.sleep(0.2)
            assert [body["object"]["programName"] for _, body in receiver.requests] == [
                "everyone's"
            ]

    asyncio.run(run())


@pytest.mark.parametrize(
    "wrong", ["not allowed", "rebinding", "another name", "redirect", "garbage", "endless head"]
)
def test_where_a_callback_must_not_go_it_does_not(
    certificate: tuple[Path, Path], wrong: str
) -> None:
    async def both(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.1"]

    async def run() -> None:
        given: dict = {"callback_tries": 1}
        if wrong == "not allowed":
            given["networks"] = ()
        if wrong == "rebinding":
            given |= {"networks": (), "resolve": both}
        if wrong == "another name":
            given["name"] = "other.test"
        async with subscribing(certificate, **given) as (opened, receiver, _):
            if wrong == "redirect":
                receiver.answer = b"HTTP/1.1 307 Go\r\nLocation: https://127.0.0.1/\r\n\r\n"
            if wrong == "garbage":
                receiver.answer = b"\xff\xff 200 \r\n\r\n" * 3
            if wrong == "endless head":
                receiver.answer = b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000
            await until(lambda: opened.plant.send(-2_000.0))
            counters = opened.vtn.counters
            await until(lambda: counters.callbacks_given_up)
            if wrong in ("not allowed", "rebinding", "another name"):
                assert receiver.requests == []
            assert await opened.plant.answers() == []

    asyncio.run(run())


def test_the_address_that_was_checked_is_the_one_that_is_called(
    certificate: tuple[Path, Path],
) -> None:
    """A name that stands for another place a moment later (DNS rebinding) gains nothing."""
    asked: list[str] = []

    async def rebound(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    async def run() -> None:
        async with subscribing(certificate, resolve=rebound) as (opened, receiver, _):
            await until(lambda: opened.plant.send(-2_000.0))
            await until(lambda: receiver.requests)
            assert asked == [_NAME]

    asyncio.run(run())


def test_a_slow_callback_costs_so_many_attempts_and_no_other_client(
    certificate: tuple[Path, Path],
) -> None:
    async def run() -> None:
        limits = {"callback_s": 0.2, "callback_tries": 2, "callbacks_waiting_max": 5}
        async with (
            subscribing(certificate, **limits) as (opened, receiver, client),
            opened.client("business", BUSINESS_SECRET) as business,
        ):
            receiver.delay_s = 5.0
            for number in range(12):
                await business.post("/programs", json={"programName": f"p{number}"})
            assert (await client.get("/programs")).status_code == 200
            counters = opened.vtn.counters
            await until(lambda: counters.callbacks_given_up >= 6)
            assert counters.callbacks_sent <= 2 * 12

    asyncio.run(run())


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway.test/",
        "https:///nowhere",
        "https://user:secret@gateway.test/",
        "https://gateway.test:99999/",
        "https://gateway.test/\r\nX: y",
        "ftp://gateway.test/",
        "https://gateway.test\\@127.0.0.1/",
    ],
)
def test_urls_that_are_no_callbacks_are_refused_at_once(url: str) -> None:
    async def run() -> None:
        async with site() as opened, opened.client(DEVICE) as client:
            watched = {"objects": ["EVENT"], "operations": ["CREATE"], "callbackUrl": url}
            body = {"clientName": DEVICE, "objectOperations": [watched]}
            answer = await client.post("/subscriptions", json=body)
            assert answer.status_code == 400

    asyncio.run(run())


def test_another_partys_callback_says_nothing_of_the_gateway(
    certificate: tuple[Path, Path],
) -> None:
    async def run() -> None:
        async with (
            subscribing(certificate) as (opened, receiver, client),
            opened.client("business", BUSINESS_SECRET) as business,
        ):
            (mine,) = (await client.get("/subscriptions")).json()
            theirs = {key: mine[key] for key in ("clientName", "objectOperations")}
            assert (await client.delete(f"/subscriptions/{mine['id']}")).status_code == 200
            assert (await business.post("/subscriptions", json=theirs)).status_code == 201
            await until(lambda: opened.plant.send(-2_000.0))
            await until(lambda: ("CREATE", "EVENT") in receiver.kinds)
            await asyncio.sleep(0.2)
            assert await opened.plant.answers() == []

    asyncio.run(run())
