"""Who may connect, under which name, in which version; and how the connection is kept private."""

import ssl
from collections.abc import Mapping
from typing import NamedTuple

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader
from websockets.headers import parse_authorization_basic

from kapelle.adapters.ocpp.dialect import Dialect
from kapelle.adapters.ocpp.settings import OcppSettings
from kapelle.adapters.ocpp.station import STATION
from kapelle.adapters.ocpp.v2 import V2, V21, V201
from kapelle.adapters.ocpp.v16 import V16
from kapelle.errors import Invalid, Problem
from kapelle.ports import Directory
from kapelle.runtime.exposure import is_loopback

IDENTITY_CHARS_MAX = 48
"""OCPP 2.0.1 part 4, 3.1.1."""
_EVSES_ENROLLED_MAX = 16
_SPOKEN: tuple[Dialect, ...] = (V16(), V2(V201), V2(V21))
DIALECTS = {dialect.name: dialect for dialect in _SPOKEN}


class Admitted(NamedTuple):
    """A station that may speak."""

    identity: str
    devices: Mapping[int, int]
    """Device number by scope: 0 for the whole station, else the EVSE's number."""


class Barred(NamedTuple):
    """Why a connection is refused."""

    status: int
    """Of HTTP."""
    reason: str


def devices_of(directory: Directory, identity: str) -> dict[int, int]:
    """Return the devices of a station: `identity` is the whole, `identity/2` its second EVSE."""
    reached = directory.reached_by("ocpp")
    names = {STATION: identity}
    names |= {evse: f"{identity}/{evse}" for evse in range(1, _EVSES_ENROLLED_MAX + 1)}
    return {scope: reached[name] for scope, name in names.items() if name in reached}


def admit(
    socket: ServerConnection, path: str, headers: Headers, directory: Directory, mutual: bool
) -> Admitted | Barred:
    """Return which station this is, or why it may not come in.

    Who is not enrolled hears what he hears who brings a wrong password, as late.
    """
    identity = _identity(path)
    devices = devices_of(directory, identity) if identity else {}
    if mutual:
        if identity not in _names(socket):
            return Barred(403, "the certificate is another station's")
        return Admitted(identity, devices) if devices else Barred(404, "not enrolled")
    try:
        scheme_and_rest = headers.get("Authorization", "")
        user, secret = parse_authorization_basic(scheme_and_rest)
    except (InvalidHeader, ValueError):
        return Barred(401, "no password")
    first = min(devices, default=None)
    name = directory.name(devices[first]) if first is not None else ""
    known = directory.authenticate(name, secret) is not None
    if not known or user != identity or not identity:
        return Barred(401, "wrong identity or password")
    return Admitted(identity, devices)


def choose(offered: list[str]) -> str | None:
    """Return the version a station prefers among those spoken here (RFC 6455, 4.1)."""
    return next((name for name in offered if name in DIALECTS), None)


def check(settings: OcppSettings) -> None:
    """Refuse what must not be served: passwords in the clear where other machines can listen."""
    problems = []
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        problems.append(
            Problem("ocpp.tls_key", "certificate and key belong together", "name both files")
        )
    if settings.tls_client_authority and not settings.tls_certificate:
        what = "mutual TLS needs a certificate of ours"
        problems.append(
            Problem("ocpp.tls_client_authority", what, "set tls_certificate and tls_key")
        )
    if not (settings.tls_certificate or settings.insecure or is_loopback(settings.host)):
        problems.append(
            Problem(
                "ocpp.host",
                f"{settings.host} is reachable from other machines and there is no TLS",
                "set tls_certificate and tls_key, or insecure = true on a network you trust",
            )
        )
    if problems:
        raise Invalid("the OCPP settings cannot be used", problems)


def tls(settings: OcppSettings) -> ssl.SSLContext | None:
    """Return how connections are made private; None: they are not. Raises OSError."""
    if not settings.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    if settings.tls_client_authority:
        context.load_verify_locations(settings.tls_client_authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _identity(path: str) -> str:
    """Return the last part of a path, whatever prefix stands before it; empty where it is none."""
    name = path.partition("?")[0].rstrip("/").rpartition("/")[2]
    allowed = name.isascii() and not set(name) - _IDENTITY
    return name if allowed and 0 < len(name) <= IDENTITY_CHARS_MAX else ""


_IDENTITY = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789*-_=:+|@.")
"""`identifierString` of OCPP 2.0.1, part 2."""


def _names(socket: ServerConnection) -> set[str]:
    """Return what the certificate of a station calls it."""
    shown = socket.transport.get_extra_info("peercert") or {}
    names = {value for kind, value in shown.get("subjectAltName", ()) if kind == "DNS"}
    parts = [pair for part in shown.get("subject", ()) for pair in part]
    return names | {value for kind, value in parts if kind == "commonName"}
