"""Where the points of SunSpec models lie: those this adapter reads or writes, and no others.

Source: SunSpec Alliance, model definitions (github.com/sunspec/models, `json/model_<id>.json`); the
tests hold this table against the copy in pysunspec2.
"""

from collections.abc import Mapping
from typing import NamedTuple

READ_MAX = 123
"""Registers of a model that are read, at once: more would not fit into one answer beside others'
head. Every point below lies within, with its scale factor."""


class Kind(NamedTuple):
    """How a point is coded. Source: SunSpec Device Information Model Specification, point types."""

    registers: int
    """0: as many as the point says."""
    signed: bool
    missing: int
    """What stands there, read without sign, where the device has no value."""


INT16 = Kind(1, True, 0x8000)
UINT16 = Kind(1, False, 0xFFFF)
ENUM16 = UINT16
BITFIELD16 = UINT16
SUNSSF = INT16
INT32 = Kind(2, True, 0x8000_0000)
UINT32 = Kind(2, False, 0xFFFF_FFFF)
UINT64 = Kind(4, False, 0xFFFF_FFFF_FFFF_FFFF)
# An accumulator that stands at 0 is one the device does not have.
ACC32 = Kind(2, False, 0)
ACC64 = Kind(4, False, 0)
STRING = Kind(0, False, 0)


class Point(NamedTuple):
    """One value of a model."""

    offset: int
    """Registers from the model's first, which holds its number."""
    kind: Kind
    scale: str = ""
    """The point in the same model that holds the power of ten."""
    size: int = 0
    """Registers of a text."""


_INVERTER: Mapping[str, Point] = {
    "PhVphA": Point(10, UINT16, scale="V_SF"),
    "V_SF": Point(13, SUNSSF),
    "W": Point(14, INT16, scale="W_SF"),
    "W_SF": Point(15, SUNSSF),
    "Hz": Point(16, UINT16, scale="Hz_SF"),
    "Hz_SF": Point(17, SUNSSF),
    "WH": Point(24, ACC32, scale="WH_SF"),
    "WH_SF": Point(26, SUNSSF),
    "St": Point(38, ENUM16),
}
_METER: Mapping[str, Point] = {
    "PhV": Point(7, INT16, scale="V_SF"),
    "PhVphA": Point(8, INT16, scale="V_SF"),
    "V_SF": Point(15, SUNSSF),
    "Hz": Point(16, INT16, scale="Hz_SF"),
    "Hz_SF": Point(17, SUNSSF),
    "W": Point(18, INT16, scale="W_SF"),
    "W_SF": Point(22, SUNSSF),
    "TotWhExp": Point(38, ACC32, scale="TotWh_SF"),
    "TotWhImp": Point(46, ACC32, scale="TotWh_SF"),
    "TotWh_SF": Point(54, SUNSSF),
}

MODELS: Mapping[int, Mapping[str, Point]] = {
    # Common
    1: {
        "Mn": Point(2, STRING, size=16),
        "Md": Point(18, STRING, size=16),
        "Vr": Point(42, STRING, size=8),
        "SN": Point(50, STRING, size=16),
    },
    101: _INVERTER,
    102: _INVERTER,
    103: _INVERTER,
    # Nameplate
    120: {
        "DERTyp": Point(2, ENUM16),
        "WRtg": Point(3, UINT16, scale="WRtg_SF"),
        "WRtg_SF": Point(4, SUNSSF),
        "MaxChaRte": Point(23, UINT16, scale="MaxChaRte_SF"),
        "MaxChaRte_SF": Point(24, SUNSSF),
        "MaxDisChaRte": Point(25, UINT16, scale="MaxDisChaRte_SF"),
        "MaxDisChaRte_SF": Point(26, SUNSSF),
    },
    # Basic settings
    121: {
        "WMax": Point(2, UINT16, scale="WMax_SF"),
        "WMax_SF": Point(22, SUNSSF),
    },
    # Measurements and status
    122: {
        "ActWh": Point(5, ACC64),
        "WAval": Point(31, UINT16, scale="WAval_SF"),
        "WAval_SF": Point(32, SUNSSF),
    },
    # Immediate controls
    123: {
        "WMaxLimPct": Point(5, UINT16, scale="WMaxLimPct_SF"),
        "WMaxLimPct_RvrtTms": Point(7, UINT16),
        "WMaxLim_Ena": Point(9, ENUM16),
        "WMaxLimPct_SF": Point(23, SUNSSF),
    },
    # Storage
    124: {
        "WChaMax": Point(2, UINT16, scale="WChaMax_SF"),
        "StorCtl_Mod": Point(5, BITFIELD16),
        "ChaState": Point(8, UINT16, scale="ChaState_SF"),
        "OutWRte": Point(12, INT16, scale="InOutWRte_SF"),
        "InWRte": Point(13, INT16, scale="InOutWRte_SF"),
        "InOutWRte_RvrtTms": Point(15, UINT16),
        "WChaMax_SF": Point(18, SUNSSF),
        "ChaState_SF": Point(22, SUNSSF),
        "InOutWRte_SF": Point(25, SUNSSF),
    },
    # Multiple MPPT inverter extension
    160: {
        "DCW_SF": Point(4, SUNSSF),
        "N": Point(8, UINT16),
    },
    201: _METER,
    202: _METER,
    203: _METER,
    204: _METER,
    # DER AC measurement
    701: {
        "InvSt": Point(4, ENUM16),
        "W": Point(10, INT16, scale="W_SF"),
        "LNV": Point(16, UINT16, scale="V_SF"),
        "Hz": Point(17, UINT32, scale="Hz_SF"),
        "TotWhInj": Point(19, UINT64, scale="TotWh_SF"),
        "TotWhAbs": Point(23, UINT64, scale="TotWh_SF"),
        "V_SF": Point(114, SUNSSF),
        "Hz_SF": Point(115, SUNSSF),
        "W_SF": Point(116, SUNSSF),
        "TotWh_SF": Point(120, SUNSSF),
    },
    # DER capacity
    702: {
        "WMaxRtg": Point(2, UINT16, scale="W_SF"),
        "WMax": Point(26, UINT16, scale="W_SF"),
        "W_SF": Point(45, SUNSSF),
    },
    # Enter service
    703: {
        "ES": Point(2, ENUM16),
    },
    # DER AC controls
    704: {
        "WMaxLimPctEna": Point(14, ENUM16),
        "WMaxLimPct": Point(15, UINT16, scale="WMaxLimPct_SF"),
        "WMaxLimPctEnaRvrt": Point(17, ENUM16),
        "WMaxLimPctRvrtTms": Point(18, UINT32),
        "WMaxLimPctRvrtRem": Point(20, UINT32),
        "WSetEna": Point(22, ENUM16),
        "WSetMod": Point(23, ENUM16),
        "WSet": Point(24, INT32, scale="WSet_SF"),
        "WSetPct": Point(28, INT16, scale="WSetPct_SF"),
        "WSetEnaRvrt": Point(30, ENUM16),
        "WSetRvrtTms": Point(31, UINT32),
        "WSetRvrtRem": Point(33, UINT32),
        "WMaxLimPct_SF": Point(54, SUNSSF),
        "WSet_SF": Point(55, SUNSSF),
        "WSetPct_SF": Point(56, SUNSSF),
    },
    # DER storage capacity
    713: {
        "SoC": Point(4, UINT16, scale="Pct_SF"),
        "Pct_SF": Point(8, SUNSSF),
    },
    # DER DC measurement
    714: {
        "NPrt": Point(4, UINT16),
        "DCW": Point(6, INT16, scale="DCW_SF"),
        "DCW_SF": Point(17, SUNSSF),
    },
    # Battery base
    802: {
        "SoC": Point(11, UINT16, scale="SoC_SF"),
        "LocRemCtl": Point(17, ENUM16),
        "State": Point(22, ENUM16),
        "SoC_SF": Point(56, SUNSSF),
    },
}
"""Model -> point -> place."""

INVERTERS = (701, 103, 102, 101)
"""Models that measure the power of an inverter, the most telling first."""
METERS = (203, 204, 202, 201)


class Repeated(NamedTuple):
    """A group that a model repeats: a port, or a string of modules."""

    counted_by: str
    """The point that says how often."""
    first: int
    """Where the first one begins."""
    size: int
    points: Mapping[str, Point]


REPEATED: Mapping[int, Repeated] = {
    160: Repeated(
        "N",
        10,
        20,
        {
            "IDStr": Point(1, STRING, size=8),
            "DCW": Point(11, UINT16, scale="DCW_SF"),
        },
    ),
    714: Repeated(
        "NPrt",
        20,
        25,
        {
            "PrtTyp": Point(0, ENUM16),
            "DCW": Point(12, INT16, scale="DCW_SF"),
        },
    ),
}
