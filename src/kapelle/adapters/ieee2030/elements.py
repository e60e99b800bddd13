"""The small parts of what a client may read, as envoy-schema writes them. Pure."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envoy_schema.server.schema.sep2.der import (
    DER,
    DERControlBase,
    DERListResponse,
)
from envoy_schema.server.schema.sep2.der_control_types import ActivePower
from envoy_schema.server.schema.sep2.error import ErrorResponse
from envoy_schema.server.schema.sep2.identification import Link, ListLink
from envoy_schema.server.schema.sep2.pub_sub import (
    Subscription as SubscriptionResource,
)
from envoy_schema.server.schema.sep2.pub_sub import (
    SubscriptionEncoding,
    SubscriptionListResponse,
)
from envoy_schema.server.schema.sep2.time import TimeResponse
from envoy_schema.server.schema.sep2.types import (
    ReasonCodeType,
    TimeQualityType,
)
from pydantic_xml import BaseXmlModel

from kapelle.adapters.ieee2030.client import Client, Subscription
from kapelle.adapters.ieee2030.controls import Control
from kapelle.adapters.ieee2030.setpoint import active_power

_PAGE_MAX = 100


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


def home_of(client: Client) -> str:
    """Return the path of a client's EndDevice."""
    return f"/edev/{client.device_no}"


def mrid_of(client: Client, what: str) -> str:
    """Return an mRID that stays the same over restarts."""
    return f"{zlib.crc32(what.encode()):08X}{client.lfdi[:16]}00000000"


def time(now_s: int) -> TimeResponse:
    """Return the Time of the server: UTC, as the host keeps it by NTP."""
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


def der_list(client: Client, page: Page, poll_s: int) -> DERListResponse:
    """Return the list of the one DER of a client."""
    rows = page.cut([der(client)])
    return DERListResponse(
        href=f"{home_of(client)}/der", all_=1, results=len(rows), DER_=[*rows], pollRate=poll_s
    )


def der(client: Client) -> DER:
    """Return the one DER of a client."""
    here = f"{home_of(client)}/der/1"
    return DER(
        href=here,
        AssociatedDERProgramListLink=ListLink(href=f"{home_of(client)}/derp", all_=1),
        DERAvailabilityLink=Link(href=f"{here}/dera"),
        DERCapabilityLink=Link(href=f"{here}/dercap"),
        DERSettingsLink=Link(href=f"{here}/derg"),
        DERStatusLink=Link(href=f"{here}/ders"),
    )


def subscription_list(client: Client, page: Page) -> SubscriptionListResponse:
    """Return a page of what a client has subscribed to."""
    rows = page.cut([*client.subscriptions.values()])
    return SubscriptionListResponse(
        href=f"{home_of(client)}/sub",
        all_=len(client.subscriptions),
        results=len(rows),
        subscriptions=[subscription(client, one) for one in rows],
    )


def subscription(client: Client, one: Subscription) -> SubscriptionResource:
    """Return one subscription."""
    return SubscriptionResource(
        href=f"{home_of(client)}/sub/{one.number}",
        subscribedResource=one.resource,
        encoding=SubscriptionEncoding.XML,
        level="+S1",
        limit=one.limit,
        notificationURI=one.uri,
    )


def control_base(control: Control) -> DERControlBase:
    """Return what a control asks for."""
    if control.mode == "fixed_w":
        return DERControlBase(opModFixedW=control.amount)
    value, exponent = active_power(control.amount)
    power = ActivePower(multiplier=exponent, value=value)
    if control.mode == "target_w":
        return DERControlBase(opModTargetW=power)
    return DERControlBase(opModStorageTargetW=power)


def limit(limit_w: float) -> ActivePower | None:
    """Return a limit in watts; None below 0: there is none."""
    if limit_w < 0:
        return None
    value, exponent = active_power(round(limit_w))
    return ActivePower(multiplier=exponent, value=value)
