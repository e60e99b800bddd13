"""How numbers read to people: one style, everywhere."""

import re
from math import isnan, nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle import words
from kapelle.words import counted, energy, number, percent, power

SOURCE = Path(words.__file__).parent
DOCS = SOURCE.parents[1] / "docs"

FINITE = st.floats(-1e12, 1e12)


@pytest.mark.parametrize(
    ("power_w", "text"),
    [(0.0, "0 W"), (-0.3, "0 W"), (999.0, "999 W"), (999.6, "1.0 kW"), (-1234.5, "−1.2 kW"),
     (5_000.0, "5.0 kW"), (999_960.0, "1.00 MW"), (1_234_567.0, "1.23 MW"),
     (2.5e9, "2,500.00 MW"), (None, "–"), (nan, "–")],
)  # fmt: skip
def test_a_power_has_the_unit_that_reads_best(power_w: float | None, text: str) -> None:
    assert power(power_w) == text
    is_above = power_w is not None and not isnan(power_w) and power_w > 0
    assert power(power_w, sign=True) == ("+" + text if is_above else text)


@pytest.mark.parametrize(
    ("mwh", "text"),
    [(None, "–"), (0, "0 Wh"), (1, "0.0 Wh"), (-1, "0.0 Wh"), (75_000, "75.0 Wh"),
     (12_300_000, "12.300 kWh"), (1_500_000_000, "1.500 MWh"), (-2_000_000, "−2.000 kWh")],
)  # fmt: skip
def test_an_energy_has_the_unit_that_reads_best(mwh: int | None, text: str) -> None:
    assert energy(mwh) == text


@pytest.mark.parametrize(
    ("share", "places", "text"),
    [(0.937, 1, "93.7 %"), (0.95, 0, "95 %"), (-0.0001, 1, "0.0 %"), (-0.12, 1, "−12.0 %"),
     (12.0, 0, "1,200 %"), (None, 0, "–"), (nan, 1, "–")],
)  # fmt: skip
def test_a_share_is_told_as_percent(share: float | None, places: int, text: str) -> None:
    assert percent(share, places) == text


def test_counts_have_separators_and_one_is_one() -> None:
    assert [counted(count, "device") for count in (0, 1, 1_283)] == [
        "0 devices", "1 device", "1,283 devices",
    ]  # fmt: skip


@given(FINITE, st.integers(0, 3), st.booleans())
def test_no_number_is_a_signed_zero_or_has_a_hyphen(value: float, places: int, sign: bool) -> None:
    text = number(value, places, sign=sign)
    assert "-" not in text
    read = float(text.replace(",", "").replace("−", "-"))
    assert abs(read - value) <= 0.5 * 10.0**-places + 1e-12 * abs(value)
    assert text.startswith("−") == (read < 0)
    assert text.startswith("+") == (sign and read > 0)


def test_nobody_writes_percent_in_another_way() -> None:
    own = re.compile(r":[+,]*\.\d%\}|\.replace\(\"%\"")
    found = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if own.search(line) and 'replace("%", "%25")' not in line
    ]
    assert found == [], "kapelle.words.percent is for that"


def test_the_docs_write_percent_as_the_plant_does() -> None:
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted([*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")])
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"(?<![%\w])\d+(\.\d+)?%(?![0-9a-fA-F]{2})", line)
    ]
    assert found == []
