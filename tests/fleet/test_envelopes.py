"""Which limit counts at a moment: of what was told the latest, and what is configured beside it."""

from math import inf

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve.sites import cut_heads
from kapelle.fleet.envelopes import LEAD_S, WINDOWS_MAX, Book, Limits, StandingCap
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.snapshots import (
    digest,
    from_snapshot,
    to_snapshot,
    view_from_snapshot,
    view_to_snapshot,
)
from kapelle.model.entries import Entry, Kind
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.plant import Envelopes

LEAD = int(LEAD_S)
FOREVER_NS = 1 << 62


def told(
    export_w: float, starts_s: int, ends_s: int, at_s: int = 0, names: tuple[str, ...] = ("f-1",)
) -> Envelopes:
    return Envelopes(
        "feeder", list(names), export_w, inf, starts_s * NS_PER_S, ends_s * NS_PER_S, "grid",
        at_s * NS_PER_S,
    )  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 5.0, 9.0, inf]), st.integers(0, 20), st.integers(1, 20)),
        max_size=6,
    ),
    st.integers(0, 40),
)
def test_the_latest_that_covers_a_moment_counts(
    windows: list[tuple[float, int, int]], now_s: int
) -> None:
    book = Book()
    for export_w, starts_s, length_s in windows:
        book.apply(told(export_w, starts_s, starts_s + length_s))

    def at(moment_s: int) -> float:
        covering = [w for w, starts_s, n in windows if starts_s <= moment_s < starts_s + n]
        return covering[-1] if covering else inf

    limit_w = min(at(now_s), at(now_s + LEAD))
    expected = {"feeder/f-1": Limits(limit_w, inf)} if limit_w < inf else {}
    assert dict(book.in_force(now_s * NS_PER_S)) == expected


def test_the_tightest_of_what_is_told_and_configured_counts() -> None:
    book = Book(
        standing=(
            StandingCap(feeder="*", export_limit_w=7.0),
            StandingCap(feeder="f-2", import_limit_w=3.0),
        )
    )
    book.apply(told(5.0, 0, 100))
    book.apply(told(9.0, 0, 100, names=("f-2",)))
    caps = book.caps("feeder", ["", "f-1", "f-2", "f-3"], 0)
    assert caps is not None
    assert caps.export_w.tolist() == [inf, 5.0, 7.0, 7.0]
    assert caps.import_w.tolist() == [inf, inf, 3.0, inf]
    assert book.caps("zone", ["", "z"], 0) is None
    # Names that are heard of later are limited too.
    later = book.caps("feeder", ["", "f-1", "f-2", "f-3", "f-4"], 0)
    assert later is not None
    assert later.export_w[-1] == 7.0


def test_what_is_covered_or_over_is_forgotten() -> None:
    book = Book()
    for moment in range(2 * WINDOWS_MAX):
        book.apply(told(5.0, moment, moment + 1, at_s=0))
    assert len(book.windows["feeder/f-1"]) == WINDOWS_MAX
    book.apply(told(inf, 0, 10 * WINDOWS_MAX, at_s=1))
    assert book.windows == {}


def test_what_never_counts_is_not_kept_and_a_book_is_idle_once_all_is_over() -> None:
    book = Book()
    book.apply(told(5.0, 0, 10, at_s=20))
    book.apply(told(5.0, 30, 30, at_s=20))
    assert book.windows == {}
    book.apply(told(5.0, 30, 40, at_s=20))
    idle = [book.is_idle(moment * NS_PER_S) for moment in (20, 30 - LEAD, 39, 40)]
    assert idle == [True, False, False, True]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"feeder": "a", "zone": "b"},
        {"feeder": "a", "export_limit_w": -1.0},
        {"feeder": "a", "import_limit_w": float("nan")},
    ],
)
def test_a_cap_names_one_group_and_no_negative_limit(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"cap is about one|not negative"):
        StandingCap(**wrong)  # type: ignore[arg-type]  # what a file may hold


def test_envelopes_outlive_snapshots() -> None:
    entry = Entry("p/0", 1, Kind.ENVELOPES, "api", 0, 0, told(5.0, 0, 100))
    fleet, view = Fleet.empty(), PlantView(1)
    before = digest(fleet)
    apply_entry(fleet, entry)
    apply_plant(view, Entry(PLANT, 1, Kind.ENVELOPES, "api", 0, 0, entry.body))
    assert digest(fleet) != before
    again = from_snapshot(to_snapshot(fleet))
    assert again.envelopes.windows == fleet.envelopes.windows
    assert digest(again) == digest(fleet)
    assert view_from_snapshot(view_to_snapshot(view), 1).envelopes.windows == view.envelopes.windows


def test_an_envelope_reads_as_it_was_written() -> None:
    body = told(inf, 0, 5)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(body), type=Envelopes) == body


@given(st.integers(0, 1 << 32))
def test_heads_at_a_site_fit_its_room_and_earlier_tiers_come_first(seed: int) -> None:
    draw = np.random.default_rng(seed)
    count = int(draw.integers(1, 20))
    site = draw.integers(0, 4, count).astype(np.int32)
    tier = draw.integers(0, 3, count).astype(np.uint8)
    switched = draw.random(count) < 0.3
    head_w = draw.uniform(0, 1000, count) * (draw.random(count) < 0.8)
    room_w = draw.uniform(0, 3000, 4) * draw.choice([0.0, 1.0, np.inf], 4, p=[0.2, 0.6, 0.2])
    room_w = np.where(np.isnan(room_w), np.inf, room_w)
    cut_w = cut_heads(site, tier, switched, head_w, room_w)
    assert (cut_w <= head_w + 1e-9).all()
    assert (cut_w >= 0.0).all()
    # Whole or not at all.
    assert ((cut_w == head_w) | (cut_w == 0.0) | ~switched).all()
    for one in range(4):
        mine = site == one
        assert cut_w[mine].sum() <= room_w[one] * (1 + 1e-9)
        for each in range(3):
            cut_short = (cut_w < head_w * (1 - 1e-9)) & mine & ~switched & (tier == each)
            if cut_short.any():
                # What is left out found the room used up, and nobody after it got any.
                assert cut_w[mine].sum() == pytest.approx(room_w[one])
                assert cut_w[mine & (tier > each)].sum() <= 1e-9 * room_w[one]


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 5.0, 9.0, inf]), st.integers(0, 20), st.integers(1, 20)),
        max_size=6,
    ),
    st.integers(0, 30),
    st.integers(1, 20),
)
def test_the_tightest_of_a_time_is_the_tightest_of_its_moments(
    windows: list[tuple[float, int, int]], from_s: int, length_s: int
) -> None:
    book = Book()
    for export_w, starts_s, lasts_s in windows:
        book.apply(told(export_w, starts_s, starts_s + lasts_s))
    limits_w = [inf]
    for moment in range(from_s, from_s + length_s + LEAD):
        covering = [
            w for w, starts_s, lasts_s in windows if starts_s <= moment < starts_s + lasts_s
        ]
        limits_w += covering[-1:]
    found = book.tightest(from_s * NS_PER_S, (from_s + length_s) * NS_PER_S)
    assert found.get("feeder/f-1", Limits(inf, inf)) == Limits(min(limits_w), inf)
