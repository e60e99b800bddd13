"""How powers read in what an operator is told: reasons, notices, answers."""


def power(power_w: float | None) -> str:
    """Return a power with the unit that reads best; a dash where nobody knows it."""
    if power_w is None or power_w != power_w:
        return "–"
    if abs(power_w) >= 1e6:
        return f"{power_w / 1e6:,.2f} MW"
    return f"{power_w / 1e3:,.1f} kW" if abs(power_w) >= 1e3 else f"{power_w:,.0f} W"
