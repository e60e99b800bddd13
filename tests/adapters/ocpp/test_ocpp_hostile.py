"""Peers that flood, babble, stall, or are somebody else: each is ended, and harms nobody."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import websockets
from tests.adapters.conformance.plant import DEVICE, SECRET, until
from tests.adapters.ocpp.conftest import Serve
from tests.adapters.ocpp.stations import basic, connected

from kapelle.adapters.ocpp.endpoint import OcppEndpoint
from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.errors import Invalid, LinkLost
from kapelle.model.blocks import Quarantined
from kapelle.model.enums import SessionEvent
from kapelle.registry.directory import Directory
from kapelle.runtime.clock import SystemClock

Run = Callable[[Callable[[], Any]], None]
HEARTBEAT = '[2,"{}","Heartbeat",{{}}]'


async def received(link: Any, begins: str) -> str:
    async with asyncio.timeout(20):
        while True:
            text = str(await link.recv())
            if text.startswith(begins):
                return text


def status(error: BaseException) -> int:
    assert isinstance(error, websockets.InvalidStatus)
    return error.response.status_code


@pytest.mark.parametrize(
    ("identity", "headers"),
    [
        (DEVICE, {}),
        (DEVICE, basic(DEVICE, "wrong")),
        (DEVICE, basic("dev-1", SECRET)),
        ("dev-1", basic(DEVICE, SECRET)),
        ("nobody", basic("nobody", SECRET)),
        (DEVICE, {"Authorization": "Basic !!"}),
        (DEVICE, {"Authorization": "Bearer " + SECRET}),
        ("%64ev-0", basic(DEVICE, SECRET)),
        ("x" * 60, basic("x" * 60, SECRET)),
    ],
)
def test_whoever_is_not_known_is_refused_alike(
    serve: Serve, run: Run, identity: str, headers: dict[str, str]
) -> None:
    async def check() -> None:
        async with serve() as served:
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with served.raw(identity=identity, additional_headers=headers):
                    pass
            assert status(refused.value) == 401
            assert refused.value.response.headers["WWW-Authenticate"].startswith("Basic")
            assert served.endpoint.counters.sessions == 0
            assert await served.plant.events() == []

    run(check)


@pytest.mark.parametrize("offered", [["ocpp1.5"], None])
def test_no_version_in_common(serve: Serve, run: Run, offered: list[str] | None) -> None:
    async def check() -> None:
        async with serve() as served:
            url = f"ws://127.0.0.1:{served.port}/{DEVICE}"
            headers = basic(DEVICE, SECRET)
            async with websockets.connect(
                url,
                subprotocols=offered,  # type: ignore[arg-type]
                additional_headers=headers,
            ) as link:
                with pytest.raises(websockets.ConnectionClosedError):
                    await link.recv()
                assert link.close_code == 1002

    run(check)


def test_the_version_a_station_prefers_is_taken(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve() as served:
            url = f"ws://127.0.0.1:{served.port}/any/prefix/{DEVICE}"
            offered: Any = ["ocpp9.9", "ocpp2.0.1", "ocpp1.6"]
            async with websockets.connect(
                url, subprotocols=offered, additional_headers=basic(DEVICE, SECRET)
            ) as link:
                assert link.subprotocol == "ocpp2.0.1"

    run(check)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("nonsense", '[4,"-1","ProtocolError"'),
        ('[2,"9"]', '[4,"-1","ProtocolError"'),
        ('[2,"9","MeterValues"]', '[4,"9","ProtocolError"'),
        ('[2,"9","MeterValues",{"connectorId":"x"}]', '[4,"9","TypeConstraintViolation"'),
        ('[2,"9","MeterValues",{}]', '[4,"9","ProtocolError"'),
        ('[2,"9","MeterValues",[[[[]]]]]', '[4,"9","TypeConstraintViolation"'),
        ('[2,"9","Explode",{}]', '[4,"9","NotImplemented"'),
        ('[2,"9","Heartbeat",7]', '[4,"9","TypeConstraintViolation"'),
    ],
)
def test_garbage_is_answered_and_kept_with_a_reason(
    serve: Serve, run: Run, text: str, answer: str
) -> None:
    async def check() -> None:
        async with serve() as served, served.raw() as link:
            await link.send(text)
            await received(link, answer)
            (reason,) = await served.plant.reasons()
            assert "; " in reason
            (block,) = await served.plant.stored(Quarantined)
            assert block.device_no.tolist() == [0]
            # It goes on: one message says nothing about the next.
            await link.send(HEARTBEAT.format("10"))
            await received(link, '[3,"10"')

    run(check)


def test_a_message_that_is_too_long_ends_the_connection(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve(message_size_max=10_000) as served, served.raw() as link:
            await link.send("[" + " " * 20_000)
            with pytest.raises(websockets.ConnectionClosedError):
                await received(link, "never")
            assert link.close_code == 1009
            await until(lambda: served.endpoint.counters.drops["message too big"] == 1)

    run(check)


def test_a_message_of_16_megabytes_is_not_waited_for(serve: Serve, run: Run) -> None:
    """Its head says how long it is: nothing of it is kept."""

    async def check() -> None:
        async with serve() as served, served.raw() as link:
            # A masked text frame of 16 MiB, of which a little comes.
            link.transport.write(b"\x81\xff" + (16 << 20).to_bytes(8, "big") + bytes(4 + 1_000))
            with pytest.raises(websockets.ConnectionClosed):
                await received(link, "never")
            assert link.close_code == 1009
            await until(lambda: served.endpoint.counters.drops["message too big"] == 1)
            # The others never knew.
            async with served.raw() as other:
                await other.send(HEARTBEAT.format("1"))
                await received(other, '[3,"1"')

    run(check)


def test_a_flood_is_read_slowly_and_harms_nobody(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with (
            serve(addresses=(DEVICE, "dev-1"), messages_per_s=20.0, messages_burst=20) as served,
            served.raw() as flooding,
            connected(served.port, "1.6", identity="dev-1") as station,
        ):

            async def flood() -> None:
                with suppress(websockets.ConnectionClosed):
                    for number in range(100_000):
                        await flooding.send(HEARTBEAT.format(number))

            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(flood())
                await station.boot()
                await station.plug_in()
                began = asyncio.get_running_loop().time()
                for power_w in range(-10, 0):
                    await station.measure(power_w)
                assert asyncio.get_running_loop().time() - began < 15
                took_s = asyncio.get_running_loop().time() - began
                assert served.endpoint.counters.calls < 200 + 40 * (took_s + 5)
                task.cancel()
            flooding.transport.abort()

    run(check)


def test_a_station_that_does_not_read_is_dropped(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve(call_s=0.5, messages_per_s=1e6, messages_burst=10**6) as served:
            narrow = socket.socket()
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            narrow.setblocking(False)
            await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", served.port))
            reader, writer = await asyncio.open_connection(sock=narrow)
            key = "x3JJHMbDL1EzLkh9GBhXDw=="
            word = basic(DEVICE, SECRET)["Authorization"]
            writer.write(
                f"GET /{DEVICE} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nAuthorization: {word}\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ocpp1.6\r\n\r\n".encode()
            )
            await reader.readuntil(b"\r\n\r\n")
            payload = b'[2,"' + b"i" * 60 + b'","Heartbeat",{}]'
            frame = bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload
            with suppress(ConnectionError):
                # Nothing is read here: answers fill every buffer on the way.
                reader._transport.pause_reading()  # type: ignore[attr-defined]
                for _ in range(400):
                    if served.endpoint.counters.drops["slow reader"]:
                        break
                    writer.write(frame * 200)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await writer.drain()
            await until(lambda: served.endpoint.counters.drops["slow reader"] == 1)
            await until(lambda: served.endpoint.counters.sessions == 0)
            writer.close()

    run(check)


def test_a_half_open_connection_is_noticed(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve(ping_s=0.3) as served, served.raw() as link:
            await until(lambda: served.endpoint.counters.sessions == 1)
            # From here on the peer is as one whose cable was pulled: nothing is read, no pong.
            link.transport.pause_reading()
            await until(lambda: served.endpoint.counters.sessions == 0)
            assert served.endpoint.counters.drops["ping unanswered"] == 1
            link.transport.abort()

    run(check)


def test_a_station_that_pings_and_says_nothing_is_dropped(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve(silence_s=0.5, sample_s=0) as served, served.raw() as link:
            with pytest.raises(websockets.ConnectionClosedError):
                await received(link, "never")
            assert served.endpoint.counters.drops["silent"] == 1

    run(check)


def test_handshakes_that_are_never_finished_end(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve(handshake_s=0.5) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"GET /dev-0 HTTP/1.1\r\nHost: x\r\n")
            async with asyncio.timeout(20):
                await reader.read()
            writer.close()
            await until(lambda: served.endpoint.counters.half_open == 0)

    run(check)


def test_more_connections_than_allowed_are_dropped_at_once(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve(connections_max=2) as served:
            idle = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(2)]
            await until(lambda: served.endpoint.counters.half_open == 2)
            with pytest.raises((OSError, EOFError, websockets.InvalidHandshake)):
                async with served.raw():
                    pass
            assert served.endpoint.counters.connects_refused["too many connections"] == 1
            for _, writer in idle:
                writer.close()
            await until(lambda: served.endpoint.counters.half_open == 0)
            async with served.raw():
                pass

    run(check)


def test_two_who_share_an_identity_raise_an_alarm_once(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve() as served:
            sockets = []
            for _ in range(6):
                sockets.append(await served.raw())
            await until(lambda: served.endpoint.counters.takeovers == 5)
            assert served.endpoint.counters.flaps == 1
            assert served.endpoint.counters.sessions == 1
            for link in sockets:
                await link.close()

    run(check)


def test_answers_nobody_waits_for_are_counted(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve() as served, served.raw() as link:
            await link.send('[3,"k99",{"status":"Accepted"}]')
            await link.send('[4,"x","GenericError","",{}]')
            await until(lambda: served.endpoint.counters.astray == 2)

    run(check)


# Security profiles.


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"host": "0.0.0.0"}, "ocpp.host"),
        ({"tls_certificate": "c.pem"}, "ocpp.tls_key"),
        ({"tls_client_authority": "ca.pem"}, "ocpp.tls_client_authority"),
    ],
)
def test_settings_that_would_expose_passwords_are_refused(
    settings: dict[str, str], place: str
) -> None:
    with pytest.raises(Invalid) as refused:
        OcppEndpoint(
            settings=OcppSettings(**settings),  # type: ignore[arg-type]
            directory=Directory(1),
            clock=SystemClock(),
        )
    assert refused.value.problems[0].where == place


def test_a_port_that_is_taken_is_a_lost_link(serve: Serve, run: Run) -> None:
    async def check() -> None:
        async with serve() as served:
            second = OcppEndpoint(
                settings=OcppSettings(port=served.port),
                directory=Directory(1),
                clock=SystemClock(),
            )
            with pytest.raises(LinkLost):
                async with second.open():
                    pass

    run(check)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an authority, the server's certificate and those of two stations."""
    return certified(tmp_path_factory.mktemp("authority"), "localhost", DEVICE, "dev-1")


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with another authority of the same name, and a certificate it signed."""
    return certified(tmp_path_factory.mktemp("other"), DEVICE)


def certified(folder: Path, *names: str) -> Path:
    """Make an authority in a folder, and certificates of these names; return the folder."""

    def openssl(*words: str) -> None:
        try:
            subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("needs the openssl command: it makes the certificates")

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    for name in names:
        (folder / "extension").write_text(f"subjectAltName=DNS:{name}\n")
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", "it.csr", "-subj", f"/CN={name}")
        openssl(
            *("x509", "-req", "-in", "it.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-extfile", "extension", "-out", f"{name}.pem"),
        )
    return folder


def client(authority: Path, name: str = "") -> Any:
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    if name:
        context.load_cert_chain(authority / f"{name}.pem", authority / f"{name}.key")
    return context


def tls(authority: Path, *, mutual: bool) -> dict[str, str]:
    settings = {
        "tls_certificate": str(authority / "localhost.pem"),
        "tls_key": str(authority / "localhost.key"),
    }
    return settings | ({"tls_client_authority": str(authority / "ca.pem")} if mutual else {})


def secure(served: Any, context: Any, headers: dict[str, str]) -> websockets.connect:
    return websockets.connect(
        f"wss://localhost:{served.port}/{DEVICE}",
        subprotocols=["ocpp2.0.1"],  # type: ignore[list-item]
        additional_headers=headers,
        ssl=context,
    )


def test_security_profile_2_is_tls_and_a_password(serve: Serve, run: Run, authority: Path) -> None:
    async def check() -> None:
        async with serve(**tls(authority, mutual=False)) as served:
            async with secure(served, client(authority), basic(DEVICE, SECRET)) as link:
                await link.send(HEARTBEAT.format("1"))
                await received(link, '[3,"1"')
            with pytest.raises(websockets.InvalidStatus):
                async with secure(served, client(authority), basic(DEVICE, "wrong")):
                    pass
            with pytest.raises((OSError, EOFError, websockets.InvalidMessage)):
                async with served.raw():  # without TLS
                    pass

    run(check)


def test_security_profile_3_is_a_certificate_of_the_stations_own(
    serve: Serve, run: Run, authority: Path
) -> None:
    async def check() -> None:
        async with serve(**tls(authority, mutual=True)) as served:
            async with secure(served, client(authority, DEVICE), {}) as link:
                await link.send(HEARTBEAT.format("1"))
                await received(link, '[3,"1"')
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with secure(served, client(authority, "dev-1"), basic(DEVICE, SECRET)):
                    pass
            assert status(refused.value) == 403
            with pytest.raises((OSError, EOFError, websockets.WebSocketException)):
                async with secure(served, client(authority), basic(DEVICE, SECRET)):
                    pass

            async def has_gone() -> bool:
                return await served.plant.events() == [SessionEvent.UP, SessionEvent.DOWN]

            await until(has_gone)

    run(check)


def test_a_certificate_of_another_authority_is_nobody_s(
    serve: Serve, run: Run, authority: Path, other_authority: Path
) -> None:
    async def check() -> None:
        async with serve(**tls(authority, mutual=True)) as served:
            forged = client(authority)
            forged.load_cert_chain(
                other_authority / f"{DEVICE}.pem", other_authority / f"{DEVICE}.key"
            )
            with pytest.raises((OSError, EOFError, websockets.WebSocketException)):
                async with secure(served, forged, basic(DEVICE, SECRET)) as link:
                    await link.recv()
            async with secure(served, client(authority, DEVICE), {}) as link:
                await link.send(HEARTBEAT.format("1"))
                await received(link, '[3,"1"')

    run(check)
