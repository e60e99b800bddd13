"""How numbers read wherever people read them: `93.7 %`, `−5.0 kW`, `1,283 devices`.

One style in the terminal, on pages and in the texts of the API: a space before the unit, commas
between thousands, a minus sign (not a hyphen) and none before zero, a dash where nobody knows.
What people type and machines read keeps its hyphens and SI base units.
"""


def number(value: float, places: int = 0, *, sign: bool = False) -> str:
    """Return a number with so many decimals; with `sign`, a plus before what is above zero."""
    text = f"{value:{'+' if sign else '-'}z,.{places}f}"
    if sign and not text.strip("+0.,"):
        text = text.removeprefix("+")
    return text.replace("-", "−")


def power(power_w: float | None, *, sign: bool = False) -> str:
    """Return a power with the unit that reads best."""
    if power_w is None or power_w != power_w:
        return "–"
    # By what would be shown: 999.7 W are 1.0 kW, not 1,000 W.
    if round(abs(power_w)) < 1_000:
        return f"{number(power_w, sign=sign)} W"
    if round(abs(power_w) / 1e3, 1) < 1_000.0:
        return f"{number(power_w / 1e3, 1, sign=sign)} kW"
    return f"{number(power_w / 1e6, 2, sign=sign)} MW"


def energy(mwh: int | None) -> str:
    """Return an energy, given in mWh, with the unit that reads best."""
    if mwh is None:
        return "–"
    for unit, size in (("GWh", 10**12), ("MWh", 10**9), ("kWh", 10**6)):
        if abs(mwh) >= size:
            return f"{number(mwh / size, 3)} {unit}"
    return f"{number(mwh / 1_000, 1)} Wh" if mwh else "0 Wh"


def percent(share: float | None, places: int = 0, *, sign: bool = False) -> str:
    """Return a fraction as percent."""
    if share is None or share != share:
        return "–"
    return f"{number(100.0 * share, places, sign=sign)} %"


def counted(count: int, noun: str) -> str:
    """Return `1 device`, `2,000 devices`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
