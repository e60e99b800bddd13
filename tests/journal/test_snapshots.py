"""What every journal promises of snapshots: the newest comes back as it was saved."""

import numpy as np
from tests.journal.conftest import check, ticks

from kapelle.ports import Snapshot


def test_the_newest_snapshot_comes_back_as_it_was_saved(backend):
    async def scenario(journal):
        assert await journal.load_snapshot("p/0") is None
        columns = {
            "floats": np.array([1.0, np.nan, -0.0]),
            "flags": np.array([True, False]),
            "deep": np.arange(24, dtype=np.int16).reshape(8, 3),
            "view": np.arange(10, dtype=np.int64)[::2],
            "none": np.empty(0, np.float32),
        }
        expected = {name: column.copy() for name, column in columns.items()}
        await journal.save_snapshot("p/0", Snapshot(1, {}, b""))
        await journal.save_snapshot("p/0", Snapshot(5, columns, b"rest"))
        columns["floats"][:] = 7
        await journal.save_snapshot("p/1", Snapshot(9, {}, b"other"))
        found = await journal.load_snapshot("p/0")
        assert (found.position, found.meta) == (5, b"rest")
        assert list(found.columns) == list(expected)
        for name, column in expected.items():
            again = found.columns[name]
            assert (again.dtype, again.shape) == (column.dtype, column.shape)
            assert again.tobytes() == column.tobytes()
        found.columns["floats"][:] = 8
        again = await journal.load_snapshot("p/0")
        assert again.columns["floats"].tobytes() == expected["floats"].tobytes()

    async def with_entries(journal):
        for topic in ("p/0", "p/1"):
            await journal.append(topic, ticks(*range(9)), writer="a")
        await scenario(journal)

    check(backend, with_entries)


def test_columns_may_change_once_they_are_released(backend):
    async def scenario(journal):
        column = np.arange(200_000)
        deep = np.arange(24.0).reshape(3, 8)[:, :5]

        def change():
            column[:] = deep[:] = -1

        snapshot = Snapshot(1, {"a": column, "b": deep}, b"")
        await journal.save_snapshot("p/0", snapshot, released=change)
        assert column[7] == -1
        found = await journal.load_snapshot("p/0")
        assert found.columns["a"].tolist() == list(range(200_000))
        assert found.columns["b"].tolist() == np.arange(24.0).reshape(3, 8)[:, :5].tolist()

    check(backend, scenario)


def test_a_snapshot_of_an_owner_that_was_replaced_hides_no_newer_one(backend):
    async def scenario(journal):
        await journal.append("p/0", ticks(*range(9)), writer="a")
        for position in (9, 7, 3):
            await journal.save_snapshot("p/0", Snapshot(position, {}, b""))
            assert (await journal.load_snapshot("p/0")).position == 9

    check(backend, scenario)
