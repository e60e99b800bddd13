"""Who may write what, and of what another has: the rules of writing. Pure."""

from collections.abc import Callable

import msgspec
from msgspec import UNSET

from kapelle.adapters.http.problems import Refused
from kapelle.adapters.openadr.checks import Asked
from kapelle.adapters.openadr.clients import Client
from kapelle.adapters.openadr.objects import Kept, Objects, name_of, targets_of
from kapelle.adapters.openadr.shapes import (
    KEPT,
    Body,
    BusinessResource,
    BusinessVen,
    Event,
    ObjectType,
    OwnResource,
    OwnVen,
    Report,
    Subscription,
)

BUSINESS_ONLY: tuple[ObjectType, ...] = ("PROGRAM", "EVENT")
_KIND: dict[type[Body], ObjectType] = {shape: kind for kind, shape in KEPT.items()}


def check_role(client: Client, kind: ObjectType) -> None:
    """Refuse what this role writes never (403)."""
    if kind in BUSINESS_ONLY and not client.is_business:
        raise Refused(403, "role-wrong", f"a VEN writes no {kind.lower()}s")
    if kind == "REPORT" and client.is_business:
        raise Refused(403, "role-wrong", "only VENs write reports")


def attributed(client: Client, body: Asked) -> Body:
    """Return what is asked for as it would be kept: with whose it is. Raises Refused."""
    match body:
        case OwnVen() | OwnResource():
            if client.is_business:
                raise Refused(400, "body-invalid", "say whose it is: objectType BL_…, clientID")
            return _owned(client, body)
        case BusinessVen() | BusinessResource():
            if not client.is_business:
                raise Refused(403, "role-wrong", "a VEN sends objectType VEN_…_REQUEST")
            return body
        case _:
            return body


def kept_parts(client: Client, before: Kept, body: Body) -> Body:
    """Return a replacement with what the client may not take away."""
    held = before.body
    if isinstance(held, BusinessVen | BusinessResource) and isinstance(body, type(held)):
        is_renamed = (name_of(body), body.client_id) != (name_of(held), held.client_id)
        if before.by_plant and is_renamed:
            raise Refused(403, "object-of-plant", "its name and owner are as it is enrolled")
        if not client.is_business:
            # Targets are given, not taken: with them goes what a VEN may see.
            return msgspec.structs.replace(body, targets=held.targets)
        if before.by_plant:
            own = targets_of(held)[:1]
            targets = list(dict.fromkeys((*own, *targets_of(body))))
            return msgspec.structs.replace(body, targets=targets)
    return body


def check_references(
    client: Client, body: Body, objects: Objects, sees: Callable[[Client, Kept], bool]
) -> None:
    """Refuse what refers to something that is not there for this client (409)."""
    missing = ""
    match body:
        case Event():
            if objects.find("PROGRAM", body.program_id) is None:
                missing = "programID"
        case Report():
            event = objects.find("EVENT", body.event_id)
            if event is None or not sees(client, event):
                missing = "eventID"
        case Subscription():
            program = body.program_id
            if isinstance(program, str):
                found = objects.find("PROGRAM", program)
                missing = "" if found and sees(client, found) else "programID"
        case BusinessResource():
            ven = objects.find("VEN", body.ven_id)
            if ven is None or not sees(client, ven) or ven.owner != body.client_id:
                missing = "venID"
        case _:
            return
    if missing:
        raise Refused(409, "reference-unknown", f"{missing} names nothing this client may use")


def check_name(objects: Objects, body: Body, besides: str) -> None:
    """Refuse a name that another object of the kind has; `besides`: but this one."""
    if not (name := name_of(body)):
        return
    kept_kind = _KIND[type(body)]
    taken = objects.named(kept_kind, name)
    if taken is not None and taken.id != besides:
        # The document has no 409 for a new VEN.
        status = 400 if kept_kind == "VEN" and not besides else 409
        raise Refused(status, "name-taken", "another object of this kind has this name")


def _owned(client: Client, body: OwnVen | OwnResource) -> Body:
    if isinstance(body, OwnVen):
        return BusinessVen(client_id=client.id, ven_name=body.ven_name, attributes=body.attributes)
    return BusinessResource(
        client_id=client.id,
        resource_name=body.resource_name,
        ven_id=body.ven_id,
        targets=UNSET,
        attributes=body.attributes,
    )
