"""Who may speak to the API in his own name: persons, each with a token that is shown once.

A token is `kp_` with its prefix, by which it is found and may be shown, and its secret, of which
only a hash is kept.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from kapelle.errors import Invalid, NotFound, Problem
from kapelle.registry import credentials
from kapelle.registry.tables import persons

_MARK = "kp"
_PREFIX_BYTES = 4
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TAKEN = ("api", "dispatch", "file", "signal", "trip-wire", "last-hop")
"""Who speaks in the journal already."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a token of his own."""

    name: str
    prefix: str
    created_at_ns: int
    revoked_at_ns: int = 0
    """0: the token is good."""
    credential: bytes = credentials.NOBODY


def add(connection: Connection, name: str, now_ns: int) -> str:
    """Give a person a token and return it, or a new one to whose old one was revoked.

    Raises:
        Invalid: The name cannot be one, or its person has a token.
    """
    if not _NAME.fullmatch(name) or name in _TAKEN:
        remedy = "1 to 64 of a-z, 0-9, . _ and -; not one of " + ", ".join(_TAKEN)
        raise Invalid("person", [Problem("NAME", f"{name!r} cannot be a person's name", remedy)])
    known = {person.name: person for person in everyone(connection)}
    if name in known and not known[name].revoked_at_ns:
        remedy = f"revoke it first: kapelle person revoke {name}"
        raise Invalid("person", [Problem("NAME", f"{name!r} has a token", remedy)])
    prefix, secret = secrets.token_hex(_PREFIX_BYTES), credentials.new_secret()
    row = {
        "name": name,
        "prefix": prefix,
        "credential": credentials.hash_secret(secret),
        "created_at_ns": now_ns,
        "revoked_at_ns": None,
    }
    if name in known:
        connection.execute(update(persons).where(persons.c.name == name).values(row))
    else:
        connection.execute(insert(persons).values(row))
    return f"{_MARK}_{prefix}_{secret}"


def revoke(connection: Connection, name: str, now_ns: int) -> None:
    """Take a person's token back. Raises NotFound where nobody of this name has one."""
    known = [person for person in everyone(connection) if person.name == name]
    if not known or known[0].revoked_at_ns:
        raise NotFound(f"nobody called {name!r} has a token; kapelle person ls shows who does")
    gone = {"revoked_at_ns": now_ns, "credential": None}
    connection.execute(update(persons).where(persons.c.name == name).values(gone))


def everyone(connection: Connection) -> list[Person]:
    """Return all who ever had a token, by name."""
    return [
        Person(
            row.name,
            row.prefix,
            row.created_at_ns,
            row.revoked_at_ns or 0,
            row.credential or credentials.NOBODY,
        )
        for row in connection.execute(select(persons).order_by(persons.c.name))
    ]


class People:
    """Those whose tokens are good, in memory: requests do not wait for a database."""

    def __init__(self) -> None:
        self._by_prefix: dict[str, Person] = {}

    def __len__(self) -> int:
        return len(self._by_prefix)

    def know(self, found: Sequence[Person]) -> None:
        """Take over who has a token now."""
        self._by_prefix = {one.prefix: one for one in found if not one.revoked_at_ns}

    def whose(self, token: str) -> str | None:
        """Return whose token this is, None for nobody's, in the same time."""
        mark, _, rest = token.partition("_")
        prefix, _, secret = rest.partition("_")
        person = self._by_prefix.get(prefix)
        stored = person.credential if person is not None else credentials.NOBODY
        genuine = credentials.matches(secret, stored)
        return person.name if person is not None and genuine and mark == _MARK else None
