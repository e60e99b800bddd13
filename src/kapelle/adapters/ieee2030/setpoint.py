"""A setpoint as a DERControl writes it: which mode, how much. Pure."""

from collections.abc import Set as AbstractSet

from kapelle.adapters.ieee2030.codec import Ratings

_MOST_EXACT = ("storage_target_w", "target_w", "fixed_w")
_HUNDREDTHS = 10_000
_INT16_MAX = 32_767


def choose(wanted: str, supported: AbstractSet[str]) -> str:
    """Return how to write a setpoint: as the operator says, else as the client says it can."""
    return wanted or next((mode for mode in _MOST_EXACT if mode in supported), "fixed_w")


def amount_of(setpoint_w: float, mode: str, said: Ratings, up_w: float, down_w: float) -> int | str:
    """Return the number a control carries, or why there is none.

    Args:
        setpoint_w: Positive towards the grid, as in every mode here. [W]
        mode: `fixed_w` counts in hundredths of a percent, the others in watts.
        said: What the client says of itself; where it does not, the nameplate counts.
        up_w: Nameplate towards the grid. [W]
        down_w: Nameplate towards the customer, positive. [W]

    Source:
        opModFixedW of sep.xsd: "in %setMaxChargeRateW if negative value or %setMaxW or
        %setMaxDischargeRateW if positive value (in hundredths)". Clients that name no
        rate of charge take the percentage of setMaxW both ways, as SunSpec model 704 does.
    """
    if mode != "fixed_w":
        return round(setpoint_w)
    if setpoint_w < 0:
        whole_w = said.max_charge_w or said.max_w or down_w
    else:
        whole_w = said.max_discharge_w or said.max_w or up_w
    if not whole_w >= 1.0:
        return 0 if setpoint_w == 0 else "control: setpoint: the device has no rating that way"
    return max(-_HUNDREDTHS, min(_HUNDREDTHS, round(_HUNDREDTHS * setpoint_w / whole_w)))


def active_power(watts: int) -> tuple[int, int]:
    """Return value and multiplier of an ActivePower: 16 bits and a power of ten."""
    exponent = 0
    while abs(watts) > _INT16_MAX * 10**exponent:
        exponent += 1
    return round(watts / 10**exponent), exponent
