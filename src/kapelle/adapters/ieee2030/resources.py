"""What a client may read, as envoy-schema writes it. Pure."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envoy_schema.server.schema.sep2.der import (
    DER,
    DefaultDERControl,
    DERControlBase,
    DERControlListResponse,
    DERControlResponse,
    DERListResponse,
    DERProgramListResponse,
    DERProgramResponse,
)
from envoy_schema.server.schema.sep2.der_control_types import ActivePower
from envoy_schema.server.schema.sep2.device_capability import DeviceCapabilityResponse
from envoy_schema.server.schema.sep2.end_device import (
    EndDeviceListResponse,
    EndDeviceResponse,
    RegistrationResponse,
)
from envoy_schema.server.schema.sep2.error import ErrorResponse
from envoy_schema.server.schema.sep2.event import EventStatus
from envoy_schema.server.schema.sep2.function_set_assignments import (
    FunctionSetAssignmentsListResponse,
    FunctionSetAssignmentsResponse,
)
from envoy_schema.server.schema.sep2.identification import Link, ListLink
from envoy_schema.server.schema.sep2.metering_mirror import (
    MirrorUsagePoint,
    MirrorUsagePointListResponse,
)
from envoy_schema.server.schema.sep2.pub_sub import (
    Subscription as SubscriptionResource,
)
from envoy_schema.server.schema.sep2.pub_sub import (
    SubscriptionEncoding,
    SubscriptionListResponse,
)
from envoy_schema.server.schema.sep2.time import TimeResponse
from envoy_schema.server.schema.sep2.types import (
    DateTimeIntervalType,
    ReasonCodeType,
    ServiceKind,
    SubscribableType,
    TimeQualityType,
)
from pydantic_xml import BaseXmlModel

from kapelle.adapters.ieee2030.client import Client, Subscription
from kapelle.adapters.ieee2030.controls import Control, Status
from kapelle.adapters.ieee2030.identity import sfdi_of
from kapelle.adapters.ieee2030.metering import Mirror
from kapelle.adapters.ieee2030.setpoint import active_power
from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.model.ids import NS_PER_S

_ALL_RESPONSES = "07"
"""Receipt, what becomes of it, and what the user decides."""
_PAGE_MAX = 100
_SUBSCRIBABLE = SubscribableType.resource_supports_non_conditional_subscriptions


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for (IEEE 2030.5, 6.6.3)."""

    start: int = 0
    after: int = 0
    """Only what begins later. [s UTC]"""
    limit: int = 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Page":
        """Return the page of a query; what is no number counts as not said."""
        numbers = {
            k: int(v) for k, v in query.items() if v.isascii() and v.isdigit() and len(v) < 12
        }
        limit = min(numbers.get("l", 1), _PAGE_MAX)
        return cls(numbers.get("s", 0), numbers.get("a", 0), limit)

    def cut(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Return the rows of this page."""
        return rows[self.start : self.start + self.limit]


def to_xml(resource: BaseXmlModel) -> bytes:
    """Return a resource as it is sent."""
    text = resource.to_xml(exclude_none=True)
    return text if isinstance(text, bytes) else text.encode()


def error_xml(reason: ReasonCodeType, message: str = "", retry_s: int | None = None) -> bytes:
    """Return an Error (IEEE 2030.5, 6.6.2.3)."""
    return to_xml(
        ErrorResponse(reasonCode=reason, maxRetryDuration=retry_s, message=message or None)
    )


class Library:
    """Every resource a client may read, by path."""

    def __init__(self, settings: Ieee2030Settings, pins: Mapping[str, int]) -> None:
        self._settings = settings
        self._pins = pins

    def read(self, client: Client, path: str, page: Page, now_ns: int) -> bytes | None:
        """Return a resource of this client as XML; None: it has no such resource."""
        made = self._make(client, path, page, now_ns)
        return to_xml(made) if isinstance(made, BaseXmlModel) else made

    def _make(
        self, client: Client, path: str, page: Page, now_ns: int
    ) -> BaseXmlModel | bytes | None:
        if path == "/dcap":
            return self._capability(client)
        if path == "/tm":
            return _time(now_ns // NS_PER_S)
        if path == "/mup":
            return self._mirrors(client, page)
        if path.startswith("/mup/"):
            mirror = client.mirrors.get(path[5:])
            return self._mirror(client, mirror) if mirror is not None else None
        home = home_of(client)
        if path == "/edev":
            rows = [self._end_device(client)] if not page.after else []
            return EndDeviceListResponse(
                href="/edev",
                all_=len(rows),
                results=len(page.cut(rows)),
                EndDevice=[*page.cut(rows)],
                pollRate=self.poll_s(client),
                subscribable=_SUBSCRIBABLE,
            )
        if path == home:
            return self._end_device(client)
        return self._below(client, path.removeprefix(home), page, now_ns)

    def _below(
        self, client: Client, path: str, page: Page, now_ns: int
    ) -> BaseXmlModel | bytes | None:
        """Return what lies below a client's EndDevice."""
        if path == "/rg":
            return self._registration(client)
        if path == "/fsa":
            return self._assignments_list(client, page)
        if path == "/fsa/1":
            return self._assignments(client)
        if path == "/der":
            return _der_list(client, page, self.poll_s(client))
        if path == "/der/1":
            return _der(client)
        if path.startswith("/der/1/"):
            return client.documents.get(path[7:])
        if path == "/sub":
            return _subscriptions(client, page)
        for one in client.subscriptions.values():
            if path == f"/sub/{one.number}":
                return _subscription(client, one)
        if path == "/derp":
            return self._programs(client, page, now_ns)
        if path == "/derp/1":
            return self._program(client, now_ns)
        if path == "/derp/1/dderc":
            return self._default(client)
        if path in ("/derp/1/derc", "/derp/1/actderc"):
            return self.controls(client, page, now_ns, active=path.endswith("actderc"))
        if path.startswith("/derp/1/derc/"):
            for control, status, since_s in client.controls.shown(now_ns):
                if control.mrid == path[13:]:
                    control.is_served = True
                    return self._control(client, control, status, since_s)
        return None

    def poll_s(self, client: Client) -> int:
        """Return how often a client is asked to come: each a little different. [s]"""
        spread = self._settings.poll_spread_s + 1
        return self._settings.poll_s + zlib.crc32(client.lfdi.encode()) % spread

    def _capability(self, client: Client) -> DeviceCapabilityResponse:
        return DeviceCapabilityResponse(
            href="/dcap",
            pollRate=self.poll_s(client),
            TimeLink=Link(href="/tm"),
            EndDeviceListLink=ListLink(href="/edev", all_=1),
            MirrorUsagePointListLink=ListLink(href="/mup", all_=len(client.mirrors)),
        )

    def _end_device(self, client: Client) -> EndDeviceResponse:
        home = home_of(client)
        has_pin = client.lfdi in self._pins
        return EndDeviceResponse(
            href=home,
            subscribable=_SUBSCRIBABLE,
            lFDI=client.lfdi,
            sFDI=sfdi_of(client.lfdi),
            changedTime=client.since_s,
            enabled=True,
            postRate=self._settings.post_s,
            DERListLink=ListLink(href=f"{home}/der", all_=1),
            FunctionSetAssignmentsListLink=ListLink(href=f"{home}/fsa", all_=1),
            RegistrationLink=Link(href=f"{home}/rg") if has_pin else None,
            SubscriptionListLink=ListLink(href=f"{home}/sub", all_=len(client.subscriptions)),
        )

    def _registration(self, client: Client) -> RegistrationResponse | None:
        pin = self._pins.get(client.lfdi)
        if pin is None:
            return None
        return RegistrationResponse(
            href=f"{home_of(client)}/rg",
            dateTimeRegistered=client.since_s,
            pIN=pin,
            pollRate=self.poll_s(client),
        )

    def _assignments_list(self, client: Client, page: Page) -> FunctionSetAssignmentsListResponse:
        rows = page.cut([self._assignments(client)])
        return FunctionSetAssignmentsListResponse(
            href=f"{home_of(client)}/fsa",
            all_=1,
            results=len(rows),
            FunctionSetAssignments=[*rows],
            pollRate=self.poll_s(client),
            subscribable=_SUBSCRIBABLE,
        )

    def _assignments(self, client: Client) -> FunctionSetAssignmentsResponse:
        home = home_of(client)
        return FunctionSetAssignmentsResponse(
            href=f"{home}/fsa/1",
            mRID=mrid_of(client, "fsa"),
            description="kapelle",
            TimeLink=Link(href="/tm"),
            DERProgramListLink=ListLink(href=f"{home}/derp", all_=1),
            subscribable=_SUBSCRIBABLE,
        )

    def _programs(self, client: Client, page: Page, now_ns: int) -> DERProgramListResponse:
        rows = page.cut([self._program(client, now_ns)])
        return DERProgramListResponse(
            href=f"{home_of(client)}/derp",
            all_=1,
            results=len(rows),
            DERProgram=[*rows],
            pollRate=self.poll_s(client),
            subscribable=_SUBSCRIBABLE,
        )

    def _program(self, client: Client, now_ns: int) -> DERProgramResponse:
        here = f"{home_of(client)}/derp/1"
        shown = client.controls.shown(now_ns)
        active = sum(status is Status.ACTIVE for _, status, _ in shown)
        return DERProgramResponse(
            href=here,
            mRID=mrid_of(client, "derp"),
            description="kapelle",
            primacy=self._settings.primacy,
            ActiveDERControlListLink=ListLink(href=f"{here}/actderc", all_=active),
            DefaultDERControlLink=Link(href=f"{here}/dderc"),
            DERControlListLink=ListLink(href=f"{here}/derc", all_=len(shown)),
            subscribable=_SUBSCRIBABLE,
        )

    def _default(self, client: Client) -> DefaultDERControl:
        settings = self._settings
        return DefaultDERControl(
            href=f"{home_of(client)}/derp/1/dderc",
            mRID=mrid_of(client, "dderc"),
            DERControlBase_=DERControlBase(
                opModExpLimW=_limit(settings.default_export_w),
                opModImpLimW=_limit(settings.default_import_w),
            ),
            subscribable=_SUBSCRIBABLE,
        )

    def controls(
        self, client: Client, page: Page, now_ns: int, *, active: bool = False
    ) -> DERControlListResponse:
        """Return a page of a client's controls; what is on it has been told."""
        shown = [
            row
            for row in client.controls.shown(now_ns)
            if row[0].start_s > page.after and (not active or row[1] is Status.ACTIVE)
        ]
        rows = page.cut(shown)
        for control, _, _ in rows:
            control.is_served = True
        return DERControlListResponse(
            href=f"{home_of(client)}/derp/1/{'actderc' if active else 'derc'}",
            all_=len(shown),
            results=len(rows),
            DERControl=[self._control(client, *row) for row in rows],
            subscribable=_SUBSCRIBABLE,
        )

    def _control(
        self, client: Client, control: Control, status: Status, since_s: int
    ) -> DERControlResponse:
        home = home_of(client)
        is_superseded = status is Status.SUPERSEDED
        return DERControlResponse(
            href=f"{home}/derp/1/derc/{control.mrid}",
            replyTo=f"{home}/rsp",
            responseRequired=_ALL_RESPONSES,
            mRID=control.mrid,
            creationTime=control.created_s,
            EventStatus_=EventStatus(
                currentStatus=status,
                dateTime=since_s,
                potentiallySuperseded=is_superseded,
                potentiallySupersededTime=since_s if is_superseded else None,
            ),
            interval=DateTimeIntervalType(duration=control.duration_s, start=control.start_s),
            randomizeStart=self._settings.randomize_s or None,
            DERControlBase_=_base(control),
        )

    def _mirrors(self, client: Client, page: Page) -> MirrorUsagePointListResponse:
        rows = page.cut([*client.mirrors.values()])
        return MirrorUsagePointListResponse(
            href="/mup",
            all_=len(client.mirrors),
            results=len(rows),
            pollRate=self.poll_s(client),
            mirrorUsagePoints=[self._mirror(client, mirror) for mirror in rows],
        )

    def _mirror(self, client: Client, mirror: Mirror) -> MirrorUsagePoint:
        return MirrorUsagePoint(
            href=f"/mup/{mirror.mrid}",
            mRID=mirror.mrid,
            roleFlags=f"{mirror.role:04X}",
            serviceCategoryKind=ServiceKind.ELECTRICITY,
            status=1,
            deviceLFDI=client.lfdi,
            postRate=self._settings.post_s,
        )


def home_of(client: Client) -> str:
    """Return the path of a client's EndDevice."""
    return f"/edev/{client.device_no}"


def mrid_of(client: Client, what: str) -> str:
    """Return an mRID that stays the same over restarts."""
    return f"{zlib.crc32(what.encode()):08X}{client.lfdi[:16]}00000000"


def _time(now_s: int) -> TimeResponse:
    return TimeResponse(
        href="/tm",
        currentTime=now_s,
        dstEndTime=0,
        dstOffset=0,
        dstStartTime=0,
        localTime=now_s,
        quality=TimeQualityType.level_3_source,
        tzOffset=0,
    )


def _der_list(client: Client, page: Page, poll_s: int) -> DERListResponse:
    rows = page.cut([_der(client)])
    return DERListResponse(
        href=f"{home_of(client)}/der", all_=1, results=len(rows), DER_=[*rows], pollRate=poll_s
    )


def _der(client: Client) -> DER:
    here = f"{home_of(client)}/der/1"
    return DER(
        href=here,
        AssociatedDERProgramListLink=ListLink(href=f"{home_of(client)}/derp", all_=1),
        DERAvailabilityLink=Link(href=f"{here}/dera"),
        DERCapabilityLink=Link(href=f"{here}/dercap"),
        DERSettingsLink=Link(href=f"{here}/derg"),
        DERStatusLink=Link(href=f"{here}/ders"),
    )


def _subscriptions(client: Client, page: Page) -> SubscriptionListResponse:
    rows = page.cut([*client.subscriptions.values()])
    return SubscriptionListResponse(
        href=f"{home_of(client)}/sub",
        all_=len(client.subscriptions),
        results=len(rows),
        subscriptions=[_subscription(client, one) for one in rows],
    )


def _subscription(client: Client, one: Subscription) -> SubscriptionResource:
    return SubscriptionResource(
        href=f"{home_of(client)}/sub/{one.number}",
        subscribedResource=one.resource,
        encoding=SubscriptionEncoding.XML,
        level="+S1",
        limit=one.limit,
        notificationURI=one.uri,
    )


def _base(control: Control) -> DERControlBase:
    if control.mode == "fixed_w":
        return DERControlBase(opModFixedW=control.amount)
    value, exponent = active_power(control.amount)
    power = ActivePower(multiplier=exponent, value=value)
    if control.mode == "target_w":
        return DERControlBase(opModTargetW=power)
    return DERControlBase(opModStorageTargetW=power)


def _limit(limit_w: float) -> ActivePower | None:
    if limit_w < 0:
        return None
    value, exponent = active_power(round(limit_w))
    return ActivePower(multiplier=exponent, value=value)
