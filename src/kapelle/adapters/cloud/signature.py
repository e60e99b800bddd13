"""Whether a delivery is the vendor's own, and whether it has been here before. Pure."""

import base64
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Mapping

from kapelle.adapters.cloud.settings import CloudWebhook
from kapelle.model.ids import NS_PER_S

_STAMP = re.compile(r"\d{1,12}", re.ASCII)


def forgery(
    settings: CloudWebhook, headers: Mapping[str, str], body: bytes, now_ns: int
) -> str | None:
    """Return what is wrong with a delivery's signature; None where nothing is.

    The digest is compared in constant time. `headers`: names in lower case.
    """
    signed = body
    if settings.timestamp_header:
        stamp = headers.get(settings.timestamp_header.lower(), "")
        if not _STAMP.fullmatch(stamp):
            return "timestamp missing"
        if abs(now_ns - int(stamp) * NS_PER_S) > settings.skew_s_max * NS_PER_S:
            return "timestamp outside the window"
        signed = stamp.encode() + b"." + body
    given = headers.get(settings.signature_header.lower(), "")
    digest = hmac.new(settings.secret.encode(), signed, settings.algorithm).digest()
    is_hex = settings.encoding == "hex"
    made = digest.hex() if is_hex else base64.b64encode(digest).decode()
    wanted = settings.signature_prefix + made
    told = given.encode("utf-8", "surrogateescape")
    return None if hmac.compare_digest(told, wanted.encode()) else "signature wrong"


class Remembered:
    """Deliveries that are stored, by what was signed: a delivery id in a header is not, and whoever
    repeats a delivery could change it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, body: bytes) -> bool:
        return _name(body) in self._seen

    def add(self, body: bytes) -> None:
        """Remember a delivery; beyond the bound the oldest is forgotten.

        Nothing is lost by that: readings repeated change nothing, they are only stored again.
        """
        self._seen[_name(body)] = None
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)


def _name(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
