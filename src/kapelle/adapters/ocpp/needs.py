"""What a vehicle says it needs before it leaves, and what it could give back. Pure.

Source: OCPP 2.0.1 and 2.1 part 2, NotifyEVChargingNeedsRequest (K15-K18), after ISO 15118.
"""

import math

import msgspec

from kapelle.adapters.ocpp.events import Event, Need
from kapelle.adapters.ocpp.meters import moment_ns

_PHASES = {"AC_single_phase": 1, "AC_two_phase": 2, "AC_three_phase": 3}


class _Ac(msgspec.Struct, rename="camel"):
    energy_amount: float = math.nan
    ev_max_current: float = math.nan
    ev_max_voltage: float = math.nan


class _Dc(msgspec.Struct, rename="camel"):
    ev_max_current: float = math.nan
    ev_max_voltage: float = math.nan
    ev_max_power: float = math.nan
    energy_amount: float = math.nan
    state_of_charge: float = math.nan


class _Both(msgspec.Struct, rename={"charge": "maxChargePower", "discharge": "maxDischargePower"}):
    charge: float = math.nan
    discharge: float = math.nan
    ev_target_energy_request: float = msgspec.field(default=math.nan, name="evTargetEnergyRequest")
    ev_min_energy_request: float = msgspec.field(default=math.nan, name="evMinEnergyRequest")


class _Needs(msgspec.Struct, rename="camel"):
    requested_energy_transfer: str = ""
    departure_time: str = ""
    ac_charging_parameters: _Ac = msgspec.field(default_factory=_Ac)
    dc_charging_parameters: _Dc = msgspec.field(default_factory=_Dc)
    v2x_charging_parameters: _Both = msgspec.field(default_factory=_Both)


class _Request(msgspec.Struct, rename="camel"):
    evse_id: int
    charging_needs: _Needs
    timestamp: str = ""


_decode = msgspec.json.Decoder(_Request).decode


def decode(payload: bytes) -> Event:
    """Read a NotifyEVChargingNeeds request; raises what msgspec raises."""
    said = _decode(payload)
    needs = said.charging_needs
    alternating, direct = needs.ac_charging_parameters, needs.dc_charging_parameters
    both = needs.v2x_charging_parameters
    phases = _PHASES.get(needs.requested_energy_transfer, 3)
    alternating_w = alternating.ev_max_current * alternating.ev_max_voltage * phases
    direct_w = direct.ev_max_current * direct.ev_max_voltage
    soc = direct.state_of_charge / 100
    need = Need(
        # ISO 15118-20: the target is what the driver asked for, the minimum what he must have.
        energy_wh=_first(
            both.ev_target_energy_request,
            both.ev_min_energy_request,
            alternating.energy_amount,
            direct.energy_amount,
        ),
        departure_ns=moment_ns(needs.departure_time),
        charge_w_max=_first(both.charge, direct.ev_max_power, alternating_w, direct_w),
        discharge_w_max=_first(both.discharge, 0.0),
        soc=soc if 0.0 <= soc <= 1.0 else math.nan,
    )
    return Event(evse=said.evse_id, need=need, at_ns=moment_ns(said.timestamp))


def _first(*numbers: float) -> float:
    """Return the first that is a number a vehicle can mean, else NaN."""
    return next((one for one in numbers if math.isfinite(one) and 0 <= one < 1e9), math.nan)
