"""Histories of registers whose truth is known, and all that happens to registers on the way."""

import math
import random
from dataclasses import dataclass, field

import numpy as np

from kapelle.fleet.metering.accounts import Account, Meters, account
from kapelle.fleet.metering.arrange import arrange
from kapelle.model.ids import NS_PER_S

T0 = 1_700_000_100 * NS_PER_S
DAY_S = 86_400
FAULTS = ("reset", "restart", "replaced", "spike", "zero", "jitter", "gap", "wide", "none")


@dataclass
class History:
    """What one device reported, and what is true."""

    power_w: float
    resolution_wh: float
    rollover_wh: float
    at_s: list[int] = field(default_factory=list)
    register_wh: list[float] = field(default_factory=list)
    boot: list[int] = field(default_factory=list)
    expected_wh: float = 0.0
    """What a keeper of books who knows every meter would have counted."""
    segments: int = 1
    faults: list[str] = field(default_factory=list)


def history(draw: random.Random) -> History:
    """Live through some hours of a device, a fault now and then, each once the last is over."""
    power_w = float(draw.choice([1000.0, 3680.0, 11_000.0]))
    every_s = int(draw.choice([60, 300, 900]))
    resolution_wh = float(draw.choice([0.1, 1.0, 10.0] if every_s < 300 else [1.0, 10.0]))
    rollover_wh = float(draw.choice([0.0, 1e6, 1e7]))
    made = History(power_w, resolution_wh, rollover_wh)
    step_wh = power_w * every_s / 3600
    level_wh = (draw.uniform(100, 5000)) * step_wh
    if rollover_wh and draw.random() < 0.5:
        level_wh = rollover_wh - (draw.uniform(0, 20)) * step_wh
    at_s, boot, last_wh, calm = 0, 1, None, 0
    for _ in range(draw.randrange(20, 60)):
        fault = "none"
        if calm >= 5 and draw.random() < 0.4:
            fault, calm = str(draw.choice(FAULTS)), 0
        passed_s = every_s
        if fault == "gap":
            passed_s = draw.randrange(3600, 20 * DAY_S)
            # A meter that counts round more than once in a silence cannot be told from another.
            passed_s = min(passed_s, int(rollover_wh / 3 / power_w * 3600) or passed_s)
        at_s += passed_s
        level_wh += (draw.uniform(0.3, 1.0)) * power_w * passed_s / 3600
        now_wh = shown(made, level_wh)
        if fault in ("reset", "restart") and not 100 * step_wh < now_wh < (
            rollover_wh - 100 * step_wh if rollover_wh else np.inf
        ):
            # So low, or so close to its end, it cannot be told from one that goes on.
            fault = "none"
        if fault in ("reset", "restart"):
            boot += fault == "restart"
            level_wh = (draw.uniform(0.0, 0.9)) * step_wh
            last_wh = None
            made.expected_wh += shown(made, level_wh)
            made.segments += 1
        elif fault == "replaced":
            up = draw.random() < 0.5 or shown(made, level_wh) < 1000 * step_wh
            other_wh = shown(made, level_wh) * (draw.uniform(1.5, 3) if up else 0.8)
            other_wh += 1000 * step_wh if up else 0
            if not rollover_wh or other_wh < rollover_wh * 0.6:
                level_wh, last_wh = other_wh, None
                made.segments += 1
        made.faults.append(fault)
        now_wh = shown(made, level_wh)
        if fault in ("spike", "zero"):
            said_wh = now_wh * (draw.uniform(0.0, 5.0)) if fault == "spike" else 0.0
        elif fault == "jitter":
            said_wh = max(now_wh - resolution_wh, 0.0)
        else:
            said_wh = now_wh
            if last_wh is not None:
                risen_wh = now_wh - last_wh
                made.expected_wh += risen_wh + (rollover_wh if risen_wh < 0 else 0.0)
            last_wh = now_wh
        calm += 1
        made.at_s.append(at_s)
        made.register_wh.append(round(said_wh, 4))
        made.boot.append(boot)
    for _ in range(3):
        # What came last can be told only by what comes after it.
        made.at_s.append(made.at_s[-1] + every_s)
        made.register_wh.append(round(shown(made, level_wh), 4))
        made.boot.append(boot)
    if last_wh is not None:
        risen_wh = shown(made, level_wh) - last_wh
        made.expected_wh += risen_wh + (rollover_wh if risen_wh < 0 else 0.0)
    return made


def shown(made: History, level_wh: float) -> float:
    """Return what the register shows of what it has counted."""
    value = math.floor(level_wh / made.resolution_wh + 1e-9) * made.resolution_wh
    return value % made.rollover_wh if made.rollover_wh else value


def ranks(boots, seqs) -> np.ndarray:
    """Return the order of reports that carry both counters."""
    return (np.asarray(boots, np.int64) << 32 | np.asarray(seqs, np.int64)) ^ np.int64(-(2**63))


def rows_of(histories: list[History], draw: np.random.Generator, *, counted: bool = True):
    """Return the reports of all devices, some of them twice, in any order."""
    device, order, at_ns, wh = [], [], [], []
    for number, made in enumerate(histories):
        for place, (at_s, value, boot) in enumerate(
            zip(made.at_s, made.register_wh, made.boot, strict=True)
        ):
            device.append(number)
            at_ns.append(T0 + at_s * NS_PER_S)
            order.append((boot << 32 | place) - 2**63 if counted else at_ns[-1])
            wh.append(value)
    count = len(device)
    twice = np.concatenate([np.arange(count), draw.integers(0, count, count // 5)])
    draw.shuffle(twice)
    return (
        np.array(device, np.int32)[twice],
        np.array(order, np.int64)[twice],
        np.array(at_ns, np.int64)[twice],
        np.array(wh)[twice],
    )


def meters_of(histories: list[History]) -> Meters:
    return Meters(
        np.arange(len(histories), dtype=np.int32),
        np.array([made.power_w for made in histories]),
        np.array([made.rollover_wh for made in histories]),
        np.array([made.resolution_wh for made in histories]),
    )


def accounted(device_no, order, at_ns, wh, meters: Meters) -> Account:
    places = arrange(device_no, order, at_ns, at_ns, np.zeros(len(at_ns), np.uint8))
    return account(device_no[places], order[places], at_ns[places], wh[places], meters)


def totals(counted: Account, devices: int) -> np.ndarray:
    last = np.zeros(devices, np.int64)
    last[counted.device_no] = counted.mwh
    return last
