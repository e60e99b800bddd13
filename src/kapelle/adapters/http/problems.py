"""Every error over HTTP as RFC 9457 problem details, each kind with a stable `type`."""

from collections.abc import Mapping, Sequence

import msgspec

TYPE_ROOT = "urn:kapelle:problem:"
MEDIA_TYPE = "application/problem+json"

TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Request took too long",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    422: "Cannot be used",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available now",
    507: "Out of space",
}


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong with a request."""

    pointer: str
    """JSON pointer into the body, or the name of a header or parameter."""
    detail: str


class Refused(Exception):
    """A request that ends with a problem; whoever serves it turns it into the answer."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def body(self) -> bytes:
        """Return the problem as JSON."""
        told: dict[str, object] = {
            "type": TYPE_ROOT + self.code,
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
        }
        if self.faults:
            told["errors"] = self.faults
        return msgspec.json.encode(told | self.more)
