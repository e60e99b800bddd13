"""A small typed client of the API, for the command line and for scripts."""

from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from pydantic import BaseModel

from kapelle.api.shapes import (
    HoldTold,
    OrdersTold,
    OrderTold,
    PreviewTold,
    ResourcesTold,
    ResourceTold,
    StatusTold,
)
from kapelle.errors import Conflict, Invalid, KapelleError, NotFound, Problem, Unreachable

_WAIT_S = 10.0

Told = TypeVar("Told", bound=BaseModel)


class Client:
    """Speaks to one plant. Every error leaves as one of `kapelle.errors`.

    Invalid: the request cannot be used. NotFound, Conflict: as they say. Unreachable: nobody
    answers there, the token is refused, or the plant cannot answer now.
    """

    def __init__(
        self, url: str, token: str, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self._url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_WAIT_S,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def create_order(
        self,
        *,
        target_w: float,
        resource: str = "all",
        duration_s: float | None = None,
        starts_at: str | None = None,
        ends_at: str | None = None,
        tolerance: float = 0.02,
        product: str = "manual",
        key: str = "",
    ) -> OrderTold:
        """Order a change of power. `key`: sending the same again gives the same order. [W] [s]"""
        asked = _said(
            target_w=target_w,
            resource=resource,
            duration_s=duration_s,
            starts_at=starts_at,
            ends_at=ends_at,
            tolerance=tolerance,
            product=product,
        )
        headers = {"Idempotency-Key": key} if key else {}
        return self._ask(OrderTold, "POST", "/v1/orders", asked, headers)

    def preview_order(
        self, *, target_w: float, resource: str = "all", duration_s: float = 900.0
    ) -> PreviewTold:
        """Say what would be promised now, and order nothing."""
        asked = _said(target_w=target_w, resource=resource, duration_s=duration_s, dry_run=True)
        return self._ask(PreviewTold, "POST", "/v1/orders", asked)

    def amend_order(
        self,
        order_no: int,
        *,
        target_w: float | None = None,
        duration_s: float | None = None,
        ends_at: str | None = None,
    ) -> OrderTold:
        """Change an order's target or end (`duration_s` counts from now)."""
        asked = _said(target_w=target_w, duration_s=duration_s, ends_at=ends_at)
        return self._ask(OrderTold, "PATCH", f"/v1/orders/{order_no}", asked)

    def cancel_order(self, order_no: int) -> OrderTold:
        """Cancel an order; its devices are released."""
        return self._ask(OrderTold, "DELETE", f"/v1/orders/{order_no}")

    def order(self, order_no: int) -> OrderTold:
        """Return one order."""
        return self._ask(OrderTold, "GET", f"/v1/orders/{order_no}")

    def orders(self, limit: int = 100) -> OrdersTold:
        """Return the newest orders."""
        return self._ask(OrdersTold, "GET", f"/v1/orders?limit={limit}")

    def status(self) -> StatusTold:
        """Return the plant in one answer."""
        return self._ask(StatusTold, "GET", "/v1/status")

    def resources(self) -> ResourcesTold:
        """Return every resource."""
        return self._ask(ResourcesTold, "GET", "/v1/resources")

    def resource(self, name: str) -> ResourceTold:
        """Return one resource."""
        return self._ask(ResourceTold, "GET", f"/v1/resources/{quote(name, safe='')}")

    def hold(self, reason: str = "") -> HoldTold:
        """Stop every command of the plant."""
        return self._ask(HoldTold, "POST", "/v1/hold", {"reason": reason})

    def release_hold(self, reason: str = "") -> HoldTold:
        """Allow commands again."""
        return self._ask(HoldTold, "POST", "/v1/release-hold", {"reason": reason})

    def _ask(
        self,
        shape: type[Told],
        method: str,
        path: str,
        asked: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Told:
        try:
            answer = self._http.request(method, path, json=asked, headers=headers)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self._url}: {error}; is the plant running there?") from error
        if answer.is_success:
            return shape.model_validate_json(answer.content)
        raise _error(self._url, answer)


def _error(url: str, answer: httpx.Response) -> KapelleError:
    try:
        problem = msgspec.json.decode(answer.content, type=_Problem)
    except msgspec.MsgspecError:
        return Unreachable(f"{url}: answered {answer.status_code}, which is not this plant's API")
    match answer.status_code:
        case 404:
            return NotFound(problem.detail)
        case 409:
            return Conflict(problem.detail)
        case 401 | 403 | 429 | 500 | 503 | 507:
            return Unreachable(f"{url}: {problem.title}: {problem.detail}")
        case _:
            faults = [Problem(one.pointer, one.detail, "mend it") for one in problem.errors]
            return Invalid(problem.detail, faults)


class _Fault(msgspec.Struct):
    pointer: str = ""
    detail: str = ""


class _Problem(msgspec.Struct):
    title: str
    detail: str
    errors: list[_Fault] = []


def _said(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
