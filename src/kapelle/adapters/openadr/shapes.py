"""The objects of OpenADR 3.1.0, as its OpenAPI document describes their requests.

What the document allows to be null may be null here; what it does not, may only be left out. Fields
it does not name are passed over, as it does not forbid them.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128, pattern="^[a-zA-Z0-9_-]*$")]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
Uri: TypeAlias = Annotated[str, Meta(min_length=2, max_length=8_000)]
Int32: TypeAlias = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Duration: TypeAlias = Annotated[
    str,
    Meta(
        max_length=128,
        pattern=(
            r"^(-?)P(?=\d|T\d)(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)([DW]))?"
            r"(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$"
        ),
    ),
]
Moment: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Percent: TypeAlias = Annotated[int, Meta(ge=0, le=100)]
Natural: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Targets: TypeAlias = Annotated[list[Name], Meta(max_length=1_000)] | UnsetType | None
ObjectType: TypeAlias = Literal["PROGRAM", "EVENT", "REPORT", "SUBSCRIPTION", "VEN", "RESOURCE"]
Operation: TypeAlias = Literal["READ", "CREATE", "UPDATE", "DELETE"]
OBJECT_TYPES: tuple[ObjectType, ...] = (
    "PROGRAM",
    "EVENT",
    "REPORT",
    "SUBSCRIPTION",
    "VEN",
    "RESOURCE",
)


class _Shape(Struct, frozen=True, omit_defaults=True, kw_only=True, rename="camel"):
    pass


class Point(_Shape, frozen=True):
    """A pair of numbers."""

    x: float
    y: float


Value: TypeAlias = int | float | str | bool | Point


class ValuesMap(_Shape, frozen=True):
    """Values of one type."""

    type: Name
    values: Annotated[list[Value], Meta(max_length=10_000)]


class IntervalPeriod(_Shape, frozen=True):
    """When an interval begins and how long it lasts."""

    start: Moment | UnsetType = UNSET
    duration: Duration | UnsetType = UNSET
    randomize_start: Duration | UnsetType = UNSET


class Interval(_Shape, frozen=True):
    """A time and what holds in it."""

    id: Int32
    payloads: Annotated[list[ValuesMap], Meta(max_length=1_000)]
    interval_period: IntervalPeriod | UnsetType = UNSET


Intervals: TypeAlias = Annotated[list[Interval], Meta(max_length=10_000)]


class EventDescriptor(_Shape, frozen=True, tag="EVENT_PAYLOAD_DESCRIPTOR", tag_field="objectType"):
    """What a payload of an event is measured in."""

    payload_type: Name
    units: Name | UnsetType | None = UNSET
    currency: str | UnsetType | None = UNSET


class ReportDescriptor(
    _Shape, frozen=True, tag="REPORT_PAYLOAD_DESCRIPTOR", tag_field="objectType"
):
    """What a payload of a report is measured in, and how."""

    payload_type: Name
    reading_type: Name | UnsetType | None = UNSET
    units: Name | UnsetType | None = UNSET
    accuracy: float | UnsetType | None = UNSET
    confidence: Percent | UnsetType | None = UNSET


class ReportWanted(_Shape, frozen=True):
    """`reportDescriptor`: a request for reports."""

    payload_type: Name
    reading_type: Name | UnsetType | None = UNSET
    units: Name | UnsetType | None = UNSET
    targets: Targets = UNSET
    aggregate: bool | UnsetType = UNSET
    start_interval: Int32 | UnsetType = UNSET
    num_intervals: Int32 | UnsetType = UNSET
    historical: bool | UnsetType = UNSET
    frequency: Int32 | UnsetType = UNSET
    repeat: Int32 | UnsetType = UNSET
    report_intervals: Literal["INTERVALS", "SUB_INTERVALS", "OPEN_INTERVALS"] | UnsetType = UNSET


class Description(_Shape, frozen=True):
    """Where a program is described."""

    url: Uri = msgspec.field(name="URL")


class Program(_Shape, frozen=True):
    """`programRequest`."""

    program_name: Name
    interval_period: IntervalPeriod | UnsetType = UNSET
    program_descriptions: list[Description] | UnsetType | None = UNSET
    payload_descriptors: list[EventDescriptor | ReportDescriptor] | UnsetType | None = UNSET
    attributes: list[ValuesMap] | UnsetType | None = UNSET
    targets: Targets = UNSET


class Event(_Shape, frozen=True):
    """`eventRequest`."""

    program_id: Id = msgspec.field(name="programID")
    event_name: str | UnsetType | None = UNSET
    duration: Duration | UnsetType = UNSET
    priority: Natural | UnsetType | None = UNSET
    targets: Targets = UNSET
    report_descriptors: list[ReportWanted] | UnsetType | None = UNSET
    payload_descriptors: list[EventDescriptor] | UnsetType | None = UNSET
    interval_period: IntervalPeriod | UnsetType = UNSET
    intervals: Intervals | UnsetType = UNSET


class ReportResource(_Shape, frozen=True):
    """What is reported of one resource."""

    resource_name: Name
    intervals: Intervals
    interval_period: IntervalPeriod | UnsetType = UNSET


class Report(_Shape, frozen=True):
    """`reportRequest`."""

    event_id: Id = msgspec.field(name="eventID")
    client_name: Name
    resources: Annotated[list[ReportResource], Meta(max_length=10_000)]
    report_name: str | UnsetType | None = UNSET
    payload_descriptors: list[ReportDescriptor] | UnsetType | None = UNSET


class Watched(_Shape, frozen=True):
    """Objects and operations somebody wants to hear of, and where."""

    objects: list[ObjectType]
    operations: list[Operation]
    callback_url: Uri
    bearer_token: str | UnsetType | None = UNSET


class Subscription(_Shape, frozen=True):
    """`subscriptionRequest`."""

    client_name: Name
    object_operations: Annotated[list[Watched], Meta(max_length=100)]
    program_id: Id | UnsetType = msgspec.field(name="programID", default=UNSET)
    targets: Targets = UNSET


class BusinessVen(_Shape, frozen=True, tag="BL_VEN_REQUEST", tag_field="objectType"):
    """`BlVenRequest`; also how a VEN is kept, whoever made it."""

    client_id: Name = msgspec.field(name="clientID")
    ven_name: Name
    targets: Targets = UNSET
    attributes: list[ValuesMap] | UnsetType | None = UNSET


class OwnVen(_Shape, frozen=True, tag="VEN_VEN_REQUEST", tag_field="objectType"):
    """`VenVenRequest`."""

    ven_name: Name
    attributes: list[ValuesMap] | UnsetType | None = UNSET


class BusinessResource(_Shape, frozen=True, tag="BL_RESOURCE_REQUEST", tag_field="objectType"):
    """`BlResourceRequest`; also how a resource is kept, whoever made it."""

    client_id: Name = msgspec.field(name="clientID")
    resource_name: Name
    ven_id: Id = msgspec.field(name="venID")
    targets: Targets = UNSET
    attributes: list[ValuesMap] | UnsetType | None = UNSET


class OwnResource(_Shape, frozen=True, tag="VEN_RESOURCE_REQUEST", tag_field="objectType"):
    """`VenResourceRequest`."""

    resource_name: Name
    ven_id: Id = msgspec.field(name="venID")
    attributes: list[ValuesMap] | UnsetType | None = UNSET


Body: TypeAlias = Program | Event | Report | Subscription | BusinessVen | BusinessResource
KEPT: dict[ObjectType, type[Body]] = {
    "PROGRAM": Program,
    "EVENT": Event,
    "REPORT": Report,
    "SUBSCRIPTION": Subscription,
    "VEN": BusinessVen,
    "RESOURCE": BusinessResource,
}
