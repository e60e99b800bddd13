"""Devices as they stand now: what is desired, what they report, what is observed."""

from collections.abc import Iterator
from datetime import datetime
from enum import IntEnum
from math import isnan
from typing import Annotated, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response

from kapelle.adapters.http.problems import Refused
from kapelle.api.device_shapes import (
    DesiredTold,
    DeviceBrief,
    DevicesTold,
    DeviceTold,
    ObservedTold,
    ReasonTold,
    ReportedTold,
    WhyTold,
)
from kapelle.api.plant import Plant
from kapelle.api.routes import authenticate
from kapelle.api.times import to_datetime
from kapelle.fleet.columns import Fleet
from kapelle.fleet.reconciliation.device_state import (
    DeviceState,
    describe,
    exclusion_of,
    exclusions_of,
)
from kapelle.fleet.why import why
from kapelle.model.enums import Condition, DeviceKind, Exclusion, Freshness, Metric, Phase, Standing
from kapelle.model.ids import ALL, Flags, Ints
from kapelle.ports import Directory

router = APIRouter(prefix="/v1/devices", dependencies=[Depends(authenticate)], tags=["devices"])

E = TypeVar("E", bound=IntEnum)


def plant_of(request: Request) -> Plant:
    """Return what the routes work on. Raises Refused where no partition is kept here."""
    plant: Plant = request.app.state.plant
    if plant.directory is None or not plant.fleets():
        raise Refused(503, "devices-elsewhere", "this process keeps no partition of the fleet")
    return plant


Here = Annotated[Plant, Depends(plant_of)]
Named = Annotated[str, Query(max_length=128)]


@router.get("")
async def list_devices(
    plant: Here,
    resource: Named = ALL,
    kind: Named = "",
    vendor: Named = "",
    freshness: Named = "",
    standing: Named = "",
    condition: Annotated[str, Query(description="Or `any`.", max_length=128)] = "",
    excluded: Annotated[str, Query(description="Or `any`.", max_length=128)] = "",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    after: Annotated[int, Query(ge=-1, description="Only higher numbers.")] = -1,
) -> DevicesTold:
    """List devices that match all of these, by number."""
    directory = plant.directory
    assert directory is not None
    chosen: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
    fleets = plant.fleets()
    for fleet in fleets.values():
        match = _within(fleet, resource)
        if kind:
            match &= fleet.kind[: fleet.size] == _named(DeviceKind, kind)
        if vendor:
            match &= _vendor(fleet, vendor)
        if freshness:
            match &= fleet.freshness[: fleet.size] == _named(Freshness, freshness)
        if standing:
            match &= fleet.standing[: fleet.size] == _named(Standing, standing)
        if condition:
            bits = sum(Condition) if condition == "any" else _named(Condition, condition)
            match &= (fleet.condition[: fleet.size] & bits) != 0
        rows = np.flatnonzero(match).astype(np.int32)
        if excluded:
            rows = rows[_are_excluded(fleet, rows, excluded)]
        chosen.append(fleet.device_nos(rows))
    numbers = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int32)
    page = numbers[numbers > after]
    partitions = directory.partitions
    return DevicesTold(
        devices=[
            _brief(name, fleets[no % partitions], no // partitions)
            for no in page[:limit].tolist()
            if (name := _name(directory, no))
        ],
        matched=len(numbers),
        next_after=int(page[limit - 1]) if len(page) > limit else None,
    )


@router.get("/{device_id}")
async def read_device(device_id: str, plant: Here, response: Response) -> DeviceTold:
    """Read one device: desired, reported, observed, each with its version."""
    fleet, row = _found(plant, device_id)
    state = describe(fleet, row)
    response.headers["ETag"] = (
        # Weak: ages and estimates in the body move on between versions.
        f'W/"{state.enrolments}-{state.desired.epoch}-{state.desired.revision}'
        f'-{state.reported.order}"'
    )
    return _told(device_id, fleet, row, state)


@router.get("/{device_id}/why")
async def explain_device(device_id: str, plant: Here) -> WhyTold:
    """Say why a device does what it does: what asks, how much, and what bounds it now."""
    fleet, row = _found(plant, device_id)
    found = why(fleet, row)
    return WhyTold(
        device_id=device_id,
        device_no=row * fleet.partitions + fleet.partition,
        at=to_datetime(fleet.now_ns),
        resource=found.resource,
        order_no=found.order_no,
        level=_number(found.level),
        tier=found.tier,
        depth=_number(found.depth),
        own_w=found.own_w,
        asked_w=_number(found.asked_w),
        setpoint_w=_number(found.setpoint_w),
        headroom_up_w=found.up_w,
        headroom_down_w=found.down_w,
        used=found.used,
        reasons=[
            ReasonTold(
                code=reason.code,
                text=reason.text,
                value=_number(reason.value),
                unit=reason.unit,
                until=_moment(reason.until_ns),
            )
            for reason in found.reasons
        ],
    )


def _found(plant: Plant, device_id: str) -> tuple[Fleet, int]:
    """Return where a device is kept. Raises Refused where nobody knows it."""
    directory = plant.directory
    assert directory is not None
    device_no = int(directory.resolve([device_id])[0])
    fleet = plant.fleets().get(device_no % directory.partitions) if device_no >= 0 else None
    row = device_no // directory.partitions
    if fleet is None or row >= fleet.size:
        raise Refused(404, "device-unknown", f"there is no device {device_id!r}")
    return fleet, row


def _within(fleet: Fleet, resource: str) -> Flags:
    match = fleet.active[: fleet.size].copy()
    if resource != ALL:
        members = np.zeros(fleet.size, np.bool_)
        members[fleet.members.get(resource, np.empty(0, np.int32))] = True
        match &= members
    return match


def _vendor(fleet: Fleet, vendor: str) -> Flags:
    codes = [code for code, name in enumerate(fleet.names["vendor"]) if name == vendor]
    found: Flags = np.isin(fleet.vendor[: fleet.size], codes)
    return found


def _are_excluded(fleet: Fleet, rows: Ints, wanted: str) -> Flags:
    found = exclusions_of(fleet, rows)
    if wanted == "any":
        matching: Flags = found != Exclusion.NONE
    else:
        matching = found == _named(Exclusion, wanted)
    return matching


def _named(names: type[E], name: str) -> E:
    try:
        return names[name.upper()]
    except KeyError:
        known = ", ".join(one.name.lower() for one in names)
        field = names.__name__.lower()
        raise Refused(422, "filter-unknown", f"{field}: {name!r} is none of {known}") from None


def _name(directory: Directory, device_no: int) -> str:
    # The fleet hears of who comes and goes a moment before or after the directory.
    try:
        return directory.name(device_no)
    except KeyError:
        return ""


def _brief(device_id: str, fleet: Fleet, row: int) -> DeviceBrief:
    device_no = row * fleet.partitions + fleet.partition
    return DeviceBrief(
        device_id=device_id,
        device_no=device_no,
        kind=_low(DeviceKind(int(fleet.kind[row]))),
        vendor=fleet.names["vendor"][fleet.vendor[row]],
        site=fleet.names["site"][fleet.site[row]],
        freshness=_low(Freshness(int(fleet.freshness[row]))),
        standing=_low(Standing(int(fleet.standing[row]))),
        conditions=list(_conditions(int(fleet.condition[row]))),
        excluded=_low(exclusion_of(fleet, row)),
        power_w=_number(float(fleet.value[Metric.POWER_W, row])),
        desired_w=_number(float(fleet.desired_w[row])),
        soc=_number(float(fleet.value[Metric.SOC, row])),
        phase=_low(Phase(int(fleet.phase[row]))),
        measured_at=_moment(int(fleet.measured_at_ns[Metric.POWER_W, row])),
    )


def _told(device_id: str, fleet: Fleet, row: int, state: DeviceState) -> DeviceTold:
    desired, reported, observed = state.desired, state.reported, state.observed
    return DeviceTold(
        device_id=device_id,
        device_no=state.device_no,
        kind=_low(DeviceKind(int(fleet.kind[row]))),
        vendor=fleet.names["vendor"][fleet.vendor[row]],
        site=fleet.names["site"][fleet.site[row]],
        zone=fleet.names["zone"][fleet.zone[row]],
        feeder=fleet.names["feeder"][fleet.feeder[row]],
        nameplate_up_w=float(fleet.nameplate_up_w[row]),
        nameplate_down_w=float(fleet.nameplate_down_w[row]),
        standing=_low(state.standing),
        standing_since=_moment(state.standing_since_ns),
        conditions=[_low(each) for each in state.conditions],
        conditions_since=_moment(state.conditions_since_ns),
        excluded=_low(state.exclusion),
        excluded_until=_moment(state.excluded_until_ns),
        failsafe="none" if isnan(state.revert_s) else f"{state.revert_s:g} s",
        reverts_at=_moment(state.reverts_at_ns),
        enrolments=state.enrolments,
        desired=DesiredTold(
            setpoint_w=_number(desired.setpoint_w),
            order_no=desired.order_no,
            revision=desired.revision,
            epoch=desired.epoch,
            phase=_low(desired.phase),
            attempt=desired.attempt,
            since=_moment(desired.since_ns),
            tried_at=_moment(desired.tried_at_ns),
            not_after=_moment(desired.not_after_ns),
        ),
        reported=ReportedTold(
            order=reported.order,
            mode=None if reported.mode is None else _low(reported.mode),
            setpoint_w=_number(reported.setpoint_w),
            applied_at=_moment(reported.applied_at_ns),
            session=reported.session,
            connected=reported.connected,
        ),
        observed=ObservedTold(
            power_w=_number(observed.power_w),
            soc=_number(observed.soc),
            measured_at=_moment(observed.measured_at_ns),
            received_at=_moment(observed.received_at_ns),
            freshness=_low(observed.freshness),
            cadence_s=_number(observed.cadence_s),
            skew_s=_number(observed.skew_s),
            estimate_w=observed.estimate_w,
            estimate_std_w=observed.estimate_std_w,
        ),
    )


def _conditions(bits: int) -> Iterator[str]:
    return (_low(each) for each in Condition if bits & each)


def _low(name: IntEnum) -> str:
    return name.name.lower()


def _number(value: float) -> float | None:
    return None if isnan(value) else value


def _moment(at_ns: int) -> datetime | None:
    return to_datetime(at_ns) if at_ns > 0 else None
