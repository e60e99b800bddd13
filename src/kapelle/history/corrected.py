"""What a resource did, as known now: sums over its devices' means, gaps filled up to a bound."""

from itertools import pairwise

import numpy as np
import pyarrow as pa

from kapelle.history.order import numbers
from kapelle.history.tables import MINUTE_NS
from kapelle.history.tiers import floats
from kapelle.history.views import at
from kapelle.model.ids import Longs

GAP_NS = 30 * MINUTE_NS
"""Between two known means at most this far apart a straight line is assumed; beyond it the device
counts as missing, and its power as nothing."""

ROWS = 4_000_000
"""Means that are summed at once, about: it bounds the memory of a question."""

SCHEMA = pa.schema(
    [
        ("time", pa.timestamp("ns")),
        ("starts_at_ns", pa.int64()),
        ("power_w", pa.float64()),
        ("devices", pa.int32()),
        ("measured", pa.int32()),
        ("interpolated", pa.int32()),
        ("coverage", pa.float64()),
    ]
)


def sums(tier: str, memberships: str, starts_at_ns: int, ends_at_ns: int, step_ns: int) -> str:
    """Return SQL for the sum over members at each step: `t`, power, measured and interpolated.

    Args:
        tier: SQL of means per device, from `GAP_NS` before the start to `GAP_NS` after the end.
        memberships: SQL of who was a member, [from_ns, until_ns).
        starts_at_ns: Of the first step.
        ends_at_ns: Before the last step's end.
        step_ns: Of the tier.
    """
    most = GAP_NS // step_ns
    return f"""
WITH member AS MATERIALIZED ({memberships}),
known AS MATERIALIZED (
    SELECT device_no, starts_at_ns AS t, power_w AS p
    FROM ({tier})
    WHERE power_w IS NOT NULL AND device_no IN (SELECT device_no FROM member)
),
-- Most devices have no gap, and sorting their rows is what would take the time.
gapped AS (
    SELECT device_no FROM known GROUP BY device_no
    HAVING count(*) <= (max(t) - min(t)) // {step_ns}
),
spaced AS (
    SELECT device_no, t, p, lead(t) OVER later AS next_t, lead(p) OVER later AS next_p
    FROM known WHERE device_no IN (SELECT device_no FROM gapped)
    WINDOW later AS (PARTITION BY device_no ORDER BY t)
),
filled AS (
    SELECT device_no, t, p, 1 AS measured FROM known
    UNION ALL
    SELECT device_no, t + step * {step_ns},
        p + (next_p - p) * step / ((next_t - t) // {step_ns}), 0
    FROM spaced, unnest(range(1, (next_t - t) // {step_ns})) AS steps(step)
    WHERE next_t - t > {step_ns} AND next_t - t <= {most} * {step_ns}
)
SELECT t AS starts_at_ns, sum(p) AS power_w, sum(measured)::INTEGER AS measured,
    (count(*) - sum(measured))::INTEGER AS interpolated
FROM filled JOIN member USING (device_no)
WHERE t >= from_ns AND t < until_ns AND t >= {starts_at_ns} AND t < {ends_at_ns}
GROUP BY t ORDER BY t
"""


def pieces(starts_at_ns: int, ends_at_ns: int, step_ns: int, members: int) -> list[tuple[int, int]]:
    """Divide [starts_at_ns, ends_at_ns) so that each piece has about `ROWS` means, or an hour."""
    piece_ns = max(2 * GAP_NS, ROWS // max(members, 1) * step_ns)
    edges = [*range(starts_at_ns, ends_at_ns, piece_ns), ends_at_ns]
    return list(pairwise(edges))


def series(
    found: pa.Table, memberships: pa.Table, starts_at_ns: int, ends_at_ns: int, step_ns: int
) -> pa.Table:
    """Return one row per step of [starts_at_ns, ends_at_ns), with how many devices it rests on."""
    first_ns = starts_at_ns // step_ns * step_ns
    starts_ns = np.arange(first_ns, max(first_ns, ends_at_ns), step_ns, dtype=np.int64)
    places = (numbers(found, "starts_at_ns") - first_ns) // step_ns
    power_w = np.full(len(starts_ns), np.nan)
    measured, interpolated = (np.zeros(len(starts_ns), np.int32) for _ in range(2))
    power_w[places] = floats(found, "power_w")
    measured[places] = numbers(found, "measured")
    interpolated[places] = numbers(found, "interpolated")
    devices = _members_at(memberships, starts_ns)
    counted = (measured + interpolated).astype(np.float64)
    coverage = np.divide(counted, devices, out=np.full(len(counted), np.nan), where=devices > 0)
    columns = [
        pa.array(starts_ns).cast(pa.timestamp("ns")),
        pa.array(starts_ns),
        pa.array(power_w, from_pandas=True),
        pa.array(devices.astype(np.int32)),
        pa.array(measured),
        pa.array(interpolated),
        pa.array(coverage, from_pandas=True),
    ]
    return pa.table(columns, schema=SCHEMA)


def published(source: str, resource: str, starts_at_ns: int, ends_at_ns: int, step_ns: int) -> str:
    """Return SQL for what the plant said, tick by tick (step 0) or as the mean over steps.

    The bounds are averaged like the power: errors that last longer than a step do not average out.
    """
    where = f"resource = {resource} AND time >= {at(starts_at_ns)} AND time < {at(ends_at_ns)}"
    coverage = "(live + late) / nullif(devices, 0)"
    if not step_ns:
        return f"SELECT *, {coverage} AS coverage FROM ({source}) WHERE {where} ORDER BY time"
    means = (
        "power_w",
        "low_w",
        "high_w",
        "measured_w",
        "measured_share",
        "commanded_w",
        "target_w",
        "headroom_up_w",
        "headroom_down_w",
        "others_w",
    )
    start = f"(at_ns // {step_ns} * {step_ns})"
    return (
        f"SELECT make_timestamp_ns({start}) AS time, {start} AS starts_at_ns, "
        + ", ".join(f"avg({name}) AS {name}" for name in means)
        + f", max(devices) AS devices, avg({coverage}) AS coverage, "
        "bool_and(complete) AS complete, count(*) AS ticks, "
        f"max(computed_at_ns) AS computed_at_ns FROM ({source}) WHERE {where} "
        "GROUP BY 1, 2 ORDER BY 1"
    )


def _members_at(memberships: pa.Table, at_ns: Longs) -> Longs:
    came = np.sort(numbers(memberships, "from_ns"))
    left = np.sort(numbers(memberships, "until_ns"))
    members: Longs = np.searchsorted(came, at_ns, "right") - np.searchsorted(left, at_ns, "right")
    return members
