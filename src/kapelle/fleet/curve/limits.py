"""How far each device can go and stay there: what it says, its nameplate, its energy."""

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet.columns import Fleet, span
from kapelle.fleet.curve import rations
from kapelle.model.enums import DeviceKind, Metric
from kapelle.model.ids import Flags, Floats, Ints
from kapelle.model.signals import Rationing

HOLD_S = 900.0
"""How long a setpoint must be possible where no order says otherwise. [s]"""
HOLD_S_MIN = 60.0
MOMENT_S = 5.0
"""How long at least where a plan says what comes after: a store may end empty. [s]"""

CONSUMES_ONLY = np.isin(
    np.arange(256), [int(DeviceKind.HEAT_PUMP), int(DeviceKind.WATER_HEATER), int(DeviceKind.LOAD)]
)

_CEILING_W = np.where(CONSUMES_ONLY, 0.0, np.inf)


def bounds(
    fleet: Fleet, rows: Ints, horizon: float = HOLD_S, rationing: Rationing | None = None
) -> tuple[Floats, Floats]:
    """Return the lowest and highest power each device can hold for `horizon` seconds. [W]

    Consumption of vehicles and other loads cannot be raised unless they say how far (`MIN_W`).

    A state of charge that was never reported is not taken for a full or an empty battery: a
    device with storage and without it has no headroom from storage.
    """
    # These passes over all rows decide how fast a curve is. `np.fmin` and `np.fmax`, which let the
    # unknown pass, and gathers of the few take a fifth of what masked copies do.
    at = span(rows)
    kind, own_w = fleet.kind[at], fleet.own_w[at]
    lowest_w = -fleet.nameplate_down_w[at]

    upper_w = np.fmin(fleet.value[Metric.MAX_W][at], fleet.nameplate_up_w[at])
    sunny = np.flatnonzero(kind == np.uint8(DeviceKind.PV))
    if len(sunny):
        # On its own schedule a plant gives all the sun offers, and less when it says so.
        upper_w[sunny] = np.minimum(upper_w[sunny], np.maximum(own_w[sunny], 0.0))
    np.minimum(upper_w, _CEILING_W.take(kind), out=upper_w)

    said_w = fleet.value[Metric.MIN_W][at]
    draws = (kind == np.uint8(DeviceKind.EV)) | (kind == np.uint8(DeviceKind.LOAD))
    drawing = np.flatnonzero(draws & np.isnan(said_w))
    lower_w = np.fmax(said_w, lowest_w)
    lower_w[drawing] = np.maximum(np.minimum(own_w[drawing], 0.0), lowest_w[drawing])

    energy_wh = fleet.energy_wh[at]
    stores = energy_wh == energy_wh
    if stores.any():
        if rationing is not None:
            _bound_by_rations(fleet, rows, rationing, np.flatnonzero(stores), lower_w, upper_w)
        _bound_by_energy(fleet, rows, horizon, stores, lower_w, upper_w)
    np.minimum(lower_w, upper_w, out=lower_w)
    return lower_w, upper_w


def _bound_by_rations(
    fleet: Fleet,
    rows: Ints,
    rationing: Rationing,
    stores: NDArray[np.intp],
    lower_w: Floats,
    upper_w: Floats,
) -> None:
    every = rows[stores]
    low_w, high_w = lower_w[stores], upper_w[stores]
    own_w = np.minimum(np.maximum(fleet.own_w[every], low_w), high_w)
    up_w, down_w = high_w - own_w, own_w - low_w
    give_wh, take_wh = rations.energies(
        fleet.value[Metric.SOC][every],
        fleet.reserve_soc[every].astype(np.float64),
        fleet.energy_wh[every],
        own_w,
        rations.rest_s(rationing, fleet.now_ns),
    )
    up_w *= rations.rationed(rationing.up, rations.lasting_s(up_w, give_wh))
    down_w *= rations.rationed(rationing.down, rations.lasting_s(down_w, take_wh))
    upper_w[stores], lower_w[stores] = own_w + up_w, own_w - down_w


def _bound_by_energy(
    fleet: Fleet, rows: Ints, horizon: float, stores: Flags, lower_w: Floats, upper_w: Floats
) -> None:
    at = span(rows)
    soc = fleet.value[Metric.SOC][at]
    w_per_soc = fleet.energy_wh[at] * (3600.0 / max(horizon, MOMENT_S))
    # What is inside and what passes the connection differ by the loss on the way.
    give_w = np.maximum((soc - fleet.reserve_soc[at]) * (w_per_soc * rations.EFFICIENCY), 0.0)
    take_w = np.minimum((soc - 1.0) * (w_per_soc / rations.EFFICIENCY), 0.0)
    # Devices without storage, NaN here, keep their bounds.
    np.fmin(upper_w, give_w, out=upper_w)
    np.fmax(lower_w, take_w, out=lower_w)
    unknown = np.flatnonzero(stores & np.isnan(soc))
    if len(unknown):
        upper_w[unknown] = np.minimum(upper_w[unknown], 0.0)
        lower_w[unknown] = np.maximum(lower_w[unknown], 0.0)
