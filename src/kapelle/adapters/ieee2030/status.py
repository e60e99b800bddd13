"""DERStatus: charge, and whose will the device follows. Pure."""

from kapelle.adapters.ieee2030.codec import Part
from kapelle.adapters.ieee2030.metering import Moment
from kapelle.model.enums import DeviceMode, Metric
from kapelle.model.ids import NS_PER_S

_FAULT_BIT = 1 << 4
"""ConnectStatusType: fault / error."""
_FAULTS = 7
"""InverterStatusType: one or more faults exist."""
_LOCAL = 0
"""LocalControlModeStatusType: local control."""
_PER_ONE = 10_000.0


def read_status(part: Part) -> list[Moment]:
    """Return what a DERStatus says, each at the time the client said it of."""
    at_s = part.whole("readingTime") or 0
    found: list[Moment] = []
    charge = part.one("stateOfChargeStatus")
    soc = charge.whole("value") if charge is not None else None
    if charge is not None and soc is not None:
        at_ns = (charge.whole("dateTime") or at_s) * NS_PER_S
        found.append(Moment(at_ns, {Metric.SOC: soc / _PER_ONE}))
    mode = _mode(part)
    if mode is not None:
        found.append(Moment(at_s * NS_PER_S, {Metric.MODE: float(mode)}))
    return [moment for moment in found if 0 <= moment.at_ns < 2**63]


def _mode(part: Part) -> DeviceMode | None:
    inverter, local = part.one("inverterStatus"), part.one("localControlModeStatus")
    connections = [part.one("genConnectStatus"), part.one("storConnectStatus")]
    bits = [one.bits("value") or 0 for one in connections if one is not None]
    has_fault = inverter is not None and inverter.whole("value") == _FAULTS
    if has_fault or any(flags & _FAULT_BIT for flags in bits):
        return DeviceMode.FAULT
    if local is not None and local.whole("value") == _LOCAL:
        return DeviceMode.LOCAL
    return None
