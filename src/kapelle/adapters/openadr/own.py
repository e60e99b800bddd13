"""The objects the plant makes itself: its program, an event that asks for reports, the enrolled."""

import hashlib

from kapelle.adapters.openadr import codec
from kapelle.adapters.openadr.clients import Gateways
from kapelle.adapters.openadr.desk import Desk
from kapelle.adapters.openadr.dispatched import DispatchEvents
from kapelle.adapters.openadr.objects import OURS, Kept, Objects
from kapelle.adapters.openadr.periods import duration, moment
from kapelle.adapters.openadr.shapes import (
    Body,
    BusinessResource,
    BusinessVen,
    Event,
    EventDescriptor,
    IntervalPeriod,
    ObjectType,
    Program,
    ReportDescriptor,
)
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock, Directory


class OwnObjects:
    """Keeps them as they should be."""

    def __init__(
        self,
        desk: Desk,
        objects: Objects,
        *,
        events: DispatchEvents,
        gateways: Gateways,
        directory: Directory,
        clock: Clock,
        report_s: float,
    ) -> None:
        self._desk = desk
        self._objects = objects
        self._events = events
        self._gateways = gateways
        self._directory = directory
        self._clock = clock
        self._report_s = report_s
        self._enrolment = -1

    def publish(self) -> None:
        """Publish the program gateways follow, and the event that asks for reports."""
        now_ns = self._clock.now_ns()
        descriptors: list[EventDescriptor | ReportDescriptor] = [
            EventDescriptor(payload_type=codec.SETPOINT, units="KW"),
            *(ReportDescriptor(payload_type=name, units=u) for name, u in codec.REPORTED.items()),
        ]
        program = Program(program_name=codec.PROGRAM, payload_descriptors=descriptors)
        period = IntervalPeriod(
            start=moment(now_ns - now_ns % (3_600 * NS_PER_S)),
            duration=duration(self._report_s),
        )
        telemetry = Event(
            program_id=codec.PROGRAM,
            event_name="report all the time",
            duration=duration(float("inf")),
            priority=1_000,
            report_descriptors=codec.wanted(1),
            interval_period=period,
            intervals=[],
        )
        self._renew("PROGRAM", codec.PROGRAM, OURS, program)
        self._renew("EVENT", codec.TELEMETRY, OURS, telemetry)

    def enrol(self) -> bool:
        """Have a VEN for each gateway and a resource for each of its devices, and no others.

        Returns whether the enrolment has changed since this was last asked.
        """
        if self._directory.version == self._enrolment:
            return False
        self._enrolment = self._directory.version
        wanted: set[str] = set()
        for gateway in self._gateways.everyone():
            ven_id = _id("ven", gateway.name)
            ven = BusinessVen(client_id=gateway.name, ven_name=gateway.name, targets=[gateway.name])
            self._renew("VEN", ven_id, gateway.name, ven)
            wanted.add(ven_id)
            for name in gateway.devices:
                target = gateway.target(name)
                resource = BusinessResource(
                    client_id=gateway.name, resource_name=name, ven_id=ven_id, targets=[target]
                )
                resource_id = _id("res", target)
                self._renew("RESOURCE", resource_id, gateway.name, resource)
                wanted.add(resource_id)
        kinds: tuple[ObjectType, ...] = ("RESOURCE", "VEN")
        for kind in kinds:
            for kept in [one for one in self._objects.all(kind) if one.by_plant]:
                if kept.id not in wanted:
                    self._desk.remove(kept)
        for device_no in self._events.devices():
            if self._gateways.of_device(device_no) is None:
                self._events.withdraw(device_no)
        return True

    def _renew(self, kind: ObjectType, object_id: str, owner: str, body: Body) -> None:
        """Have an object of the plant's own; what others may say of it (attributes) stays."""
        before = self._objects.find(kind, object_id)
        if before is not None and kind in ("VEN", "RESOURCE"):
            return
        now_ns = self._clock.now_ns()
        made_at_ns = before.made_at_ns if before is not None else now_ns
        kept = Kept(kind, object_id, owner, made_at_ns, now_ns, body, by_plant=True)
        self._desk.put("CREATE" if before is None else "UPDATE", kept)


def _id(kind: str, name: str) -> str:
    return f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:24]}"
