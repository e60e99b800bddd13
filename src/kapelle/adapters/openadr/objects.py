"""What a VTN keeps: objects by kind and id, found by owner and by target, in memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
from msgspec import UnsetType

from kapelle.adapters.openadr.periods import moment
from kapelle.adapters.openadr.shapes import (
    KEPT,
    OBJECT_TYPES,
    Body,
    BusinessResource,
    BusinessVen,
    Event,
    ObjectType,
    Program,
    Report,
    Subscription,
)

VEN_OWNED: tuple[ObjectType, ...] = ("REPORT", "SUBSCRIPTION", "VEN", "RESOURCE")
OURS = ""
"""Owner of what neither a gateway nor the business party has made."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One object."""

    kind: ObjectType
    id: str
    owner: str
    """Client id; `OURS` for what the plant made itself."""
    made_at_ns: int
    changed_at_ns: int
    body: Body
    by_plant: bool = False
    """Made of enrolment or of a command: nobody else may change it."""
    seen: bool = False
    """Of an event: a gateway has fetched it."""

    def told(self) -> dict[str, object]:
        """Return it as it is told: the request with the metadata of the document."""
        said: dict[str, object] = msgspec.to_builtins(self.body)
        if self.kind in ("REPORT", "SUBSCRIPTION"):
            said["clientID"] = self.owner
        return said | {
            "id": self.id,
            "createdDateTime": moment(self.made_at_ns),
            "modificationDateTime": moment(self.changed_at_ns),
            "objectType": self.kind,
        }


def targets_of(body: Body) -> tuple[str, ...]:
    """Return the targets of an object; none where it has none."""
    given = None if isinstance(body, Report) else body.targets
    return () if given is None or isinstance(given, UnsetType) else tuple(given)


def name_of(body: Body) -> str:
    """Return what must be unique among objects of its kind; empty where nothing must."""
    match body:
        case Program():
            return body.program_name
        case BusinessVen():
            return body.ven_name
        case BusinessResource():
            return f"{body.ven_id}/{body.resource_name}"
        case Event() | Report() | Subscription():
            return ""


@dataclass(slots=True)
class _Shelf:
    """Objects of one kind, oldest first, and ways to find them."""

    by_id: dict[str, Kept] = field(default_factory=dict)
    by_owner: dict[str, dict[str, None]] = field(default_factory=dict)
    by_target: dict[str, dict[str, None]] = field(default_factory=dict)
    untargeted: dict[str, None] = field(default_factory=dict)
    by_name: dict[str, str] = field(default_factory=dict)


class Objects:
    """All objects. Changes nothing on disk: `store.Store` does."""

    def __init__(self, kept: Iterable[Kept] = ()) -> None:
        self._shelves = {kind: _Shelf() for kind in OBJECT_TYPES}
        for one in kept:
            self.put(one)

    def find(self, kind: ObjectType, object_id: str) -> Kept | None:
        """Return an object, None where there is none."""
        return self._shelves[kind].by_id.get(object_id)

    def named(self, kind: ObjectType, name: str) -> Kept | None:
        """Return the object of a name (`name_of`)."""
        shelf = self._shelves[kind]
        found = shelf.by_name.get(name)
        return None if found is None else shelf.by_id[found]

    def all(self, kind: ObjectType) -> Iterator[Kept]:
        """Yield every object of a kind, oldest first."""
        return iter(self._shelves[kind].by_id.values())

    def of_owner(self, kind: ObjectType, owner: str) -> list[Kept]:
        """Return the objects of one client, oldest first."""
        shelf = self._shelves[kind]
        return [shelf.by_id[one] for one in shelf.by_owner.get(owner, ())]

    def count(self, kind: ObjectType, owner: str) -> int:
        """Return how many objects of a kind a client has."""
        return len(self._shelves[kind].by_owner.get(owner, ()))

    def for_targets(self, kind: ObjectType, targets: Iterable[str]) -> list[Kept]:
        """Return those without targets and those with one of these, oldest first."""
        shelf = self._shelves[kind]
        found = dict.fromkeys(shelf.untargeted)
        for target in targets:
            found |= shelf.by_target.get(target, {})
        return sorted((shelf.by_id[one] for one in found), key=lambda kept: kept.made_at_ns)

    def put(self, kept: Kept) -> None:
        """Add or replace an object; one that is replaced keeps its place."""
        shelf = self._shelves[kept.kind]
        before = shelf.by_id.get(kept.id)
        if before is not None:
            self._unlist(shelf, before)
        shelf.by_id[kept.id] = kept
        shelf.by_owner.setdefault(kept.owner, {})[kept.id] = None
        for target in targets_of(kept.body):
            shelf.by_target.setdefault(target, {})[kept.id] = None
        if not targets_of(kept.body):
            shelf.untargeted[kept.id] = None
        if name := name_of(kept.body):
            shelf.by_name[name] = kept.id

    def remove(self, kept: Kept) -> None:
        """Forget an object; again is harmless."""
        shelf = self._shelves[kept.kind]
        if shelf.by_id.pop(kept.id, None) is not None:
            self._unlist(shelf, kept)

    def _unlist(self, shelf: _Shelf, kept: Kept) -> None:
        places = [(shelf.by_owner, kept.owner)]
        places += [(shelf.by_target, target) for target in targets_of(kept.body)]
        for index, key in places:
            listed = index.get(key, {})
            listed.pop(kept.id, None)
            if not listed:
                index.pop(key, None)
        shelf.untargeted.pop(kept.id, None)
        if shelf.by_name.get(name := name_of(kept.body)) == kept.id:
            del shelf.by_name[name]


def pack(kept: Kept) -> bytes:
    """Return the body of an object as it is stored."""
    return msgspec.json.encode(kept.body)


def unpack(kind: ObjectType, raw: bytes) -> Body:
    """Return a body that was stored. Raises msgspec.MsgspecError where it is none."""
    return msgspec.json.decode(raw, type=KEPT[kind])
