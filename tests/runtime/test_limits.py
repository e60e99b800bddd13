"""Connections cost open files; the limit is raised as far as an ordinary user may."""

import ctypes
import resource

import pytest

from kapelle.runtime import limits


@pytest.mark.parametrize(
    ("soft", "hard", "count", "expected"),
    [
        (1024, 4096, 2000, 2000 + limits.SPARE),
        (1024, 2048, 5000, 2048),
        (1024, 4096, None, 4096),
        (9000, 9000, 2000, 9000),
        (1024, resource.RLIM_INFINITY, 50_000, 50_000 + limits.SPARE),
    ],
)
def test_the_limit_is_raised_only_as_far_as_needed_and_allowed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, count: int | None, expected: int
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: set_to.append(pair))
    assert limits.allow_files(count) == expected
    assert set_to == ([] if expected == soft else [(expected, hard)])


def test_memory_that_was_freed_can_be_given_back() -> None:
    assert limits.give_back_memory() == hasattr(ctypes.CDLL(None), "malloc_trim")
