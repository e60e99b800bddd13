"""Whether a delivery is the vendor's own, and whether it has been here before. Pure."""

import base64
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from kapelle.adapters.cloud.settings import CloudWebhook
from kapelle.model.ids import NS_PER_S

_STAMP = re.compile(r"\d{1,12}", re.ASCII)
_SIGNATURES_MAX = 16
"""A vendor signs with an old and a new key while it changes them."""


class Genuine(NamedTuple):
    """A delivery that the vendor has signed."""

    signed: bytes
    """What the signature is over: the delivery's name, as ids in unsigned headers are not."""
    at_ns: int
    """When it was signed; 0 where the vendor does not say."""


def examine(
    settings: CloudWebhook, headers: Mapping[str, str], body: bytes, now_ns: int
) -> Genuine | str:
    """Return a delivery that is the vendor's, or what is wrong with its signature.

    HMAC (RFC 2104) over the body, or over `<timestamp>.<body>`, or, as Standard Webhooks 1.0 have
    it, over `<id>.<timestamp>.<body>`. Digests are compared in constant time.

    Args:
        settings: Which of them, and the key.
        headers: Names in lower case.
        body: As it was sent.
        now_ns: Timestamps far from it are a replay.
    """
    signed, at_ns = body, 0
    if settings.timestamp_header:
        stamp = headers.get(settings.timestamp_header.lower(), "")
        if not _STAMP.fullmatch(stamp):
            return "timestamp missing"
        at_ns = int(stamp) * NS_PER_S
        if abs(now_ns - at_ns) > settings.skew_s_max * NS_PER_S:
            return "timestamp outside the window"
        signed = stamp.encode() + b"." + signed
    if settings.id_header:
        name = headers.get(settings.id_header.lower(), "")
        signed = name.encode("latin-1", "replace") + b"." + signed
    digest = hmac.new(settings.key, signed, settings.algorithm).digest()
    is_hex = settings.encoding == "hex"
    made = digest.hex() if is_hex else base64.b64encode(digest).decode()
    wanted = (settings.signature_prefix + made).encode()
    told = headers.get(settings.signature_header.lower(), "").split(" ")[:_SIGNATURES_MAX]
    # All are compared: how long it takes does not tell which one fits.
    fits = [hmac.compare_digest(one.encode("utf-8", "surrogateescape"), wanted) for one in told]
    return Genuine(signed, at_ns) if any(fits) else "signature wrong"


class Remembered:
    """Deliveries that are stored, by what was signed: whoever repeats one could change the rest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, signed: bytes) -> bool:
        return _name(signed) in self._seen

    def add(self, signed: bytes) -> None:
        """Remember a delivery; beyond the bound, and over a restart, the oldest are forgotten.

        Nothing is lost by that: what they say bears its time, so that it changes nothing again.
        """
        self._seen[_name(signed)] = None
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)


def _name(signed: bytes) -> bytes:
    return hashlib.sha256(signed).digest()
