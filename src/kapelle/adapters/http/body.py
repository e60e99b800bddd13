"""Unpacks request bodies without letting a small one grow large."""

import zlib
from collections.abc import Iterator

from kapelle.adapters.http.decoded import Unreadable

_CHUNK = 1 << 20
_GZIP = 31
"""Window bits that make zlib expect gzip's header and check its sum."""


class TooLarge(Exception):
    """A body is larger than it may be, as sent or unpacked."""


def unzip(body: bytes, bytes_max: int) -> Iterator[bytes]:
    """Yield a gzip body piece by piece; never more than `bytes_max` altogether.

    Raises:
        TooLarge: There is more in it.
        Unreadable: It is no gzip, cut short, or followed by something else.
    """
    unpack = zlib.decompressobj(_GZIP)
    left, rest = bytes_max, body
    try:
        while rest and not unpack.eof:
            piece = unpack.decompress(rest, min(_CHUNK, left + 1))
            rest = unpack.unconsumed_tail
            left -= len(piece)
            if left < 0:
                raise TooLarge
            yield piece
    except zlib.error as error:
        raise Unreadable("encoding-malformed", f"no gzip: {error}") from None
    if not unpack.eof or unpack.unused_data:
        raise Unreadable("encoding-malformed", "the gzip body is cut short or has a tail")
