"""Selections: what they accept, what they refuse, and that Python and SQL agree."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kapelle.errors import Invalid
from kapelle.model.enums import DeviceKind
from kapelle.registry.device import Device
from kapelle.registry.selection import parse
from kapelle.registry.store import Registry

ROW = {
    "kind": int(DeviceKind.HEAT_PUMP),
    "vendor": "Sun, Inc.",
    "model": "M:1",
    "zone": "north",
    "feeder": "f1",
    "provider": "",
    "adapter": "ocpp",
    "site": "s",
    "device_id": "d-1",
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("all", True),
        (" all ", True),
        ("kind:heat_pump", True),
        ("kind:Heat-Pump", True),
        ("kind:battery,heat_pump", True),
        ("kind:battery", False),
        ("zone:north", True),
        ("zone:North", False),
        ("zone:all", False),
        ("ZONE : north", True),
        ('vendor:"Sun, Inc."', True),
        ('model:"M:1"', True),
        ('vendor:"say ""hi"""', False),
        ('provider:""', True),
        ("adapter:ocpp,openadr", True),
        ("adapter:mqtt", False),
        ("zone:south,north kind:heat_pump,ev id:d-1", True),
        ("zone:north kind:ev", False),
        ("zone:north\n kind:heat_pump\n", True),
    ],
)
def test_selections(text: str, holds: bool) -> None:
    assert parse(text).matches(ROW) is holds


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("", 1, "write `all`"),
        ("  ", 1, "write `all`"),
        ("battery", 1, "write it as key:value"),
        ("zone:north battery", 12, "write it as key:value"),
        ("all zone:north", 1, "`all` stands alone"),
        ("zone:north all", 12, "`all` stands alone"),
        ("knid:ev", 1, "did you mean `kind`?"),
        ("colour:red", 1, "keys are kind, vendor"),
        ("kind:batery", 6, "did you mean `battery`?"),
        ("kind:ev,toaster", 9, "kinds are battery"),
        ("zone:", 6, "a value is missing after `:`"),
        ("zone:north,", 12, "a value is missing after `,`"),
        ("zone:north, ,south", 12, "a value is missing"),
        ("zone::north", 6, "a value is missing"),
        (",zone:north", 1, "where a key should stand"),
        ("zone:north zone:south", 12, "into one term"),
        ('vendor:"Sun', 8, "close it with"),
        ('vendor:Sun"', 11, "close it with"),
    ],
)
def test_mistakes_are_placed_and_explained(text: str, place: int, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(text)
    (problem,) = refused.value.problems
    assert problem.where == f"character {place}"
    assert says in str(problem)


@given(st.text(max_size=20) | st.text('akindzoe:," ', max_size=20))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(Invalid):
        parse(text).matches(ROW)


def test_members_follow_devices_that_come_change_and_go(registry: Registry) -> None:
    def device(name: str, zone: str) -> Device:
        return Device(name, DeviceKind.PV, zone=zone, nameplate_up_w=4000.0)

    def members() -> set[str]:
        numbers = {n for k in range(3) for n in registry.members("north", k).tolist()}
        names = {row.device_id for row in registry.devices() if row.device_no in numbers}
        assert len(names) == len(numbers)
        return names

    registry.put_devices([device("a", "north"), device("b", "south")], 1)
    made = registry.put_resource("north", "zone:north", 2)
    assert (made.devices, members()) == (1, {"a"})
    registry.put_devices([device("c", "north"), device("b", "north"), device("a", "south")], 3)
    assert members() == {"b", "c"}
    registry.remove_devices(["b"], 4)
    assert members() == {"c"}
    registry.put_devices([device("b", "north")], 5)
    assert members() == {"b", "c"}
    assert registry.put_resource("north", "zone:south", 6).devices == 1
    assert members() == {"a"}
    revision = registry.revision()
    assert registry.put_resource("north", "zone:south", 7).devices == 1
    assert registry.revision() == revision
    assert [(one.name, one.devices) for one in registry.resources()] == [("north", 1)]
    registry.remove_resource("north", 8)
    assert registry.resources() == []


@pytest.mark.parametrize("name", ["all", "", "a b", "x" * 65])
def test_resource_names_that_cannot_be_used(registry: Registry, name: str) -> None:
    with pytest.raises(Invalid):
        registry.put_resource(name, "all", 1)


LETTERS = st.sampled_from(["a", "b", "c"])
SELECTIONS = st.lists(
    st.sampled_from(
        [
            "kind:pv",
            "kind:pv,ev",
            "zone:a",
            "zone:a,b",
            "vendor:c",
            "site:a",
            "id:d1,d2",
            "model:b",
            "adapter:b,c",
        ]
    ),
    max_size=3,
    unique_by=lambda term: term.partition(":")[0],
).map(lambda terms: " ".join(terms) or "all")
DEVICES = st.lists(
    st.builds(
        Device,
        st.sampled_from([f"d{i}" for i in range(6)]),
        st.sampled_from([DeviceKind.PV, DeviceKind.EV]),
        st.just("a"),
        vendor=LETTERS,
        model=LETTERS,
        zone=LETTERS,
        adapter=LETTERS,
        nameplate_up_w=st.just(4000.0),
    ),
    unique_by=lambda device: device.id,
    max_size=5,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(DEVICES, max_size=4), st.lists(SELECTIONS, min_size=1, max_size=3))
def test_members_are_the_same_whenever_the_resource_was_made(
    imports: list[list[Device]], selections: list[str]
) -> None:
    """One resource before the devices (matched in Python), one after them (matched in SQL)."""
    with Registry("sqlite://", 2) as registry:
        for place, selection in enumerate(selections):
            registry.put_resource(f"before{place}", selection, 1)
        for at, devices in enumerate(imports):
            registry.put_devices(devices, at)
            registry.remove_devices([device.id for device in devices[3:]], at)
        for place, selection in enumerate(selections):
            registry.put_resource(f"after{place}", selection, 1)
            for partition in range(2):
                before = registry.members(f"before{place}", partition).tolist()
                assert before == registry.members(f"after{place}", partition).tolist()
                assert before == sorted(before)
