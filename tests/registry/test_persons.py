"""A person's token is shown once, good at once and until it is revoked, and nobody else's."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import select

from kapelle.errors import Invalid, NotFound, RegistryUnavailable
from kapelle.registry import tables
from kapelle.registry.persons import People
from kapelle.registry.service import PeopleWatch, at_once
from kapelle.registry.store import Registry
from kapelle.runtime.clock import SystemClock


def people_of(registry: Registry) -> People:
    people = People()
    people.know(registry.persons())
    return people


def test_a_token_is_whose_it_is_until_it_is_revoked(registry: Registry) -> None:
    token = registry.add_person("alice", 1)
    other = registry.add_person("bob", 2)
    people = people_of(registry)
    assert (people.whose(token), people.whose(other), len(people)) == ("alice", "bob", 2)
    registry.revoke_person("alice", 3)
    assert people_of(registry).whose(token) is None
    assert people_of(registry).whose(other) == "bob"
    anew = registry.add_person("alice", 4)
    assert anew != token
    assert people_of(registry).whose(anew) == "alice"
    assert people_of(registry).whose(token) is None
    assert [(p.name, p.created_at_ns, p.revoked_at_ns) for p in registry.persons()] == [
        ("alice", 4, 0),
        ("bob", 2, 0),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda t: "",
        lambda t: "kp",
        lambda t: t[:-1],
        lambda t: t + "x",
        lambda t: t.replace("kp_", "xx_"),
        lambda t: t.split("_", 1)[1],
        lambda t: "kp__" + t.split("_", 2)[2],
        lambda t: "kp_00000000_" + t.split("_", 2)[2],
        lambda t: t.swapcase(),
        lambda t: "\udcff" + t,
    ],
)
def test_nothing_like_it_is_a_token(registry: Registry, change: Callable[[str], str]) -> None:
    token = registry.add_person("alice", 1)
    assert people_of(registry).whose(change(token)) is None


def test_no_secret_is_kept(registry: Registry) -> None:
    token = registry.add_person("alice", 1)
    with registry._reading() as connection:
        row = connection.execute(select(tables.persons)).one()
    secret = token.split("_", 2)[2]
    assert secret.encode() not in row.credential
    assert token.startswith(f"kp_{row.prefix}_")
    registry.revoke_person("alice", 2)
    with registry._reading() as connection:
        assert connection.execute(select(tables.persons.c.credential)).scalar_one() is None


@pytest.mark.parametrize("name", ["", "api", "dispatch", "Alice", "a b", "-a", "a" * 65, "ä"])
def test_a_name_that_cannot_be_one_is_refused_with_a_remedy(registry: Registry, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        registry.add_person(name, 1)
    assert "a-z" in str(caught.value)


def test_nobody_gets_a_second_token_or_loses_one_he_has_not(registry: Registry) -> None:
    registry.add_person("alice", 1)
    with pytest.raises(Invalid, match="revoke it first"):
        registry.add_person("alice", 2)
    with pytest.raises(NotFound):
        registry.revoke_person("bob", 3)
    registry.revoke_person("alice", 3)
    with pytest.raises(NotFound):
        registry.revoke_person("alice", 4)


def test_a_registry_out_of_reach_takes_nobodys_token(registry: Registry) -> None:
    async def play() -> None:
        people, token = People(), registry.add_person("alice", 1)
        watch = PeopleWatch(registry=registry, people=people, clock=SystemClock(), offload=at_once)
        await watch.turn()
        assert people.whose(token) == "alice"

        def lost() -> list[object]:
            raise RegistryUnavailable("gone")

        registry.persons = lost  # type: ignore[method-assign, assignment]  # a database that is down
        await watch.turn()
        assert people.whose(token) == "alice"

    asyncio.run(play())
