"""Keeps the refresh token of an owner, which his vendor replaces with every use."""

import hashlib
import logging
import os
from pathlib import Path

import msgspec

log = logging.getLogger("kapelle.cloud")


class _Kept(msgspec.Struct):
    given: str
    """Digest of the token the operator gave, of which this one descends."""
    token: str


class RefreshToken:
    """The newest refresh token: the one that was given, or what the vendor has made of it since."""

    def __init__(self, given: str, file: Path | None) -> None:
        """Read it. `file`: where it outlives the process, for its owner's eyes alone.

        When the operator gives another one, what was made of the earlier is forgotten.
        """
        self._given = hashlib.sha256(given.encode()).hexdigest()
        self._file = file
        self.newest = given
        if file is None or not file.exists():
            return
        try:
            kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
        except (OSError, msgspec.MsgspecError) as error:
            reason = type(error).__name__
            log.error("a kept refresh token cannot be read", extra={"reason": reason})
            return
        if kept.given == self._given:
            self.newest = kept.token

    def replace(self, token: str) -> None:
        """Take what the vendor has made of it; it is on disk when this returns.

        Where the disk does not take it, it is used all the same: the earlier one is used up.
        """
        self.newest = token
        if self._file is None:
            return
        beside = self._file.with_suffix(".new")
        content = msgspec.json.encode(_Kept(self._given, token))
        try:
            beside.unlink(missing_ok=True)
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.replace(beside, self._file)
            folder = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            log.error(
                "a refresh token was not kept: after a restart its owner has to sign in again",
                extra={"reason": str(error)},
            )
