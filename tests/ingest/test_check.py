"""What is refused, and why; and that nothing is ever lost between kept and refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.ingest.check import check
from kapelle.ingest.settings import IngestSettings
from kapelle.model.blocks import Readings
from kapelle.model.enums import Metric, Quality
from kapelle.model.ids import NS_PER_S

NOW = 1_790_000_000 * NS_PER_S
DAY = 86_400 * NS_PER_S
SETTINGS = IngestSettings()


def one(at_ns: int = NOW, device_no: int = 0, order: int = 1, **values: float) -> Readings:
    return Readings(
        device_no=np.array([device_no], np.int32),
        order=np.array([order], np.int64),
        measured_at_ns=np.array([at_ns], np.int64),
        received_at_ns=np.array([NOW], np.int64),
        quality=np.zeros(1, np.uint8),
        values={Metric[name.upper()]: np.array([value]) for name, value in values.items()},
    )


def plate(up: float, down: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([up]), np.array([down])


@pytest.mark.parametrize(
    ("reading", "code", "hint"),
    [
        (one(power_w=3_200.0), "", ""),
        # 3.2 may be a resting battery or kW sent as W: one reading cannot tell, it stays.
        (one(power_w=3.2), "", ""),
        (one(power_w=7_600.0), "", ""),
        (one(power_w=7_601.0), "power-unit", "send W"),
        (one(power_w=3.2e6), "power-unit", "looks like W sent as kW"),
        (one(power_w=-3.2e6), "power-unit", "looks like W sent as kW"),
        (one(power_w=1e300), "power-range", "nameplate"),
        (one(power_w=np.inf), "value-infinite", "leave out"),
        (one(power_w=np.nan), "", ""),
        (one(device_no=-1, power_w=1.0), "device-unknown", "enrol"),
        (one(at_ns=0, power_w=1.0), "", ""),
        (one(at_ns=NOW + 299 * NS_PER_S), "", ""),
        (one(at_ns=NOW + 301 * NS_PER_S), "time-ahead", "NTP"),
        (one(at_ns=NOW + DAY), "time-ahead", "86400 s ahead"),
        (one(at_ns=NOW - 44 * DAY), "", ""),
        (one(at_ns=NOW - 46 * DAY), "time-old", "46 days"),
        (one(at_ns=NOW // 10**9), "time-range", "looks like seconds"),
        (one(at_ns=NOW // 10**6), "time-range", "looks like milliseconds"),
        (one(at_ns=NOW // 10**3), "time-range", "looks like microseconds"),
        (one(at_ns=3_600 * NS_PER_S), "time-range", "1970"),
        (one(at_ns=4_300_000_000 * NS_PER_S), "time-range", "2100"),
        (one(at_ns=-5), "time-range", "2020"),
        (one(at_ns=2**63 - 1), "time-range", "2100"),
        (one(soc=0.0), "", ""),
        (one(soc=1.0), "", ""),
        (one(soc=1.01), "soc-range", "percent"),
        (one(soc=55.0), "soc-range", "percent"),
        (one(soc=-0.1), "soc-range", "gauge"),
        (one(soc=400.0), "soc-range", "gauge"),
        (one(export_wh=-1.0), "register-range", "export_wh"),
        (one(import_wh=1e300), "register-range", "import_wh"),
        (one(export_wh=0.0), "", ""),
        (one(max_w=5_000.0, min_w=-5_000.0), "", ""),
        (one(max_w=-1.0, min_w=1.0), "limit-order", "below min_w"),
        (one(max_w=5e6), "limit-range", "nameplate"),
        (one(setpoint_w=5e6), "setpoint-range", "nameplate"),
        (one(setpoint_w=-5_000.0, mode=1.0), "", ""),
        (one(mode=4.0), "mode-range", "mode 4"),
        (one(voltage_v=-230.0), "value-range", "voltage_v"),
        (one(frequency_hz=np.inf), "value-infinite", "frequency_hz"),
    ],
)
def test_reasons(reading: Readings, code: str, hint: str) -> None:
    checked = check(reading, plate(5_000, 5_000), SETTINGS)
    assert [reason.partition(":")[0] for reason in checked.refused.values()] == (
        [code] if code else []
    )
    assert len(checked.kept) == (0 if code else 1)
    assert hint in "".join(checked.refused.values())


@pytest.mark.parametrize(
    ("power_w", "up", "down", "code"),
    [
        (3_000.0, 0.0, 3_000.0, "power-sign"),  # a heat pump that "exports"
        (-3_000.0, 3_000.0, 0.0, "power-sign"),  # a solar inverter that "consumes"
        (-240.0, 3_000.0, 0.0, ""),  # its standby at night
        (-3_000.0, 0.0, 3_000.0, ""),
        (3_000.0, np.nan, np.nan, ""),  # nothing to compare with
    ],
)
def test_a_turned_sign_is_seen_where_the_plate_rules_one_way_out(
    power_w: float, up: float, down: float, code: str
) -> None:
    refused = check(one(power_w=power_w), plate(up, down), SETTINGS).refused
    assert [reason.partition(":")[0] for reason in refused.values()] == ([code] if code else [])


def test_stamps_and_flags() -> None:
    unstamped = check(one(at_ns=0, order=0, power_w=1.0), plate(5_000, 0), SETTINGS).kept
    assert unstamped.measured_at_ns[0] == unstamped.order[0] == NOW
    assert unstamped.quality[0] == Quality.UNSTAMPED
    ahead = check(one(at_ns=NOW + 90 * NS_PER_S, power_w=1.0), plate(5_000, 0), SETTINGS).kept
    assert ahead.quality[0] == Quality.AHEAD
    assert ahead.measured_at_ns[0] == NOW + 90 * NS_PER_S, "the device's time is never overwritten"
    numbered = check(one(at_ns=0, order=7, power_w=1.0), plate(5_000, 0), SETTINGS).kept
    assert numbered.order[0] == 7


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, 5e6, -5e3])
times = st.integers(-(2**63), 2**63 - 1) | st.integers(NOW - 100 * DAY, NOW + 2 * DAY) | st.just(0)


@given(
    st.lists(st.tuples(st.integers(-1, 3), times, numbers, numbers, numbers, numbers), max_size=12)
)
def test_every_row_is_kept_or_refused_never_both(rows: list[tuple[float, ...]]) -> None:
    columns = [np.array([row[k] for row in rows]) for k in range(6)]
    block = Readings(
        device_no=columns[0].astype(np.int32),
        order=np.arange(len(rows), dtype=np.int64),
        measured_at_ns=np.array([row[1] for row in rows], np.int64),
        received_at_ns=np.full(len(rows), NOW, np.int64),
        quality=np.zeros(len(rows), np.uint8),
        values={
            metric: columns[2 + place].astype(np.float64)
            for place, metric in enumerate((Metric.POWER_W, Metric.SOC, Metric.MAX_W, Metric.MIN_W))
        },
    )
    watts = np.full(len(rows), 5_000.0)
    checked = check(block, (watts, watts), SETTINGS)
    kept = [n for n in range(len(rows)) if n not in checked.refused]
    assert checked.kept.device_no.tolist() == block.device_no[kept].tolist()
    for metric, column in checked.kept.values.items():
        np.testing.assert_array_equal(column, block.values[metric][kept])
        assert not np.isinf(column).any()
    # Each alone gets the same verdict: no row is judged by its neighbours.
    for row in range(len(rows)):
        alone = Readings(
            device_no=block.device_no[[row]],
            order=block.order[[row]],
            measured_at_ns=block.measured_at_ns[[row]],
            received_at_ns=block.received_at_ns[[row]],
            quality=block.quality[[row]],
            values={m: c[[row]] for m, c in block.values.items()},
        )
        verdict = check(alone, (watts[:1], watts[:1]), SETTINGS).refused
        assert verdict.get(0) == checked.refused.get(row)
