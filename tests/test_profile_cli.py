"""Profiles as they are written on a command line or in a file."""

from pathlib import Path

import pytest

from kapelle.cli.profiles import profile_of
from kapelle.errors import Invalid

TAKEN = [{"duration_s": 900.0, "target_w": 500_000.0}, {"duration_s": 60.0, "target_w": -200_500.0}]


def test_inline_and_file_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "tomorrow.csv"
    file.write_text("for,kw\n15m,500\n\n60s, -200.5\n")
    assert profile_of("15m:500,1m:-200.5") == TAKEN
    assert profile_of(str(file)) == TAKEN
    assert profile_of(None) is None


@pytest.mark.parametrize("text", ["15m:much", "15m:", "soon:5", "15m500", "no/such/file.csv"])
def test_what_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(Invalid, match=r"15m:500|1h30m"):
        profile_of(text)
