"""What the last hop costs: commands through the gate, with limits of every kind configured."""

import time

import numpy as np

from kapelle.model.blocks import Commands
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Order
from kapelle.registry.directory import Bearer, Directory
from kapelle.safety.accounts import restore, to_snapshot
from kapelle.safety.gate import check
from kapelle.safety.recharge import charge_again
from kapelle.safety.settings import GroupLimit, SafetySettings
from kapelle.safety.state import GateState, know

T0_NS = 1_700_000_000 * NS_PER_S
_AT_ONCE = 1000
_EACH = tuple(
    GroupLimit(**place, power_w=1e12, ramp_w_per_min=1e12, switching_max=1e9)
    for place in ({}, {"zone": "*"}, {"feeder": "*"}, {"site": "*"}, {"device": "*"})
)


def run(*, quick: bool) -> list[dict[str, object]]:
    """Return a row per configuration: none of `[[safety.limits]]`, and five on every level; and
    what a restart costs."""
    devices = 20_000 if quick else 100_000
    directory = Directory.build(
        4,
        (
            Bearer(
                n, f"d{n}", True, 5e3, 5e3,
                kind=DeviceKind.WATER_HEATER if n % 4 == 0 else DeviceKind.BATTERY,
                site=f"s{n // 2}", feeder=f"f{n // 100}", zone=f"z{n // 10_000}",
            )
            for n in range(devices)
        ),
    )  # fmt: skip
    return [
        _row("no group limits", SafetySettings(), directory, devices),
        _row("five levels limited", SafetySettings(limits=_EACH), directory, devices),
        *_restart(SafetySettings(limits=_EACH), directory, devices),
    ]


def _row(
    case: str, settings: SafetySettings, directory: Directory, devices: int
) -> dict[str, object]:
    state = GateState.of(settings)
    state.orders.apply(Order(1, "all", 1e12, 0, 1 << 61, 0))
    took_s = []
    for turn in range(3):
        began_s = time.perf_counter()
        now_ns = T0_NS + turn * 120 * NS_PER_S
        for start in range(0, devices, _AT_ONCE):
            block = _block(np.arange(start, start + _AT_ONCE, dtype=np.int32), now_ns, turn)
            broken = check(
                state, block, know(state, directory, block.device_no), now_ns, 4, settings
            )
            assert not broken.any()
            now_ns += NS_PER_S // 100
        took_s.append(time.perf_counter() - began_s)
    best_s = min(took_s)
    return _told(f"{case}: commands through the gate", devices / best_s, "1/s")


def _restart(
    settings: SafetySettings, directory: Directory, devices: int
) -> list[dict[str, object]]:
    """Time how a gate that restarts takes up its accounts, and charges what left since."""
    state, now_ns = GateState.of(settings), T0_NS
    state.orders.apply(Order(1, "all", 1e12, 0, 1 << 61, 0))
    began_s = time.perf_counter()
    for start in range(0, devices, _AT_ONCE):
        block = _block(np.arange(start, start + _AT_ONCE, dtype=np.int32), now_ns, 0)
        known = know(state, directory, block.device_no)
        charge_again(state, block, known, now_ns, 4, settings, sure=True)
        now_ns += NS_PER_S // 100
    charged_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    restore(GateState.of(settings), to_snapshot(state, {}))
    return [
        _told("five levels limited: charged anew after a restart", devices / charged_s, "1/s"),
        _told("accounts saved and taken up again", time.perf_counter() - began_s, "s"),
    ]


def _told(name: str, value: float, unit: str) -> dict[str, object]:
    return {"name": name, "value": round(value, 4), "unit": unit}


def _block(
    device_no: "np.ndarray[tuple[int], np.dtype[np.int32]]", now_ns: int, turn: int
) -> Commands:
    count = len(device_no)
    return Commands(
        device_no=device_no,
        order_no=np.ones(count, np.int32),
        revision=np.full(count, now_ns, np.int64),
        epoch=np.ones(count, np.int64),
        attempt=np.ones(count, np.int32),
        setpoint_w=np.where(device_no % 2 == turn % 2, 1000.0, 1500.0),
        issued_at_ns=np.full(count, now_ns, np.int64),
        not_after_ns=np.full(count, now_ns + 10 * NS_PER_S, np.int64),
        ttl_s=np.full(count, 10.0),
        revert_s=np.full(count, 300.0),
    )
