"""Names, numbers and credentials in memory."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.model.enums import DeviceKind
from kapelle.model.ids import label_key
from kapelle.ports import Directory as DirectoryPort
from kapelle.registry import credentials
from kapelle.registry.directory import Bearer, Directory


def bearer(number: int, name: str, active: bool = True, secret: str = "x") -> Bearer:
    return Bearer(number, name, active, 100.0 * number, 10.0, credentials.hash_secret(secret))


def test_it_is_a_directory() -> None:
    directory: DirectoryPort = Directory.build(2, [bearer(0, "a"), bearer(3, "b")])
    assert directory.partitions == 2
    assert directory.resolve(["b", "nobody", "a", ""]).tolist() == [3, -1, 0, -1]
    assert directory.resolve([]).dtype == np.int32
    assert directory.name(3) == "b"
    up_w, down_w = directory.nameplate(np.array([3, 0, 1, 99, -1], np.int32))
    assert up_w.tolist()[:2] == [300, 0]
    assert np.isnan(up_w[2:]).all()
    assert np.isnan(down_w[2:]).all()


@pytest.mark.parametrize("number", [-1, 1, 4])
def test_a_number_nobody_bears(number: int) -> None:
    with pytest.raises(KeyError):
        Directory.build(1, [bearer(0, "a"), bearer(2, "b")]).name(number)


def test_a_removed_device_is_unknown() -> None:
    directory = Directory.build(1, [bearer(0, "a", secret="s"), bearer(1, "b")])
    directory.apply([bearer(0, "a", active=False, secret="s")])
    assert directory.resolve(["a"]).tolist() == [-1]
    assert directory.authenticate("a", "s") is None
    assert math.isnan(directory.nameplate(np.array([0], np.int32))[0][0])
    assert directory.count() == 1
    with pytest.raises(KeyError):
        directory.name(0)


def test_authentication() -> None:
    secret = credentials.new_secret()
    directory = Directory.build(1, [bearer(0, "a", secret=secret), bearer(5, "b")])
    assert directory.authenticate("a", secret) == 0
    for name, wrong in [
        ("a", ""),
        ("a", secret[:-1]),
        ("a", secret + "x"),
        ("b", secret),
        ("nobody", secret),
        ("", ""),
        ("a", "\udcff"),
        ("a", "é" * 70_000),
    ]:
        assert directory.authenticate(name, wrong) is None
    # A row without a credential lets nobody in.
    directory.apply([Bearer(5, "b", True, 1.0, 1.0)])
    assert directory.authenticate("b", "x") is None


def test_unknown_names_cost_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Directory.build(1, [bearer(0, "a")])
    compared: list[int] = []
    matches = credentials.matches

    def counted(secret: str, stored: bytes) -> bool:
        compared.append(len(stored))
        return matches(secret, stored)

    monkeypatch.setattr(credentials, "matches", counted)
    directory.authenticate("a", "wrong")
    directory.authenticate("nobody", "wrong")
    assert compared == [credentials.STORED_BYTES] * 2


def test_a_generation_ends_with_name_credentials_or_enrolment() -> None:
    first = bearer(3, "a")
    directory = Directory.build(1, [first, bearer(0, "b")])
    numbers = np.array([3, 0, 1, -1, 99], np.int32)

    def after(*rows: Bearer) -> list[int]:
        directory.apply(rows)
        return directory.generation(numbers).tolist()

    began, other, *unknown = after()
    assert unknown == [-1, -1, -1]
    assert after(first, first._replace(nameplate_up_w=7.0)) == [began, other, -1, -1, -1]
    seen = [began]
    for change in (
        first._replace(credential=credentials.hash_secret("new")),
        first,
        first._replace(device_id="c"),
        first._replace(active=False),
        first,
        first._replace(device_no=90, device_id="far"),
    ):
        now, stays, *_ = after(change)
        assert stays == other
        if change.device_no == 3:
            assert now not in seen if change.active else now == -1
        seen += [now] if now != -1 and change.device_no == 3 else []
    assert directory.generation(numbers)[0] == seen[-1]


ROWS = st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.floats(0, 9)), max_size=30)


@given(ROWS, st.integers(1, 7))
def test_cutting_the_stream_of_rows_elsewhere_changes_nothing(
    steps: list[tuple[int, bool, float]], size: int
) -> None:
    rows = [Bearer(n, f"d{n}", active, up_w, 1.0) for n, active, up_w in steps]
    whole, pieces = Directory.build(1, rows), Directory(1)
    for at in range(0, len(rows), size):
        pieces.apply(rows[at : at + size])
    newest = {row.device_no: row for row in rows}
    numbers = np.arange(10, dtype=np.int32)
    for directory in (whole, pieces):
        names = directory.resolve([f"d{n}" for n in range(10)]).tolist()
        assert names == [n if n in newest and newest[n].active else -1 for n in range(10)]
        expected = [newest[n].nameplate_up_w if names[n] == n else math.nan for n in range(10)]
        np.testing.assert_array_equal(directory.nameplate(numbers)[0], expected)


def test_secrets_are_random_and_long() -> None:
    made = [credentials.new_secret() for _ in range(2000)]
    assert len(set(made)) == 2000
    # 24 bytes as base64: 192 bits. Every place varies, so none of them is derived or fixed.
    assert {len(secret) for secret in made} == {32}
    assert min(len(set(place)) for place in zip(*made, strict=True)) > 32
    stored = [credentials.hash_secret("same") for _ in range(2)]
    assert stored[0] != stored[1]
    assert all(credentials.matches("same", one) for one in stored)
    assert not credentials.matches("other", stored[0])


def test_nobody_matches_nothing() -> None:
    for secret in ("", "\0", "nobody"):
        assert not credentials.matches(secret, credentials.NOBODY)


def test_a_device_takes_little_memory() -> None:
    """At 50 thousand, so that the suite stays quick; it grows in proportion."""
    size = 50_000
    blank = credentials.NOBODY
    tracemalloc.start()
    directory = Directory.build(
        8, (Bearer(i, f"device-{i:07}", True, 1.0, 1.0, blank) for i in range(size))
    )
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert directory.count() == size
    assert held / size < 400


def test_places_are_equal_where_labels_are_and_nowhere_for_strangers() -> None:
    north = {"zone": "north", "feeder": "f1"}
    directory = Directory.build(
        2,
        [
            Bearer(0, "a", True, 1.0, 1.0, site="s0", **north),
            Bearer(3, "b", True, 1.0, 1.0, site="s3", kind=DeviceKind.WATER_HEATER, **north),
            Bearer(5, "c", True, 1.0, 1.0),
        ],
    )
    places = directory.places(np.array([3, 0, 5, 1, -1, 99], np.int32))
    nowhere = label_key("")
    assert places.zone.tolist() == [label_key("north")] * 2 + [nowhere] * 4
    assert places.feeder[0] == places.feeder[1]
    assert places.site.tolist() == [label_key("s3"), label_key("s0"), *[nowhere] * 4]
    assert places.switched.tolist() == [True, False, False, False, False, False]
    directory.apply([Bearer(0, "a", False, 1.0, 1.0, site="s0", **north)])
    assert directory.everyone().tolist() == [3, 5]
    was = directory.places(np.array([0], np.int32))
    assert (was.zone[0], was.site[0]) == (label_key("north"), label_key("s0"))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.booleans(),
            st.sampled_from(["mqtt", "ocpp", "cloud"]),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_devices_are_found_by_the_address_they_were_last_given(
    steps: list[tuple[int, bool, str, bool]],
) -> None:
    directory = Directory.build(1, [])
    now: dict[str, dict[str, int]] = {"mqtt": {}, "ocpp": {}, "cloud": {}}
    for number, active, adapter, has_address in steps:
        address = f"cp-{number}" if has_address else ""
        row = Bearer(number, f"d{number}", active, 1.0, 1.0, adapter=adapter, address=address)
        directory.apply([row])
        for known in now.values():
            for name in [name for name, one in known.items() if one == number]:
                del known[name]
        if active and adapter != "mqtt":
            now[adapter][address or f"d{number}"] = number
    assert {adapter: dict(directory.reached_by(adapter)) for adapter in now} == now
    counts = {adapter: len(reached) for adapter, reached in now.items() if reached}
    assert directory.adapters() == counts
