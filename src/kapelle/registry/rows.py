"""Devices as the registry stores them, and the forms they leave it in."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kapelle.model.blocks import F8, I4, I8, U1, Enrolled
from kapelle.model.enums import DeviceKind
from kapelle.registry import credentials
from kapelle.registry.device import Device
from kapelle.registry.directory import Bearer
from kapelle.registry.tables import devices


class Stored(NamedTuple):
    """A row of `tables.devices`, its columns in order; None where a number is not known."""

    device_no: int
    device_id: str
    active: int
    kind: int
    site: str
    vendor: str
    model: str
    zone: str
    feeder: str
    provider: str
    adapter: str
    address: str
    nameplate_up_w: float
    nameplate_down_w: float
    energy_wh: float | None
    reserve_soc: float
    ramp_w_per_s: float | None
    revert_s: float | None
    report_every_s: float | None
    meter_rollover_wh: float | None
    meter_resolution_wh: float | None
    tier: int | None
    priority: float | None
    steps: int | None
    min_on_s: float | None
    min_off_s: float | None
    must_run: int | None
    opted_out_until_ns: int | None
    credential: bytes | None
    credential_at_ns: int | None
    created_at_ns: int
    updated_at_ns: int
    revision: int


COLUMNS = tuple(devices.c[name] for name in Stored._fields)
DESCRIBED = Stored._fields[3:27]
"""Columns an operator decides: everything of a `Device` but its id and its owner's opting out."""

Described = tuple[int | str | float | None, ...]


def described(device: Device) -> Described:
    """Return the values of the columns `DESCRIBED` for a device."""
    return (
        int(device.kind),
        device.site or device.id,
        device.vendor,
        device.model,
        device.zone,
        device.feeder,
        device.provider,
        device.adapter,
        device.address,
        device.nameplate_up_w,
        device.nameplate_down_w,
        _known(device.energy_wh),
        device.reserve_soc,
        _known(device.ramp_w_per_s),
        _known(device.revert_s),
        _known(device.report_every_s),
        _known(device.meter_rollover_wh),
        _known(device.meter_resolution_wh),
        device.tier or None,
        device.priority if device.priority != 1.0 else None,
        device.steps or None,
        _known(device.min_on_s),
        _known(device.min_off_s),
        int(device.must_run) or None,
    )


def to_device(row: Stored) -> Device:
    """Return the description behind a stored row."""
    return Device(
        id=row.device_id,
        kind=DeviceKind(row.kind),
        site=row.site,
        vendor=row.vendor,
        model=row.model,
        zone=row.zone,
        feeder=row.feeder,
        provider=row.provider,
        adapter=row.adapter,
        address=row.address,
        nameplate_up_w=row.nameplate_up_w,
        nameplate_down_w=row.nameplate_down_w,
        energy_wh=_float(row.energy_wh),
        reserve_soc=row.reserve_soc,
        ramp_w_per_s=_float(row.ramp_w_per_s),
        revert_s=_float(row.revert_s),
        report_every_s=_float(row.report_every_s),
        meter_rollover_wh=_float(row.meter_rollover_wh),
        meter_resolution_wh=_float(row.meter_resolution_wh),
        tier=row.tier or 0,
        priority=row.priority or 1.0,
        steps=row.steps or 0,
        min_on_s=_float(row.min_on_s),
        min_off_s=_float(row.min_off_s),
        must_run=bool(row.must_run),
        opted_out_until_ns=row.opted_out_until_ns,
    )


def to_bearer(row: Stored) -> Bearer:
    """Return what the directory holds of a stored row."""
    return Bearer(
        row.device_no,
        row.device_id,
        bool(row.active),
        row.nameplate_up_w,
        row.nameplate_down_w,
        row.credential or credentials.NOBODY,
        row.kind,
        row.site,
        row.feeder,
        row.zone,
        row.adapter,
        row.address,
    )


def to_enrolled(rows: Sequence[Stored]) -> Enrolled:
    """Return the journal's form of stored rows. Credentials never leave the registry in it."""
    return Enrolled(
        device_no=np.array([row.device_no for row in rows], I4),
        active=np.array([row.active for row in rows], U1),
        kind=np.array([row.kind for row in rows], U1),
        device_id=tuple(row.device_id.encode() for row in rows),
        site=tuple(row.site.encode() for row in rows),
        vendor=tuple(row.vendor.encode() for row in rows),
        model=tuple(row.model.encode() for row in rows),
        zone=tuple(row.zone.encode() for row in rows),
        feeder=tuple(row.feeder.encode() for row in rows),
        provider=tuple(row.provider.encode() for row in rows),
        adapter=tuple(row.adapter.encode() for row in rows),
        address=tuple(row.address.encode() for row in rows),
        nameplate_up_w=np.array([row.nameplate_up_w for row in rows], F8),
        nameplate_down_w=np.array([row.nameplate_down_w for row in rows], F8),
        energy_wh=np.array([_float(row.energy_wh) for row in rows], F8),
        reserve_soc=np.array([row.reserve_soc for row in rows], F8),
        ramp_w_per_s=np.array([_float(row.ramp_w_per_s) for row in rows], F8),
        revert_s=np.array([_float(row.revert_s) for row in rows], F8),
        report_every_s=np.array([_float(row.report_every_s) for row in rows], F8),
        meter_rollover_wh=np.array([_float(row.meter_rollover_wh) for row in rows], F8),
        meter_resolution_wh=np.array([_float(row.meter_resolution_wh) for row in rows], F8),
        tier=np.array([row.tier or 0 for row in rows], U1),
        priority=np.array([_float(row.priority) for row in rows], F8),
        steps=np.array([row.steps or 0 for row in rows], U1),
        min_on_s=np.array([_float(row.min_on_s) for row in rows], F8),
        min_off_s=np.array([_float(row.min_off_s) for row in rows], F8),
        must_run=np.array([row.must_run or 0 for row in rows], U1),
        opted_out_until_ns=np.array([row.opted_out_until_ns or 0 for row in rows], I8),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _float(value: float | None) -> float:
    return math.nan if value is None else value
