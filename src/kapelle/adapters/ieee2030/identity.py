"""Who a client is: names made from its certificate (IEEE 2030.5-2018, 6.3.4 and 8.3.1)."""

import hashlib
import re
from collections.abc import Mapping

_LFDI = re.compile(r"[0-9A-F]{40}")


def lfdi_of(certificate: bytes) -> str:
    """Return the long form device identifier: the first 160 bits of a certificate's SHA-256.

    Args:
        certificate: DER.

    Returns:
        40 hexadecimal digits, upper case.
    """
    return hashlib.sha256(certificate).hexdigest()[:40].upper()


def sfdi_of(lfdi: str) -> int:
    """Return the short form: the first 36 bits in decimal and a digit that makes the sum of all
    digits a multiple of ten."""
    base = int(lfdi[:9], 16)
    return base * 10 + -sum(map(int, str(base))) % 10


def plain(text: str) -> str:
    """Return an LFDI as written by a person (`3e4f-45ab…`) in its one form; empty: it is none."""
    bare = text.upper().replace("-", "").replace(":", "").replace(" ", "")
    return bare if _LFDI.fullmatch(bare) else ""


def read_pins(text: str) -> Mapping[str, int]:
    """Return the registration PIN of each LFDI: lines `LFDI PIN`, `#` begins a comment.

    Raises:
        ValueError: Naming the line; a PIN has six digits whose sum is a multiple of ten.
    """
    pins: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        lfdi = plain(words[0])
        if len(words) != 2 or not lfdi or not _is_pin(words[1]):
            raise ValueError(f"line {number} is not an LFDI and a PIN with a valid check digit")
        pins[lfdi] = int(words[1])
    return pins


def _is_pin(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,6}", text)) and sum(map(int, text)) % 10 == 0
