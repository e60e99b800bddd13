"""The connection of a client to one plant's API: how it asks, and what a refusal becomes."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self, TypeVar

import httpx
import msgspec
import pyarrow as pa
import pyarrow.ipc
from pydantic import BaseModel

from kapelle.errors import (
    Conflict,
    Invalid,
    KapelleError,
    NotFound,
    Problem,
    Rejected,
    TokenRefused,
    Unreachable,
)

LONG_WAIT_S = 60.0
"""For what reads much, or waits for the recorder."""
_WAIT_S = 10.0

Told = TypeVar("Told", bound=BaseModel)


class Connection:
    """Asks one plant. Every error leaves as one of `kapelle.errors`.

    Invalid: the request cannot be used. NotFound, Conflict: as they say. Rejected: it takes a
    second person. Unreachable: nobody answers there, or the plant cannot answer now; TokenRefused:
    it does not know the token.
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

    def _ask_table(self, path: str, asked: dict[str, object]) -> pa.Table:
        query = {name: str(value) for name, value in asked.items()} | {"format": "arrow"}
        body = self._send("GET", path, params=query, wait_s=LONG_WAIT_S)
        return pa.ipc.open_stream(body).read_all()

    def _ask(
        self,
        shape: type[Told],
        method: str,
        path: str,
        asked: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
        wait_s: float = _WAIT_S,
    ) -> Told:
        return shape.model_validate_json(self._send(method, path, asked, headers, wait_s=wait_s))

    def _send(
        self,
        method: str,
        path: str,
        asked: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        wait_s: float = _WAIT_S,
    ) -> bytes:
        try:
            answer = self._http.request(
                method, path, json=asked, headers=headers, params=params, timeout=wait_s
            )
        except httpx.HTTPError as error:
            raise self._is_gone(error) from error
        if answer.is_success:
            return answer.content
        raise _error(self._url, answer)

    def _pieces(self, path: str) -> Iterator[bytes]:
        """Yield an answer that may be long, piece by piece."""
        try:
            with self._http.stream("GET", path) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _error(self._url, answer)
                yield from answer.iter_bytes()
        except httpx.HTTPError as error:
            raise self._is_gone(error) from error

    def _is_gone(self, error: httpx.HTTPError) -> Unreachable:
        return Unreachable(f"{self._url}: {error}; is the plant running there?")


def said(**fields: object) -> dict[str, object]:
    """Keep the fields that were given; what is None is left to the plant."""
    return {name: value for name, value in fields.items() if value is not None}


def once(key: str) -> dict[str, str]:
    """Return the header by which the same request has its effect once, however often it is sent."""
    return {"Idempotency-Key": key} if key else {}


class _Fault(msgspec.Struct):
    pointer: str = ""
    detail: str = ""


class _Problem(msgspec.Struct):
    title: str
    detail: str
    errors: list[_Fault] = []


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
        case 403:
            return Rejected(problem.detail)
        case 401:
            return TokenRefused(f"{url}: {problem.detail}")
        case 429 | 500 | 503 | 507:
            return Unreachable(f"{url}: {problem.title}: {problem.detail}")
        case _:
            # The detail ends with the remedy, where there is one.
            faults = [Problem(one.pointer, one.detail, "") for one in problem.errors]
            return Invalid(problem.detail, faults)
