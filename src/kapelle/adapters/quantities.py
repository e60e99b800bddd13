"""What other people's numbers mean: unit and sign, which a mapping says of each. Pure."""

import math

from kapelle.model.enums import Metric

METRICS = {metric.name.lower(): metric for metric in Metric if metric is not Metric.MODE}
"""By the name a mapping uses."""
DIRECTED = ("power_w", "max_w", "min_w", "setpoint_w")
"""What has a direction: here a mapping says which one is positive."""
UNITS = {
    "W": 1.0, "kW": 1e3, "MW": 1e6, "Wh": 1.0, "kWh": 1e3, "MWh": 1e6,
    "fraction": 1.0, "percent": 0.01, "V": 1.0, "Hz": 1.0,
}  # fmt: skip
"""Factor to the unit of a reading."""
_FITTING = {"w": ("W", "kW", "MW"), "wh": ("Wh", "kWh", "MWh"), "soc": ("fraction", "percent")}
_FITTING |= {"v": ("V",), "hz": ("Hz",)}


def check(metric: str, unit: str, positive: str) -> None:
    """Raise ValueError where a mapping's metric, unit and direction do not fit each other."""
    if metric not in METRICS:
        raise ValueError(f"metric is one of {', '.join(METRICS)}")
    fitting = _FITTING[metric.rpartition("_")[2]]
    if unit not in fitting:
        raise ValueError(f"unit of {metric} is one of {', '.join(fitting)}")
    if (metric in DIRECTED) != (positive in ("export", "import")):
        raise ValueError('positive is "export" or "import" for a power, and for nothing else')


def ours(number: float, unit: str, positive: str) -> float:
    """Return a number as readings have it: in base units, power positive towards the grid."""
    return _turned(number * UNITS[unit], positive)


def theirs(value: float, unit: str, positive: str) -> float:
    """Return a value of ours as they count it."""
    return _turned(value / UNITS[unit], positive)


def is_number(found: object) -> bool:
    """Tell whether this is a finite number; true and false are none."""
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return False
    return isinstance(found, int) or math.isfinite(found)


def _turned(value: float, positive: str) -> float:
    # Adding 0 makes a plain zero of -0.0.
    return (-value if positive == "import" else value) + 0.0
