"""What a search of objects is narrowed by. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kapelle.adapters.openadr.objects import Kept, Objects, targets_of
from kapelle.adapters.openadr.shapes import (
    BusinessResource,
    BusinessVen,
    Event,
    Program,
    Report,
    Subscription,
)


@dataclass(frozen=True, slots=True)
class Query:
    """What a search is narrowed by; empty: by nothing."""

    skip: int = 0
    limit: int = 50
    targets: Sequence[str] = ()
    program_id: str = ""
    event_id: str = ""
    ven_id: str = ""
    client_name: str = ""
    name: str = ""
    """Of a VEN or a resource."""
    objects: Sequence[str] = ()
    active: bool = False


def fits(kept: Kept, query: Query, objects: Objects, is_over: Callable[[Kept], bool]) -> bool:
    """Tell whether an object is among those a search asks for.

    Args:
        kept: The object.
        query: The search.
        objects: Where the event of a report is looked up.
        is_over: Whether an event has transpired.
    """
    body = kept.body
    if query.targets and set(query.targets).isdisjoint(targets_of(body)):
        return False
    if query.active and is_over(kept):
        return False
    match body:
        case Event():
            return query.program_id in ("", body.program_id)
        case Report():
            event = objects.find("EVENT", body.event_id)
            of = event.body.program_id if event and isinstance(event.body, Event) else ""
            return (
                query.event_id in ("", body.event_id)
                and query.client_name in ("", body.client_name)
                and query.program_id in ("", of)
            )
        case Subscription():
            kinds = {one for watched in body.object_operations for one in watched.objects}
            return (
                query.program_id in ("", body.program_id)
                and query.client_name in ("", body.client_name)
                and (not query.objects or not kinds.isdisjoint(query.objects))
            )
        case BusinessVen():
            return query.name in ("", body.ven_name)
        case BusinessResource():
            return query.name in ("", body.resource_name) and query.ven_id in ("", body.ven_id)
        case Program():
            return True
