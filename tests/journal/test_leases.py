"""What every journal promises to owners: one holder at a time, under a rising epoch."""

import pytest
from tests.journal.conftest import check

from kapelle.errors import JournalConflict
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Lease


def test_leases_pass_from_hand_to_hand_with_rising_epochs(backend):
    async def scenario(journal):
        first = await journal.acquire("p/0", "one", 5.0)
        assert (first.name, first.holder) == ("p/0", "one")
        with pytest.raises(JournalConflict, match="held by one"):
            await journal.acquire("p/0", "two", 5.0)
        assert (await journal.acquire("p/1", "two", 5.0)).holder == "two"
        await backend.clock.sleep(4)
        await journal.renew(first, 5.0)
        await backend.clock.sleep(4)
        with pytest.raises(JournalConflict, match="held by one"):
            await journal.acquire("p/0", "two", 5.0)
        await backend.clock.sleep(1.001)
        second = await journal.acquire("p/0", "two", 5.0)
        assert second.epoch > first.epoch
        with pytest.raises(JournalConflict, match="was lost to two"):
            await journal.renew(first, 5.0)
        # The one who lost it cannot give it away.
        await journal.release(first)
        with pytest.raises(JournalConflict):
            await journal.acquire("p/0", "one", 5.0)
        await journal.release(second)
        with pytest.raises(JournalConflict):
            await journal.renew(second, 5.0)
        third = await journal.acquire("p/0", "one", 5.0)
        assert third.epoch > second.epoch
        # A holder that forgot it holds it takes it over at once, with another epoch.
        assert (await journal.acquire("p/0", "one", 5.0)).epoch > third.epoch
        with pytest.raises(JournalConflict):
            await journal.renew(third, 5.0)
        with pytest.raises(JournalConflict):
            await journal.renew(Lease("p/8", "one", 1), 5.0)

    check(backend, scenario)


def test_epochs_are_no_lower_than_the_time_so_that_an_empty_journal_is_obeyed(backend):
    async def scenario(journal):
        for _ in range(2):
            first = await journal.acquire("p/0", "one", 5.0)
            assert first.epoch >= backend.clock.ns // NS_PER_S
        # Also where the clock stands still they rise.
        assert (await journal.acquire("p/0", "one", 5.0)).epoch == first.epoch + 1

    check(backend, scenario)
