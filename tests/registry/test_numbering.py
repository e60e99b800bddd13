"""Numbering, without a database."""

from hypothesis import given
from hypothesis import strategies as st

from kapelle.registry.numbering import NEW, Wanted, number

SITES = st.sampled_from(["a", "b", "c", "d"])


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.lists(st.tuples(SITES, st.booleans(), st.integers(0, 9)), max_size=12),
    st.dictionaries(SITES, st.integers(0, 3), max_size=2),
)
def test_numbers_are_dense_and_sites_whole(
    next_row: list[int], devices: list[tuple[str, bool, int]], placed: dict[str, int]
) -> None:
    partitions = len(next_row)
    placed = {site: home % partitions for site, home in placed.items()}
    taken = [row * partitions + k for k, size in enumerate(next_row) for row in range(size)]
    wanted = [
        Wanted(f"d{i}", site, taken.pop(at % len(taken)) if old and taken else NEW)
        for i, (site, old, at) in enumerate(devices)
    ]
    result = number(wanted, next_row, placed)

    assert result == number(wanted, next_row, placed)
    home_of = placed | result.sites
    refused = {place for place, _, _ in result.refused}
    given_out: dict[int, list[int]] = {k: [] for k in range(partitions)}
    for place, (one, device_no) in enumerate(zip(wanted, result.device_nos, strict=True)):
        if one.device_no != NEW:
            assert device_no == one.device_no
        else:
            given_out[device_no % partitions].append(device_no // partitions)
        assert (device_no % partitions != home_of[one.site]) == (place in refused)
    for k, rows in given_out.items():
        assert rows == list(range(next_row[k], result.next_row[k]))


@given(st.lists(st.integers(1, 5), max_size=20), st.integers(1, 5))
def test_partitions_stay_even(sizes: list[int], partitions: int) -> None:
    """No partition is ahead of another by more than one site."""
    wanted = [
        Wanted(f"d{s}-{i}", f"s{s}", NEW) for s, size in enumerate(sizes) for i in range(size)
    ]
    rows = number(wanted, [0] * partitions, {}).next_row
    assert sum(rows) == sum(sizes)
    assert max(rows) - min(rows) <= max(sizes, default=0)
