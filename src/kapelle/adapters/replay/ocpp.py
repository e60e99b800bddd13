"""A charging station's call, read again as the endpoint read it. Pure; never raises on garbage."""

import math
from collections.abc import Sequence

import numpy as np

from kapelle.adapters.ocpp import frames
from kapelle.adapters.ocpp.dialect import Dialect
from kapelle.adapters.ocpp.events import Event, Misread, Sample
from kapelle.adapters.ocpp.station import STATION
from kapelle.adapters.ocpp.v2 import V2, V21
from kapelle.adapters.ocpp.v16 import V16
from kapelle.adapters.replay.fix import METRICS, Fix, Unusable
from kapelle.model.blocks import Readings
from kapelle.model.enums import Metric
from kapelle.ports import Directory

_DIALECTS: tuple[Dialect, ...] = (V16(), V2(V21))
"""Which of them a call was said in shows in its fields: none can be read in both."""


def is_call(raw: bytes) -> bool:
    """Tell whether a row is a call of a station."""
    return isinstance(frames.decode(raw), frames.Call)


def read(raw: bytes, device_no: int, fix: Fix, directory: Directory) -> Readings:
    """Return what a call measured, mended.

    Args:
        raw: The call.
        device_no: Whose it was taken for.
        fix: Its factors and what it leaves out concern metrics: the call has other names for them.
        directory: Who is who by now.

    Raises:
        Unusable: It says nothing that can be used, or not whose it is.
    """
    call = frames.decode(raw)
    assert isinstance(call, frames.Call)
    event = _event(call)
    if event.problems:
        raise Unusable(event.problems[0])
    values = [_mended(sample, fix) for sample in event.samples]
    samples = [
        (sample.at_ns, told) for sample, told in zip(event.samples, values, strict=True) if told
    ]
    if not samples:
        raise Unusable("empty: there is no measurement in it; drop it")
    return _readings(samples, _whose(event, device_no, fix, directory))


def _event(call: frames.Call) -> Event:
    found = [dialect.decode(call.action, call.payload) for dialect in _DIALECTS]
    for one in found:
        if isinstance(one, Event):
            return one
    misread = [one for one in found if isinstance(one, Misread)]
    # The version that knows such a call says what is wrong with it.
    knowing = [one for one in misread if one.code != "NotImplemented"]
    raise Unusable((knowing or misread)[0].reason)


def _whose(event: Event, device_no: int, fix: Fix, directory: Directory) -> int:
    if fix.device:
        return int(directory.resolve([fix.device])[0])
    reached = directory.reached_by("ocpp")
    address = next((a for a, number in reached.items() if number == device_no), "")
    identity = address.partition("/")[0]
    name = identity if event.evse == STATION else f"{identity}/{event.evse}"
    if identity and name in reached:
        return reached[name]
    # Of a station as a whole one EVSE is not the sum; how many it has is only known while it is
    # connected.
    what = f"EVSE {event.evse}" if event.evse is not None else "a transaction at some EVSE"
    raise Unusable(f"evse: it is about {what} of a station enrolled as a whole; say whose it is")


def _mended(sample: Sample, fix: Fix) -> dict[Metric, float]:
    factors = dict(fix.scale)
    if fix.negate_power:
        factors["power_w"] = -factors.get("power_w", 1.0)
    for field in (*factors, *fix.drop):
        if field not in METRICS:
            raise Unusable(f"fix-unusable: a call has no {field}; replace the whole payload")
    return {
        metric: value * factors.get(metric.name.lower(), 1.0)
        for metric, value in sample.values.items()
        if metric.name.lower() not in fix.drop
    }


def _readings(samples: Sequence[tuple[int, dict[Metric, float]]], device_no: int) -> Readings:
    measured_at_ns = np.array([at_ns for at_ns, _ in samples], np.int64)
    said = sorted({metric for _, values in samples for metric in values})
    return Readings(
        device_no=np.full(len(samples), device_no, np.int32),
        order=measured_at_ns,
        measured_at_ns=measured_at_ns,
        received_at_ns=measured_at_ns,
        quality=np.zeros(len(samples), np.uint8),
        values={
            metric: np.array([values.get(metric, math.nan) for _, values in samples])
            for metric in said
        },
    )
