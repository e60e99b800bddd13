"""What a client may read, as envoy-schema writes it. Pure."""

import zlib
from collections.abc import Mapping

from envoy_schema.server.schema.sep2.der import (
    DefaultDERControl,
    DERControlBase,
    DERControlListResponse,
    DERControlResponse,
    DERProgramListResponse,
    DERProgramResponse,
)
from envoy_schema.server.schema.sep2.device_capability import DeviceCapabilityResponse
from envoy_schema.server.schema.sep2.end_device import (
    EndDeviceListResponse,
    EndDeviceResponse,
    RegistrationResponse,
)
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
from envoy_schema.server.schema.sep2.types import (
    DateTimeIntervalType,
    ServiceKind,
    SubscribableType,
)
from pydantic_xml import BaseXmlModel

from kapelle.adapters.ieee2030.client import Client
from kapelle.adapters.ieee2030.controls import Control, Status
from kapelle.adapters.ieee2030.elements import (
    Page,
    control_base,
    der,
    der_list,
    home_of,
    limit,
    mrid_of,
    subscription,
    subscription_list,
    time,
    to_xml,
)
from kapelle.adapters.ieee2030.identity import sfdi_of
from kapelle.adapters.ieee2030.metering import Mirror
from kapelle.adapters.ieee2030.settings import Ieee2030Settings
from kapelle.model.ids import NS_PER_S

_ALL_RESPONSES = "07"
"""Receipt, what becomes of it, and what the user decides."""
_SUBSCRIBABLE = SubscribableType.resource_supports_non_conditional_subscriptions


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
            return time(now_ns // NS_PER_S)
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
            return der_list(client, page, self.poll_s(client))
        if path == "/der/1":
            return der(client)
        if path.startswith("/der/1/"):
            return client.documents.get(path[7:])
        if path == "/sub":
            return subscription_list(client, page)
        for one in client.subscriptions.values():
            if path == f"/sub/{one.number}":
                return subscription(client, one)
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
                    client.controls.serve(control)
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
                opModExpLimW=limit(settings.default_export_w),
                opModImpLimW=limit(settings.default_import_w),
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
            client.controls.serve(control)
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
            DERControlBase_=control_base(control),
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
