"""Reads what clients send (IEEE 2030.5 XML) without trusting it. Pure.

What we write goes through envoy-schema, which knows the order of elements; what we read does not:
its closed enumerations would cost a whole message for one unit it does not know.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from lxml import etree  # type: ignore[import-untyped]  # it has no types

NS = "urn:ieee:std:2030.5:ns"
_ELEMENTS_MAX = 5_000
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")
_HEX = re.compile(r"\s*(?:[0-9A-Fa-f]{2}){1,20}\s*")
_EXPONENT_MAX = 12
"""No quantity here needs more: a megawatt in microwatts."""
_TEXT_SHOWN = 40


class Misread(NamedTuple):
    """Why a message cannot be used: `code: place: what; remedy`."""

    reason: str


class Part:
    """An element of a message; what is missing or malformed in it reads as None or empty."""

    __slots__ = ("_element",)

    def __init__(self, element: Any) -> None:
        self._element = element

    @property
    def name(self) -> str:
        """Return the local name."""
        return str(etree.QName(self._element).localname)

    def one(self, name: str) -> "Part | None":
        """Return the first child of a name."""
        found = self._element.find(f"{{{NS}}}{name}")
        return Part(found) if found is not None else None

    def all(self, name: str) -> list["Part"]:
        """Return every child of a name."""
        return [Part(found) for found in self._element.findall(f"{{{NS}}}{name}")]

    def text(self, name: str) -> str:
        """Return the text of a child, trimmed, whatever CSIP-AUS version its namespace is of."""
        found = self._element.find(f"{{*}}{name}")
        return (found.text or "").strip() if found is not None else ""

    def whole(self, name: str) -> int | None:
        """Return a child that is a whole number."""
        text = self.text(name)
        return int(text) if _WHOLE.fullmatch(text) else None

    def bits(self, name: str) -> int | None:
        """Return a child that is a HexBinary bitmap."""
        text = self.text(name)
        return int(text, 16) if _HEX.fullmatch(text) else None

    def hexadecimal(self, name: str, digits: int) -> str:
        """Return a child that is a HexBinary identifier in its one form: all digits, upper case."""
        text = self.text(name)
        return text.upper().zfill(digits) if _HEX.fullmatch(text) and len(text) <= digits else ""

    def watts(self, name: str) -> float | None:
        """Return a child that is an ActivePower. [W]"""
        power = self.one(name)
        value = power.whole("value") if power is not None else None
        if power is None or value is None:
            return None
        return scaled(value, power.whole("multiplier") or 0)


def scaled(value: int, exponent: int) -> float | None:
    """Return a value times a power of ten; None where the exponent is absurd."""
    if abs(exponent) > _EXPONENT_MAX:
        return None
    return value * 10.0**exponent


def decode(body: bytes, expected: Collection[str]) -> Part | Misread:
    """Read a message whose outermost element is one of those expected. Never raises.

    No entities, no document types, nothing fetched, nothing deep: libxml2 refuses nesting beyond
    256 and names longer than they can be.
    """
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(body, parser)
    except (etree.LxmlError, ValueError) as error:
        return Misread(f"message: body: is no XML ({str(error)[:_TEXT_SHOWN]}); send sep+xml")
    if root is None:
        return Misread("message: body: is empty; send sep+xml")
    if root.getroottree().docinfo.doctype:
        return Misread("message: body: has a document type; leave it out")
    if sum(1 for _ in zip(root.iter(), range(_ELEMENTS_MAX + 1), strict=False)) > _ELEMENTS_MAX:
        return Misread(f"message: body: has more than {_ELEMENTS_MAX} elements; send less at once")
    name = etree.QName(root)
    if name.namespace != NS or name.localname not in expected:
        wanted = " or ".join(sorted(expected))
        said = str(name.localname)[:_TEXT_SHOWN]
        return Misread(f"message: {said}: is not expected here; send {wanted} of {NS}")
    return Part(root)


class Ratings(NamedTuple):
    """What a client says its DER can do. [W] None: it did not say."""

    max_w: float | None = None
    max_charge_w: float | None = None
    max_discharge_w: float | None = None


def ratings(part: Part) -> Ratings:
    """Return the ratings of DERSettings (`setMax…`) or DERCapability (`rtgMax…`)."""
    prefix = "set" if part.name == "DERSettings" else "rtg"
    return Ratings(
        part.watts(f"{prefix}MaxW"),
        part.watts(f"{prefix}MaxChargeRateW"),
        part.watts(f"{prefix}MaxDischargeRateW"),
    )


_FIXED_W = 1 << 7
_TARGET_W = 1 << 22
_STORAGE_TARGET_W = 1 << 0


def control_modes(part: Part) -> set[str]:
    """Return which of our ways to write a setpoint a DERCapability or DERSettings names.

    Source: DERControlType of sep.xsd; `vppModes…` of the CSIP-AUS 1.3 extension.
    """
    suffix = "Enabled" if part.name == "DERSettings" else "Supported"
    modes = part.bits(f"modes{suffix}") or 0
    storage = part.bits(f"vppModes{suffix}") or 0
    said = {"fixed_w": modes & _FIXED_W, "target_w": modes & _TARGET_W}
    said["storage_target_w"] = storage & _STORAGE_TARGET_W
    return {name for name, bit in said.items() if bit}


RESPONSES: Mapping[int, str] = {
    4: "opted out",
    8: "opted out in part",
    10: "nobody took part",
    7: "another control has taken its place",
    12: "cannot be shown",
    13: "given up for another server's control",
    14: "given up for another program's control",
    251: "the device has no such control",
    252: "control or its value is not possible",
    253: "control is not valid",
    254: "control came too late",
}
"""Status of a Response that tells of a control not followed: in words. IEEE 2030.5, table 27."""
