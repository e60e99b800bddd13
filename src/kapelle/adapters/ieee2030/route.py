"""What becomes of each request: read a resource, take a message in, answer once it is durable."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

from envoy_schema.server.schema.sep2.types import ReasonCodeType

from kapelle.adapters.ieee2030 import metering
from kapelle.adapters.ieee2030.client import Client
from kapelle.adapters.ieee2030.codec import Misread, Part, decode
from kapelle.adapters.ieee2030.counters import Counters
from kapelle.adapters.ieee2030.elements import Page, error_xml, home_of
from kapelle.adapters.ieee2030.metering import Mirror, Moment
from kapelle.adapters.ieee2030.notices import subscription_of
from kapelle.adapters.ieee2030.resources import Library
from kapelle.adapters.ieee2030.server import Request, Response
from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.adapters.ieee2030.status import read_status
from kapelle.adapters.ieee2030.store import DOCUMENTS, SUBSCRIPTIONS
from kapelle.adapters.inbox import Answer, Heard, Inbox, NotStored, Report, Unreadable
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock

SEP_XML = "application/sep+xml"
RETRY_S = 5
_DIGITS_MAX = 12
_DOCUMENTS = {**DOCUMENTS, "dera": "DERAvailability", "ders": "DERStatus"}
_RESPONSES = ("DERControlResponse", "Response")
_INVALID = ReasonCodeType.invalid_request_values


class Host(Protocol):
    """What a route needs from whoever listens."""

    settings: Ieee2030Settings
    clock: Clock
    counters: Counters
    inbox: Inbox
    library: Library


async def respond(host: Host, client: Client, request: Request) -> Response:
    """Answer a request of a client that is enrolled."""
    path = request.path.rstrip("/") or "/"
    if request.method in ("GET", "HEAD"):
        return _read(host, client, path, request)
    home = home_of(client)
    if path.startswith("/edev/") and not f"{path}/".startswith(f"{home}/"):
        return Response(404)  # What is another's is not there.
    if request.method == "POST":
        if path == "/mup":
            return await _make_mirror(host, client, request.body)
        if path.startswith("/mup/"):
            return await _take_readings(host, client, path[5:], request.body)
        if path == f"{home}/rsp":
            return await _take_response(host, client, request.body)
        if path == f"{home}/sub":
            return await _subscribe(host, client, request.body)
        if path == "/edev":
            return _register(client, request.body)
    if request.method == "PUT" and path.startswith(f"{home}/der/1/"):
        return await _take_document(host, client, path.rpartition("/")[2], request.body)
    if request.method == "DELETE":
        return Response(204 if _forget(client, path) else 404)
    return Response(405, headers=(("Allow", "GET, HEAD"),))


def _read(host: Host, client: Client, path: str, request: Request) -> Response:
    page = Page.of(request.query)
    body = host.library.read(client, path, page, host.clock.now_ns())
    if body is None:
        return Response(404)
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    if etag in request.etag:
        return Response(304, headers=(("ETag", etag),))
    return Response(200, body, (("Content-Type", SEP_XML), ("ETag", etag)))


def _register(client: Client, body: bytes) -> Response:
    """Let a client register itself in band: it is enrolled already, or it would not be heard."""
    part = decode(body, ("EndDevice",))
    if isinstance(part, Misread):
        return _bad(part.reason)
    lfdi = part.hexadecimal("lFDI", 40)
    if lfdi and lfdi != client.lfdi:
        return Response(403, error_xml(_INVALID, "lFDI is not the certificate's"), _XML)
    return Response(201, headers=(("Location", home_of(client)),))


def _forget(client: Client, path: str) -> bool:
    """Forget a mirror or a subscription; return whether there was one."""
    if path.startswith("/mup/"):
        return client.mirrors.pop(path[5:], None) is not None
    number = path.removeprefix(f"{home_of(client)}/sub/")
    is_number = number.isascii() and number.isdigit() and len(number) < _DIGITS_MAX
    client.unkept.add(SUBSCRIPTIONS)
    return is_number and client.subscriptions.pop(int(number), None) is not None


async def _subscribe(host: Host, client: Client, body: bytes) -> Response:
    part = decode(body, ("Subscription",))
    if isinstance(part, Misread):
        return await _refuse(host, client, body, part.reason)
    made = subscription_of(client, part)
    if isinstance(made, str):
        return Response(400, error_xml(_INVALID, made), _XML)
    for known in client.subscriptions.values():
        if (known.resource, known.uri) == (made.resource, made.uri):
            made.number = known.number
    if not made.number:
        if len(client.subscriptions) >= host.settings.subscriptions_max:
            full = error_xml(ReasonCodeType.resource_limit_reached, "too many subscriptions")
            return Response(400, full, _XML)
        client.last_number += 1
        made.number = client.last_number
    client.subscriptions[made.number] = made
    client.unkept.add(SUBSCRIPTIONS)
    return Response(201, headers=(("Location", f"{home_of(client)}/sub/{made.number}"),))


async def _make_mirror(host: Host, client: Client, body: bytes) -> Response:
    part = decode(body, ("MirrorUsagePoint",))
    if isinstance(part, Misread):
        return await _refuse(host, client, body, part.reason)
    made = metering.mirror_of(part)
    if isinstance(made, str):
        return await _refuse(host, client, body, made)
    mirror = client.mirrors.get(made.mrid, made)
    mirror.role = made.role
    if made.mrid not in client.mirrors and len(client.mirrors) >= host.settings.mirrors_max:
        full = error_xml(ReasonCodeType.resource_limit_reached, "too many mirror usage points")
        return Response(400, full, _XML)
    status = 204 if made.mrid in client.mirrors else 201
    client.mirrors[made.mrid] = mirror
    where = (("Location", f"/mup/{made.mrid}"),)
    return await _measured(host, client, mirror, part, body, Response(status, headers=where))


async def _take_readings(host: Host, client: Client, mrid: str, body: bytes) -> Response:
    mirror = client.mirrors.get(mrid)
    if mirror is None:
        # After a restart nothing is known of mirrors: by the standard the client makes it again.
        return Response(404)
    part = decode(body, ("MirrorMeterReading", "MirrorMeterReadingList", "MirrorUsagePoint"))
    if isinstance(part, Misread):
        return await _refuse(host, client, body, part.reason)
    where = (("Location", f"/mup/{mrid}"),)
    return await _measured(host, client, mirror, part, body, Response(201, headers=where))


async def _measured(
    host: Host, client: Client, mirror: Mirror, part: Part, body: bytes, done: Response
) -> Response:
    is_one = part.name == "MirrorMeterReading"
    readings = [part] if is_one else part.all("MirrorMeterReading")
    moments, problems = metering.apply_readings(mirror, readings, client.signs)
    return await _keep(host, client, body, done, moments, problems)


async def _take_document(host: Host, client: Client, name: str, body: bytes) -> Response:
    if name not in _DOCUMENTS:
        return Response(404)
    part = decode(body, (_DOCUMENTS[name],))
    if isinstance(part, Misread):
        return await _refuse(host, client, body, part.reason)
    moments = read_status(part) if name == "ders" else []
    kept = await _keep(host, client, body, Response(204), moments, [])
    if kept.status == 204:
        client.documents[name] = body
        client.take(part)
        if name in DOCUMENTS:
            client.unkept.add(name)
    return kept


async def _take_response(host: Host, client: Client, body: bytes) -> Response:
    part = decode(body, _RESPONSES)
    if isinstance(part, Misread):
        return await _refuse(host, client, body, part.reason)
    subject, status = part.hexadecimal("subject", 32), part.whole("status")
    if not subject or status is None:
        return await _refuse(
            host, client, body, "response: subject or status: is missing; send both"
        )
    now_s = host.clock.now_ns() // NS_PER_S
    answer = client.controls.respond(client.device_no, subject, status, now_s)
    done = Response(201, headers=(("Location", f"{home_of(client)}/rsp/{subject}-{status}"),))
    if isinstance(answer, str):
        # One that comes after a restart, or late. The client is to forget it; nobody needs it.
        host.counters.astray += 1
        return done
    if answer is None:
        return done
    if answer.status is AckStatus.RECEIVED:
        host.counters.commands_received += 1
    return await _keep(host, client, body, done, answers=[answer])


async def _keep(
    host: Host,
    client: Client,
    body: bytes,
    done: Response,
    moments: Sequence[Moment] = (),
    problems: Sequence[str] = (),
    answers: Sequence[Answer] = (),
) -> Response:
    """Hand a message on and answer once it is durable."""
    if not moments and not problems and not answers:
        return done
    host.counters.unreadable += len(problems)
    reports = [Report(client.device_no, moment.values, moment.at_ns) for moment in moments]
    unreadable = [Unreadable(client.device_no, problem) for problem in problems]
    try:
        await host.inbox.accept(Heard(client.lfdi, body, reports, answers, unreadable))
    except NotStored:
        host.counters.declined += 1
        later = error_xml(ReasonCodeType.internal_error, "send it again", RETRY_S)
        return Response(503, later, (*_XML, ("Retry-After", str(RETRY_S))))
    return done


async def _refuse(host: Host, client: Client, body: bytes, reason: str) -> Response:
    return await _keep(host, client, body, _bad(reason), problems=[reason])


def unknown(lfdi: str) -> Response:
    """Answer whoever has a certificate of the authority and is not enrolled: by which name."""
    return Response(403, error_xml(_INVALID, f"no device is enrolled as {lfdi}"), _XML)


def _bad(reason: str) -> Response:
    return Response(400, error_xml(ReasonCodeType.invalid_request_format, reason), _XML)


_XML = (("Content-Type", SEP_XML),)
