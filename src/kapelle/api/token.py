"""The bearer token: random, made at the first start, readable by its owner alone."""

import hmac
import os
import secrets
from pathlib import Path

from kapelle.errors import Invalid, Problem

_BYTES = 32
_LENGTH_MIN = 22
"""128 bit in base 64."""


def load_token(path: Path, usual: Path | None = None) -> str:
    """Return the token in this file; make both when the file is not there.

    Args:
        path: Of the file.
        usual: Where it lies unless somebody chose another place. While one is there, clients have
            it, and none is made elsewhere.

    Raises:
        Invalid: The file holds no usable token, others may read it, or it lies elsewhere.
    """
    if usual is not None and usual.exists() and not path.exists():
        remedy = f"move {usual} there, or leave the setting out; remove it, and a new one is made"
        what = f"is {path}, which is not there, and the token that clients have is {usual}"
        raise Invalid("the API's token lies elsewhere", [Problem("[api] token_file", what, remedy)])
    try:
        # Exclusive: two processes that start together agree on one token.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    token = secrets.token_urlsafe(_BYTES)
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    return token


def is_token(offered: str, token: str) -> bool:
    """Compare in the same time whatever is offered."""
    return hmac.compare_digest(offered.encode(), token.encode())


def bearer(authorization: str) -> str | None:
    """Return the token of an `Authorization` header, or None where it carries none."""
    scheme, _, value = authorization.partition(" ")
    return value.strip() if scheme.lower() == "bearer" and value.strip() else None


def _read(path: Path) -> str:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise Invalid(f"{path} may be read by others (mode {mode:03o}); run: chmod 600 {path}")
    token = path.read_text().strip()
    if len(token) < _LENGTH_MIN:
        raise Invalid(
            f"{path} holds no token of {_LENGTH_MIN} characters or more; "
            "remove it, and the next start makes a new one"
        )
    return token
