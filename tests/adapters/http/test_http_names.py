"""What is remembered is what the directory would say now."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.http.arrow import decode_arrow
from kapelle.adapters.http.names import Names
from kapelle.model.ids import DeviceId, DeviceNo, Floats, Ints


class Changing:
    """A directory whose devices change their numbers, and that counts what it is asked."""

    partitions = 1

    def __init__(self) -> None:
        self.version = 0
        self.asked = 0

    def resolve(self, names: Sequence[str]) -> Ints:
        self.asked += len(names)
        return np.array([hash((n, self.version)) % 1_000 if n else -1 for n in names], np.int32)

    def name(self, device_no: int) -> DeviceId:
        raise KeyError(device_no)

    def authenticate(self, name: str, secret: str) -> DeviceNo | None:
        return None

    def generation(self, device_no: Ints) -> Ints:
        raise NotImplementedError

    def nameplate(self, device_no: Ints) -> tuple[Floats, Floats]:
        raise NotImplementedError


lists = st.integers(0, 3).map(lambda n: [f"d{n}-{k}" for k in range(60 + 10 * n)])
steps = st.lists(st.tuples(lists, st.sampled_from([None, 1, 2]), st.booleans()), max_size=12)


@given(steps, st.sampled_from([0, 70, 150, 10_000]))
def test_always_what_the_directory_says(
    told: list[tuple[list[str], int | None, bool]], rows_max: int
) -> None:
    directory = Changing()
    names = Names(directory, rows_max)
    for some, sender_no, changes in told:
        directory.version += changes
        asked = [*some, ""]
        expected = Names(directory).resolve(asked, sender_no)
        np.testing.assert_array_equal(names.resolve(asked, sender_no), expected)
        assert names._rows <= rows_max
        assert names._rows == sum(map(len, names._known.values()))


def test_a_list_that_comes_again_is_not_looked_up_again() -> None:
    directory = Changing()
    names = Names(directory, 1_000)
    some = [f"d{n}" for n in range(100)]
    table = pa.table({"device": some, "power_w": [1.0] * 100})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue().to_pybytes()
    first = decode_arrow(body, names, None, 1_000).device_no
    names.resolve(some, None)
    asked = directory.asked
    np.testing.assert_array_equal(decode_arrow(body, names, None, 1_000).device_no, first)
    np.testing.assert_array_equal(names.resolve(some, None), first)
    assert directory.asked == asked
