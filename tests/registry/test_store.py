"""Numbers are dense, sites stay together, changes are whole."""

import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from kapelle.errors import Invalid, NotFound, RegistryUnavailable
from kapelle.model.enums import DeviceKind
from kapelle.registry import credentials
from kapelle.registry.device import Device
from kapelle.registry.rows import to_device
from kapelle.registry.store import Cursor, Registry


def battery(name: str, site: str = "", **more: object) -> Device:
    described = {"nameplate_up_w": 5000.0, "nameplate_down_w": 5000.0, "energy_wh": 1e4} | more
    return Device(name, DeviceKind.BATTERY, site, **described)


def check_invariants(registry: Registry) -> None:
    """Numbers are dense in every partition, and no site is split."""
    rows = registry.changed(Cursor(0, -1), 10_000)
    held = Counter(row.device_no % registry.partitions for row in rows)
    for partition, size in held.items():
        inside = sorted(
            row.device_no // registry.partitions
            for row in rows
            if row.device_no % registry.partitions == partition
        )
        assert inside == list(range(size))
    partition_of: dict[str, int] = {}
    for row in rows:
        partition = row.device_no % registry.partitions
        assert partition_of.setdefault(row.site, partition) == partition


def test_devices_are_numbered_densely_and_sites_stay_together(registry: Registry) -> None:
    fleet = [battery(f"b{i}", f"s{i // 2}") for i in range(12)]
    put = registry.put_devices(fleet, now_ns=1)
    assert (put.created, put.updated, len(put.credentials)) == (12, 0, 12)
    check_invariants(registry)
    sizes = Counter(row.device_no % 3 for row in registry.devices())
    assert sizes == {0: 4, 1: 4, 2: 4}


def test_the_same_again_changes_nothing(registry: Registry) -> None:
    registry.put_devices([battery("a"), battery("b", ramp_w_per_s=2.5)], 1)
    before = registry.changed(Cursor(0, -1), 10), registry.revision()
    put = registry.put_devices([battery("b", ramp_w_per_s=2.5), battery("a")], 2)
    assert (put.created, put.updated, put.credentials) == (0, 0, {})
    assert (registry.changed(Cursor(0, -1), 10), registry.revision()) == before


def test_what_goes_in_comes_out(registry: Registry) -> None:
    device = Device(
        "é".replace("é", "a.b-c_1"),
        DeviceKind.EV,
        "Straße 1, ⌂",
        "V",
        "M",
        "Z",
        "F",
        "P",
        "http",
        "1.2.3.4",
        0.0,
        11000.5,
        6e4,
        0.25,
        100.125,
        60.0,
        10.0,
    )
    registry.put_devices([device], 1)
    assert to_device(registry.device("a.b-c_1")) == device


def test_a_changed_device_keeps_number_and_credential(registry: Registry) -> None:
    registry.put_devices([battery("a"), battery("b")], 1)
    before = registry.device("b")
    put = registry.put_devices([battery("b", vendor="Sun")], 2)
    after = registry.device("b")
    assert (put.created, put.updated, put.credentials) == (0, 1, {})
    assert (after.device_no, after.credential) == (before.device_no, before.credential)
    assert (after.vendor, after.created_at_ns, after.updated_at_ns) == ("Sun", 1, 2)


def test_a_removed_device_keeps_its_number_and_loses_its_credential(registry: Registry) -> None:
    first = registry.put_devices([battery("a"), battery("b")], 1)
    number = registry.device("a").device_no
    assert registry.remove_devices(["a", "a"], 2) == 1
    assert registry.remove_devices(["a"], 3) == 0
    gone = registry.device("a")
    assert (gone.device_no, gone.active, gone.credential) == (number, 0, None)
    assert [row.device_id for row in registry.devices()] == ["b"]
    registry.put_devices([battery("c"), battery("d"), battery("e"), battery("f")], 4)
    assert number not in {row.device_no for row in registry.devices()}
    back = registry.put_devices([battery("a")], 5)
    assert registry.device("a").device_no == number
    assert back.created == 1
    assert back.credentials["a"] != first.credentials["a"]
    check_invariants(registry)


def test_names_nobody_bears_are_named_and_nothing_is_removed(registry: Registry) -> None:
    registry.put_devices([battery("a")], 1)
    with pytest.raises(NotFound, match="'x', 'y'"):
        registry.remove_devices(["a", "x", "y"], 2)
    assert registry.count() == 1
    with pytest.raises(NotFound):
        registry.device("x")


def test_a_device_cannot_leave_its_partition(registry: Registry) -> None:
    registry.put_devices([battery("a", "one"), battery("b", "two"), battery("c", "one")], 1)
    with pytest.raises(Invalid, match="cannot leave") as refused:
        registry.put_devices([battery("new"), battery("b", "one")], 2)
    assert [problem.where for problem in refused.value.problems] == ["device 'b', site"]
    assert registry.count() == 3
    # A new site goes where its device is.
    registry.put_devices([battery("b", "three"), battery("b2", "three")], 3)
    check_invariants(registry)


def test_everything_wrong_is_said_at_once(registry: Registry) -> None:
    wrong = [
        battery("a b"),
        battery("ok"),
        battery("ok"),
        battery("x", nameplate_up_w=float("nan")),
        battery("y", reserve_soc=20.0),
    ]
    with pytest.raises(Invalid) as refused:
        registry.put_devices(wrong, 1)
    assert [problem.where for problem in refused.value.problems] == [
        "device 'a b', id",
        "device 'x', nameplate_up_w",
        "device 'y', reserve_soc",
        "device 'ok', id",
    ]
    assert "write 0.2" in str(refused.value)
    assert registry.count() == 0


def test_credentials_are_stored_hashed_and_rotate(registry: Registry) -> None:
    secret = registry.put_devices([battery("a")], 1).credentials["a"]
    stored = registry.device("a").credential
    assert stored is not None
    assert secret.encode() not in stored
    assert credentials.matches(secret, stored)
    fresh = registry.rotate_credential("a", 2)
    stored = registry.device("a").credential
    assert stored is not None
    assert credentials.matches(fresh, stored)
    assert not credentials.matches(secret, stored)
    registry.remove_devices(["a"], 3)
    for name in ("a", "nobody"):
        with pytest.raises(NotFound):
            registry.rotate_credential(name, 4)


def test_pages_of_devices(registry: Registry) -> None:
    fleet = [battery(f"b{i:02}", zone="north" if i % 2 else "south") for i in range(10)]
    registry.put_devices(fleet, 1)
    page = registry.devices("zone:north", limit=3)
    assert [row.device_id for row in page] == ["b01", "b03", "b05"]
    page = registry.devices("zone:north", after=page[-1].device_id, limit=3)
    assert [row.device_id for row in page] == ["b07", "b09"]


def test_two_writers_never_share_a_number(url: str) -> None:
    with Registry(url, 3) as one, Registry(url) as other:
        failures: list[Exception] = []

        def enrol(registry: Registry, letter: str) -> None:
            try:
                for i in range(15):
                    fleet = [battery(f"{letter}{i}", f"s{i}"), battery(f"{letter}{i}b")]
                    registry.put_devices(fleet, i)
            except Exception as error:  # noqa: BLE001  # a thread's, raised below
                failures.append(error)

        writers = [threading.Thread(target=enrol, args=pair) for pair in ((one, "a"), (other, "b"))]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert not failures
        assert one.count() == 60
        check_invariants(one)


def test_two_may_open_an_empty_database_at_once(url: str) -> None:
    opened: list[Registry] = []
    starters = [threading.Thread(target=lambda: opened.append(Registry(url, 3))) for _ in range(4)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert [registry.partitions for registry in opened] == [3] * 4
    for registry in opened:
        registry.close()


def test_a_plant_keeps_its_partitions(url: str) -> None:
    Registry(url, 3).close()
    with Registry(url) as again:
        assert again.partitions == 3
    with pytest.raises(Invalid, match="made for 3 partitions, not 4"):
        Registry(url, 4)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("mysql://x/y", "not supported|needs"),
        ("nonsense", "sqlite:///"),
        ("oracle+none://x", "sqlite:///"),
    ],
)
def test_unusable_urls_are_explained(wrong: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        Registry(wrong)


def test_a_server_that_is_away_is_named_without_its_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(RegistryUnavailable) as away:
        Registry("postgresql://user:secret@127.0.0.1:1/kapelle?connect_timeout=2")
    assert "secret" not in str(away.value)


def test_sites(registry: Registry) -> None:
    registry.put_devices([battery("a", "one"), battery("b", "one"), battery("c")], 1)
    registry.remove_devices(["c"], 2)
    assert [(site.name, site.devices) for site in registry.sites()] == [("c", 0), ("one", 2)]
    assert registry.sites(after="c", limit=1)[0].partition == registry.device("a").device_no % 3


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("change", ["put", "remove", "resource", "forget", "rotate", "resend"])
def test_a_change_killed_at_any_statement_leaves_nothing(registry: Registry, change: str) -> None:
    registry.put_devices([battery("a"), battery("b")], 1)
    registry.put_resource("every", "all", 1)

    def everything() -> object:
        return (
            registry.changed(Cursor(0, -1), 100),
            registry.due(),
            registry.resources(),
            registry.sites(),
            [registry.members("every", k).tolist() for k in range(3)],
        )

    changes = {
        "put": lambda: registry.put_devices([battery("c"), battery("a", vendor="new")], 2),
        "remove": lambda: registry.remove_devices(["a"], 2),
        "resource": lambda: registry.put_resource("new", "id:a", 2),
        "forget": lambda: registry.remove_resource("every", 2),
        "rotate": lambda: registry.rotate_credential("a", 2),
        "resend": registry.resend,
    }
    before, left = everything(), 0

    def kill(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    for statement in range(100):
        left = statement
        event.listen(registry._engine, "before_cursor_execute", kill)
        try:
            changes[change]()
        except Killed:
            event.remove(registry._engine, "before_cursor_execute", kill)
            assert everything() == before
        else:
            event.remove(registry._engine, "before_cursor_execute", kill)
            break
    assert statement > 2
    assert everything() != before
    assert registry.revision() == 3


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fleet.csv"
    path.write_text("id,kind\n" * 100)
    with pytest.raises(RegistryUnavailable, match=r"fleet\.csv: file is not a database"):
        Registry(f"sqlite:///{path}")
    with pytest.raises(RegistryUnavailable, match="unable to open"):
        Registry(f"sqlite:///{tmp_path}/nowhere/registry.db")


def test_a_database_in_memory() -> None:
    with Registry("sqlite://", 2) as registry:
        registry.put_devices([battery("a")], 1)
        assert registry.count() == 1


NAMES, SITES = [f"d{i}" for i in range(7)], [f"s{i}" for i in range(4)]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(NAMES), st.sampled_from(["", *SITES])),
        st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just("")),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.integers(1, 4), st.integers(1, 4))
def test_whatever_comes_and_goes_the_numbers_hold(
    steps: list[tuple[str, str, str]], partitions: int, together: int
) -> None:
    """Batches of random changes: density, sites whole, numbers never move or return."""
    with Registry("sqlite://", partitions) as registry:
        number_of: dict[str, int] = {}
        for at in range(0, len(steps), together):
            batch = steps[at : at + together]
            wanted = {name: battery(name, site) for what, name, site in batch if what == "put"}
            with suppress(Invalid):
                # A move to another partition, refused whole.
                registry.put_devices(list(wanted.values()), at)
            gone = [name for what, name, _ in batch if what == "remove" and name in number_of]
            registry.remove_devices(gone, at)
            check_invariants(registry)
            for row in registry.changed(Cursor(0, -1), 100):
                assert number_of.setdefault(row.device_id, row.device_no) == row.device_no
        assert len(set(number_of.values())) == len(number_of)
