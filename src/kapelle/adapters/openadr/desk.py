"""What may be asked of the VTN's objects, by whom, and what comes of it."""

import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from itertools import islice

import msgspec

from kapelle.adapters.http.problems import Refused
from kapelle.adapters.inbox import NotStored
from kapelle.adapters.openadr import checks, rules
from kapelle.adapters.openadr.checks import Asked
from kapelle.adapters.openadr.clients import Client, Gateways
from kapelle.adapters.openadr.objects import VEN_OWNED, Kept, Objects, targets_of
from kapelle.adapters.openadr.query import Query, fits
from kapelle.adapters.openadr.settings import OpenAdrSettings
from kapelle.adapters.openadr.shapes import (
    Body,
    BusinessResource,
    BusinessVen,
    Event,
    ObjectType,
    Operation,
    OwnResource,
    OwnVen,
    Program,
    Report,
    Subscription,
)
from kapelle.adapters.openadr.store import Store
from kapelle.ports import Clock

_ASKED: dict[ObjectType, object] = {
    "PROGRAM": Program,
    "EVENT": Event,
    "REPORT": Report,
    "SUBSCRIPTION": Subscription,
    "VEN": BusinessVen | OwnVen,
    "RESOURCE": BusinessResource | OwnResource,
}
First = Callable[[], Awaitable[None]]
Notify = Callable[[Operation, Kept, list[str]], None]


class Desk:
    """Every operation on objects that comes from outside.

    A VEN reads programs and events without targets and those that share one with it; of all else
    what is its own. The business party reads everything. What one may not see is not there.
    """

    def __init__(
        self,
        store: Store,
        *,
        gateways: Gateways,
        clock: Clock,
        settings: OpenAdrSettings,
        notify: Notify,
        is_over: Callable[[Kept], bool],
        is_due: Callable[[Kept], bool],
        shown: Callable[[Client, Kept], None],
    ) -> None:
        """Make it.

        Args:
            store: Where objects are.
            gateways: Who is enrolled.
            clock: The time.
            settings: The bounds.
            notify: Tells subscribers of a change.
            is_over: Whether an event has transpired.
            is_due: Whether a gateway may still be shown an event; a command it never saw expires.
            shown: Told of every event a gateway is shown.
        """
        self._store = store
        self._gateways = gateways
        self._clock = clock
        self._settings = settings
        self._notify = notify
        self._is_over = is_over
        self._is_due = is_due
        self._shown = shown

    @property
    def _objects(self) -> Objects:
        return self._store.objects

    def search(self, client: Client, kind: ObjectType, query: Query) -> list[Kept]:
        """Return what a client may see of what it looks for, oldest first."""
        found = (
            one
            for one in self._visible(client, kind)
            if fits(one, query, self._objects, self._is_over)
        )
        page = list(islice(found, query.skip, query.skip + query.limit))
        self._note(client, page)
        return page

    def find(self, client: Client, kind: ObjectType, object_id: str) -> Kept:
        """Return an object. Raises Refused (404) where there is none for this client."""
        found = self._objects.find(kind, object_id)
        if found is None or not self._sees(client, found):
            raise Refused(404, "object-unknown", f"there is no such {kind.lower()}")
        self._note(client, [found])
        return found

    def asked(self, client: Client, kind: ObjectType, raw: bytes) -> Body:
        """Return the body of a request as it would be kept.

        Raises:
            Refused: This client may not write such objects (403), or the body is none (400).
        """
        rules.check_role(client, kind)
        try:
            body: Asked = msgspec.json.decode(raw, type=_ASKED[kind])
        except msgspec.MsgspecError as error:
            raise Refused(400, "body-invalid", str(error)) from None
        except RecursionError:
            raise Refused(400, "body-invalid", "is nested too deeply") from None
        if faults := checks.faults(body):
            first = f"{faults[0].pointer}: {faults[0].detail}"
            raise Refused(400, "body-invalid", first, faults=faults[:20])
        if isinstance(body, Event) and (word := checks.commands(body)):
            what = f"{word} commands devices: give an order, which passes the plant's last hop"
            raise Refused(403, "event-commands", what)
        return rules.attributed(client, body)

    async def create(
        self, client: Client, kind: ObjectType, body: Body, first: First | None = None
    ) -> Kept:
        """Keep a new object and tell subscribers; returns once it is durable.

        `first` is done once it is sure that the object may be kept, and before it is.
        """
        rules.check_references(client, body, self._objects, self._sees)
        rules.check_name(self._objects, body, "")
        if first is not None:
            await first()
        self._make_room(client, kind)
        now_ns = self._clock.now_ns()
        kept = Kept(kind, secrets.token_urlsafe(12), client.id, now_ns, now_ns, body)
        if isinstance(body, BusinessVen | BusinessResource):
            kept = replace(kept, owner=body.client_id)
        self.put("CREATE", kept)
        await self._written()
        return kept

    async def update(
        self,
        client: Client,
        kind: ObjectType,
        object_id: str,
        body: Body,
        first: First | None = None,
    ) -> Kept:
        """Replace an object; `first` as in `create`."""
        before = self.writable(client, kind, object_id)
        body = rules.kept_parts(client, before, body)
        rules.check_references(client, body, self._objects, self._sees)
        rules.check_name(self._objects, body, object_id)
        if first is not None:
            await first()
        after = replace(before, changed_at_ns=self._clock.now_ns(), body=body)
        if isinstance(body, BusinessVen | BusinessResource):
            after = replace(after, owner=body.client_id)
        self.put("UPDATE", after)
        await self._written()
        return after

    async def delete(self, client: Client, kind: ObjectType, object_id: str) -> Kept:
        """Forget an object, and return it as it was."""
        kept = self.writable(client, kind, object_id)
        if kept.by_plant:
            raise Refused(403, "object-of-plant", "the plant made it, and only it ends it")
        self.remove(kept)
        await self._written()
        return kept

    def put(self, operation: Operation, kept: Kept) -> None:
        """Add or replace an object and tell subscribers."""
        self._store.put(kept)
        self._notify(operation, kept, self._audience(kept))

    def note(self, kept: Kept) -> None:
        """Replace an object by itself, of which nobody need hear."""
        self._store.put(kept)

    def remove(self, kept: Kept) -> None:
        """Forget an object and tell subscribers. What refers to it stays as it is."""
        audience = self._audience(kept)
        self._store.remove(kept)
        self._notify("DELETE", kept, audience)

    def writable(self, client: Client, kind: ObjectType, object_id: str) -> Kept:
        """Return an object this client may change. Raises Refused (403, 404)."""
        rules.check_role(client, kind)
        kept = self.find(client, kind, object_id)
        if kept.by_plant and kind in rules.BUSINESS_ONLY:
            raise Refused(403, "object-of-plant", "the plant made it, and only it changes it")
        return kept

    # Who sees what.

    def _granted(self, client: Client) -> list[str]:
        """Return the targets of a VEN: its own and those of its resources."""
        return [
            target
            for kind in ("VEN", "RESOURCE")
            for kept in self._objects.of_owner(kind, client.id)
            for target in targets_of(kept.body)
        ]

    def _visible(self, client: Client, kind: ObjectType) -> Iterable[Kept]:
        if client.is_business:
            return self._objects.all(kind)
        if kind in VEN_OWNED:
            return self._objects.of_owner(kind, client.id)
        found = self._objects.for_targets(kind, self._granted(client))
        return [one for one in found if kind != "EVENT" or self._is_due(one)]

    def _sees(self, client: Client, kept: Kept) -> bool:
        if client.is_business:
            return True
        if kept.kind in VEN_OWNED:
            return kept.owner == client.id
        targets = targets_of(kept.body)
        is_meant = not targets or not set(targets).isdisjoint(self._granted(client))
        return is_meant and (kept.kind != "EVENT" or self._is_due(kept))

    def _audience(self, kept: Kept) -> list[str]:
        """Return the clients that may hear of an object: nobody who is enrolled no more."""
        targets = targets_of(kept.body)
        if kept.kind in VEN_OWNED:
            owners = [kept.owner]
        elif not targets:
            owners = [gateway.name for gateway in self._gateways.everyone()]
        else:
            owners = [
                one.owner
                for kind in ("VEN", "RESOURCE")
                for one in self._objects.for_targets(kind, targets)
                if targets_of(one.body)
            ]
        business = self._settings.business_id
        enrolled = [one for one in owners if self._gateways.named(one) is not None]
        return list(dict.fromkeys([*([business] if business else []), *enrolled]))

    def _note(self, client: Client, page: Iterable[Kept]) -> None:
        if not client.is_business:
            for kept in page:
                if kept.kind == "EVENT" and kept.by_plant:
                    self._shown(client, kept)

    # What may be written.

    def _make_room(self, client: Client, kind: ObjectType) -> None:
        if self._objects.count(kind, client.id) < self._settings.objects_max:
            return
        if kind != "REPORT":
            most = self._settings.objects_max
            raise Refused(403, "too-many", f"a client has {most} {kind.lower()}s at most")
        self.remove(self._objects.of_owner(kind, client.id)[0])

    async def _written(self) -> None:
        try:
            await self._store.written()
        except NotStored as error:
            detail = f"nothing is known to be stored: {error}"
            raise Refused(503, "not-stored", detail, headers={"Retry-After": "5"}) from None
