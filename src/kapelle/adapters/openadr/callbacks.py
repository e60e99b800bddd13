"""Tells subscribers by callback: a queue per client, a deadline per attempt, few attempts."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from msgspec import UnsetType

from kapelle.adapters.destinations import Network, Place, is_allowed, networks, place
from kapelle.adapters.openadr.counters import Counters
from kapelle.adapters.openadr.objects import Kept, Objects, targets_of
from kapelle.adapters.openadr.settings import OpenAdrSettings
from kapelle.adapters.openadr.shapes import Event, Operation, Program, Subscription, Watched
from kapelle.ports import Clock
from kapelle.runtime.background import Background

_PAUSE_S = 0.5
"""Before the second attempt; it doubles. [s]"""
_HEAD_BYTES_MAX = 16_384
_LOOKUPS = 4


@dataclass(frozen=True, slots=True)
class _Note:
    """One notification to one callback."""

    operation: Operation
    kept: Kept
    url: str
    bearer: str


@dataclass(slots=True)
class _Queue:
    """What waits for one client, oldest first, the newest word on each object."""

    notes: dict[tuple[str, str, str], _Note] = field(default_factory=dict)


Delivered = Callable[[str, Kept], None]
"""Told the client whose callback took an object."""
Due = Callable[[Kept], bool]
"""Whether an object may still be told of."""
Resolve = Callable[[str, int], Coroutine[Any, Any, list[str]]]


class Callbacks:
    """Notifications on their way. One slow client holds up no other."""

    def __init__(
        self,
        beside: Background,
        objects: Objects,
        *,
        settings: OpenAdrSettings,
        clock: Clock,
        counters: Counters,
        delivered: Delivered,
        is_due: Due,
        resolve: Resolve | None = None,
    ) -> None:
        self._beside = beside
        self._objects = objects
        self._settings = settings
        self._clock = clock
        self._counters = counters
        self._delivered = delivered
        self._is_due = is_due
        self._resolve = resolve if resolve is not None else self._look_up
        # Threads of its own: a name that nobody answers for must not take those that write to disk.
        self._lookups = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="openadr callbacks")
        self._queues: dict[str, _Queue] = {}
        self._turns = asyncio.Semaphore(settings.callbacks_at_once)
        self._besides: tuple[Network, ...] = networks(settings.callback_networks)
        self._tls = ssl.create_default_context(cafile=settings.callback_authority or None)

    def close(self) -> None:
        """Look nothing up any more."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def notify(self, operation: Operation, kept: Kept, owners: list[str]) -> None:
        """Tell of a change whoever of these clients has subscribed to it.

        A second change of an object takes the place of the first where that still waits.
        """
        for owner in owners:
            for subscription in self._objects.of_owner("SUBSCRIPTION", owner):
                for watched in _watched(subscription, operation, kept):
                    self._add(subscription, watched, operation, kept)

    def _add(self, owner: Kept, watched: Watched, operation: Operation, kept: Kept) -> None:
        bearer = watched.bearer_token if isinstance(watched.bearer_token, str) else ""
        queue = self._queues.get(owner.owner)
        is_new = queue is None
        if queue is None:
            queue = self._queues[owner.owner] = _Queue()
        key = (owner.id, watched.callback_url, kept.id)
        before = queue.notes.pop(key, None)
        if before is not None and before.operation == "CREATE" and operation == "UPDATE":
            operation = "CREATE"
        while len(queue.notes) >= self._settings.callbacks_waiting_max:
            del queue.notes[next(iter(queue.notes))]
            self._counters.callbacks_given_up += 1
        queue.notes[key] = _Note(operation, kept, watched.callback_url, bearer)
        if is_new:
            self._beside.start(self._serve(owner.owner, queue), "OpenADR callbacks")

    async def _serve(self, client: str, queue: _Queue) -> None:
        """Deliver what waits for one client, one at a time, until there is nothing."""
        try:
            while queue.notes:
                note = queue.notes.pop(next(iter(queue.notes)))
                if await self._deliver(note, queue):
                    self._delivered(client, note.kept)
        finally:
            del self._queues[client]

    async def _deliver(self, note: _Note, queue: _Queue) -> bool:
        pause_s = _PAUSE_S
        for attempt in range(self._settings.callback_tries):
            if attempt:
                await self._clock.sleep(pause_s)
                pause_s *= 2
                if any(one.kept.id == note.kept.id for one in queue.notes.values()):
                    # Something newer is to be said of it.
                    return False
            if note.operation != "DELETE" and not self._is_due(note.kept):
                return False
            async with self._turns:
                self._counters.callbacks_sent += 1
                if await self._call(note):
                    return True
            self._counters.callbacks_failed += 1
        self._counters.callbacks_given_up += 1
        return False

    async def _call(self, note: _Note) -> bool:
        """Try once; True where it was answered 2xx."""
        where = place(note.url)
        if isinstance(where, str):
            return False
        body = msgspec.json.encode(
            {
                "objectType": note.kept.kind,
                "operation": note.operation,
                "object": note.kept.told(),
                "targets": list(targets_of(note.kept.body)) or None,
            }
        )
        with suppress(OSError, ValueError):
            async with asyncio.timeout(self._settings.callback_s):
                # TimeoutError and ssl.SSLError are OSErrors.
                address = await self._address(where)
                return 200 <= await self._post(where, address, body, note.bearer) < 300
        return False

    async def _address(self, where: Place) -> str:
        """Return one address that may be called, where all that the name stands for may be."""
        found = await self._resolve(where.host, where.port)
        if not found or not all(is_allowed(one, self._besides) for one in found):
            raise OSError("resolves to an address that must not be called")
        return found[0]

    async def _look_up(self, host: str, port: int) -> list[str]:
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._lookups, ask)
        return list(dict.fromkeys(str(info[4][0]) for info in found))

    async def _post(self, where: Place, address: str, body: bytes, bearer: str) -> int:
        """Post to this very address, with the certificate checked for the name; the status.

        Redirects are not followed: a status of 3xx is no 2xx. Of the answer only the head is read.
        """
        reader, writer = await asyncio.open_connection(
            address,
            where.port,
            ssl=self._tls,
            server_hostname=where.host,
            limit=_HEAD_BYTES_MAX,
        )
        try:
            writer.write(_head(where, len(body), bearer) + body)
            await writer.drain()
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                version, status_said, *_ = head.split(b" ", 2)
                if not version.startswith(b"HTTP/1."):
                    raise OSError("its answer is no HTTP")
                status = int(status_said)
                if status >= 200:
                    return status
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise OSError("its answer is no HTTP") from error
        finally:
            writer.transport.abort()


def _head(where: Place, length: int, bearer: str) -> bytes:
    host = f"[{where.host}]" if ":" in where.host else where.host
    lines = [
        f"POST {where.path} HTTP/1.1",
        f"Host: {host}:{where.port}",
        "User-Agent: kapelle",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        "Connection: close",
    ]
    if bearer:
        lines.append(f"Authorization: Bearer {bearer}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _watched(subscription: Kept, operation: Operation, kept: Kept) -> list[Watched]:
    body = subscription.body
    assert isinstance(body, Subscription)
    if not isinstance(body.program_id, UnsetType) and _program(kept) != body.program_id:
        return []
    wanted = set(targets_of(body))
    if wanted and not wanted.intersection(targets_of(kept.body)):
        return []
    return [
        one
        for one in body.object_operations
        if kept.kind in one.objects and operation in one.operations
    ]


def _program(kept: Kept) -> str:
    match kept.body:
        case Program():
            return kept.id
        case Event():
            return kept.body.program_id
        case _:
            return ""
