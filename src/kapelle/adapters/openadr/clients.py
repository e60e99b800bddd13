"""Who calls: gateways by what is enrolled, the business party by the settings, and their tokens.

A gateway is a VEN. Devices are enrolled with its name as their address, or `<gateway>/<resource>`
where it has several; its client id is that name, its secret that of the device enrolled first.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kapelle.adapters.mqtt.throttle import TokenBucket
from kapelle.adapters.openadr.settings import OpenAdrSettings
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Directory

ADAPTER = "openadr"
_TOKENS_MAX = 16
"""Of one client; the oldest goes."""
_WRONG_PER_S, _WRONG_BURST = 0.5, 20
"""Wrong secrets for one client from one address: guessing is slow, and locks nobody else out."""
_GUESSED_MAX = 10_000
"""Pairs of address and client that are remembered; the oldest goes."""


class Client(NamedTuple):
    """Whoever has a token."""

    id: str
    is_business: bool


@dataclass(slots=True)
class Gateway:
    """A VEN, as it is enrolled."""

    name: str
    devices: dict[str, int] = field(default_factory=dict)
    """By the name of the resource, which is the gateway's own where it is one device."""

    def target(self, resource: str) -> str:
        """Return the target that only this resource has."""
        return self.name if resource == self.name else f"{self.name}/{resource}"


class Gateways:
    """All enrolled gateways, worked out anew when the enrolment has changed."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._version = -1
        self._by_name: dict[str, Gateway] = {}
        self._by_device: dict[int, tuple[Gateway, str]] = {}

    def refresh(self) -> bool:
        """Look at the enrolment again; return whether it has changed."""
        if self._directory.version == self._version:
            return False
        self._version = self._directory.version
        self._by_name, self._by_device = {}, {}
        for address, device_no in self._directory.reached_by(ADAPTER).items():
            name, _, rest = address.partition("/")
            if not name or len(address) > 128:
                continue
            gateway = self._by_name.setdefault(name, Gateway(name))
            gateway.devices[rest or name] = device_no
            self._by_device[device_no] = gateway, rest or name
        return True

    def named(self, name: str) -> Gateway | None:
        """Return a gateway, None where it is not enrolled."""
        self.refresh()
        return self._by_name.get(name)

    def of_device(self, device_no: int) -> tuple[Gateway, str] | None:
        """Return the gateway of a device, and what it calls it."""
        self.refresh()
        return self._by_device.get(device_no)

    def everyone(self) -> list[Gateway]:
        """Return all of them."""
        self.refresh()
        return list(self._by_name.values())


@dataclass(slots=True)
class _Token:
    client: Client
    until_ns: int
    device_no: int
    """Whose secret it was given for; -1 for the business party."""
    generation: int


class Clients:
    """Tokens: random, kept in memory as digests, gone with the process and with the enrolment."""

    def __init__(
        self,
        *,
        settings: OpenAdrSettings,
        directory: Directory,
        gateways: Gateways,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._gateways = gateways
        self._clock = clock
        self._tokens: dict[bytes, _Token] = {}
        self._of_client: dict[str, list[bytes]] = {}
        self._rates: dict[str, TokenBucket] = {}
        self._wrong: dict[tuple[str, str], TokenBucket] = {}
        """By address and client id, those who erred."""

    def issue(self, client_id: str, secret: str, address: str) -> str | None:
        """Return a token for these credentials, None where they are wrong.

        `address`: where they came from.
        """
        found = self._authenticate(client_id, secret)
        if found is None:
            self._note_wrong(address, client_id)
            return None
        client, device_no = found
        token = secrets.token_urlsafe(32)
        digest = _digest(token)
        until_ns = self._clock.now_ns() + int(self._settings.token_s * NS_PER_S)
        held = self._of_client.setdefault(client.id, [])
        held.append(digest)
        self._tokens[digest] = _Token(client, until_ns, device_no, self._generation(device_no))
        while len(held) > _TOKENS_MAX:
            self._tokens.pop(held.pop(0), None)
        return token

    def guess_wait_s(self, address: str, client_id: str) -> float:
        """Return how long an address that erred too often for a client has to wait. [s]"""
        bucket = self._wrong.get((address, client_id))
        return 0.0 if bucket is None else bucket.take(0, self._clock.now_ns())

    def _note_wrong(self, address: str, client_id: str) -> None:
        now_ns, key = self._clock.now_ns(), (address, client_id)
        bucket = self._wrong.get(key)
        if bucket is None:
            while len(self._wrong) >= _GUESSED_MAX:
                del self._wrong[next(iter(self._wrong))]
            bucket = self._wrong[key] = TokenBucket(_WRONG_PER_S, _WRONG_BURST, now_ns)
        bucket.take(1, now_ns)

    def who(self, authorization: str) -> Client | None:
        """Return whose bearer token this is; None where it is nobody's, or no longer good."""
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = _digest(value.strip())
        token = self._tokens.get(digest)
        if token is None:
            return None
        is_enrolled = token.client.is_business or self._gateways.named(token.client.id) is not None
        if (
            not is_enrolled
            or self._clock.now_ns() > token.until_ns
            or self._generation(token.device_no) != token.generation
        ):
            self._drop(digest, token)
            return None
        return token.client

    def wait_s(self, client: Client) -> float:
        """Count a request; return how long the client should have waited. [s]"""
        settings, now_ns = self._settings, self._clock.now_ns()
        bucket = self._rates.get(client.id)
        if bucket is None:
            bucket = TokenBucket(settings.requests_per_s, settings.requests_burst, now_ns)
            self._rates[client.id] = bucket
        if (wait_s := bucket.take(1, now_ns)) > 0:
            # What is refused costs nothing: a flood ends when it ends.
            bucket.take(-1, now_ns)
        return wait_s

    def _authenticate(self, client_id: str, secret: str) -> tuple[Client, int] | None:
        settings = self._settings
        if client_id == settings.business_id and client_id:
            wanted = settings.business_secret.encode()
            genuine = hmac.compare_digest(secret.encode("utf-8", "replace"), wanted)
            return (Client(client_id, True), -1) if genuine else None
        gateway = self._gateways.named(client_id)
        first = min(gateway.devices.values()) if gateway is not None else -1
        # Who is not enrolled waits as long as who errs in the secret.
        name = self._directory.name(first) if gateway is not None else ""
        genuine = self._directory.authenticate(name, secret) is not None
        return (Client(client_id, False), first) if genuine and gateway is not None else None

    def _generation(self, device_no: int) -> int:
        if device_no < 0:
            return -1
        return int(self._directory.generation(np.array([device_no], np.int32))[0])

    def _drop(self, digest: bytes, token: _Token) -> None:
        del self._tokens[digest]
        held = self._of_client[token.client.id]
        held.remove(digest)
        if not held:
            del self._of_client[token.client.id]
            self._rates.pop(token.client.id, None)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
