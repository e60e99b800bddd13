"""Secrets of devices: made at random, shown once, kept as a hash.

The one place of the registry that draws random numbers. A secret is never derived from a serial
number, a name or another secret: who knows one device then knows that one only (CVE-2025-15574
was an MQTT password computed from the serial number).
"""

import hashlib
import hmac
import secrets

_SECRET_BYTES = 24
_SALT_BYTES = 16
STORED_BYTES = _SALT_BYTES + hashlib.sha256().digest_size
NOBODY = bytes(STORED_BYTES)
"""A stored credential that no secret matches: finding one means inverting SHA-256."""


def new_secret() -> str:
    """Return 192 random bits as 32 characters that survive URLs, shells and MQTT."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_secret(secret: str) -> bytes:
    """Return salt and hash to store, 48 bytes.

    One round of SHA-256 is enough: slow hashes protect guessable passwords, and nobody guesses
    192 random bits. It must be fast: after an outage a whole fleet logs in at once.
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    return salt + _digest(salt, secret)


def matches(secret: str, stored: bytes) -> bool:
    """Return whether a secret is the stored one, in a time that does not tell how close it is."""
    salt, digest = stored[:_SALT_BYTES], stored[_SALT_BYTES:]
    return hmac.compare_digest(_digest(salt, secret), digest)


def _digest(salt: bytes, secret: str) -> bytes:
    # Whatever bytes a peer sent as its password; lone surrogates must not raise.
    return hashlib.sha256(salt + secret.encode("utf-8", "surrogatepass")).digest()
