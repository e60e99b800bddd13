"""What is told of devices: in a line, and whole."""

from datetime import datetime

from pydantic import BaseModel, Field


class DeviceBrief(BaseModel):
    """One device in one line."""

    device_id: str
    device_no: int
    kind: str
    vendor: str
    site: str
    freshness: str
    standing: str = Field(description="in_sync, pending, or what is in the way; none: not asked.")
    conditions: list[str] = Field(description="What is wrong for longer than a moment.")
    excluded: str = Field(description="Why it is not counted on; none: it is.")
    power_w: float | None
    desired_w: float | None
    soc: float | None
    phase: str
    measured_at: datetime | None


class DevicesTold(BaseModel):
    """Devices by number."""

    devices: list[DeviceBrief]
    matched: int = Field(description="How many there are in all.")
    next_after: int | None = Field(
        default=None, description="Ask again with `after` set to this; null at the end."
    )


class DesiredTold(BaseModel):
    """What is asked. Written by dispatch alone; version: `epoch`, `revision`."""

    setpoint_w: float | None = Field(description="Null: nothing, it follows its own schedule.")
    order_no: int
    revision: int
    epoch: int
    phase: str
    attempt: int
    since: datetime | None
    tried_at: datetime | None
    not_after: datetime | None


class ReportedTold(BaseModel):
    """What the device says. Written by its newest session alone; version: `order`."""

    order: int
    mode: str | None = Field(description="own, command, local or fault; null: it does not say.")
    setpoint_w: float | None
    applied_at: datetime | None
    session: int
    connected: bool


class ObservedTold(BaseModel):
    """What its meter shows, and what it does now as far as that can be known."""

    power_w: float | None
    soc: float | None
    measured_at: datetime | None
    received_at: datetime | None
    freshness: str
    cadence_s: float | None
    skew_s: float | None
    estimate_w: float
    estimate_std_w: float


class DeviceTold(BaseModel):
    """Desired, reported and observed, how they agree, and what is in the way."""

    device_id: str
    device_no: int
    kind: str
    vendor: str
    site: str
    zone: str
    feeder: str
    nameplate_up_w: float
    nameplate_down_w: float
    standing: str
    standing_since: datetime | None
    conditions: list[str]
    conditions_since: datetime | None
    excluded: str
    excluded_until: datetime | None
    failsafe: str = Field(description="Its revert timer, `60 s`, or none.")
    reverts_at: datetime | None
    enrolments: int = Field(description="Version of what the registry says of it.")
    desired: DesiredTold
    reported: ReportedTold
    observed: ObservedTold


class ReasonTold(BaseModel):
    """One thing that counts for a device."""

    code: str = Field(description="nameplate, energy, dwell, tier_not_reached, excluded, …")
    text: str = Field(description="The same as a sentence.")
    value: float | None = Field(description="Its number; null where it has none.")
    unit: str
    until: datetime | None = Field(description="When it ends, as far as that is known.")


class WhyTold(BaseModel):
    """Why a device does what it does: what asks, how much, and what bounds it."""

    device_id: str
    device_no: int
    at: datetime
    resource: str = Field(description="Of the order it follows; empty: no order asks for it.")
    order_no: int
    level: float | None = Field(description="How far up the merit order the resource is driven.")
    tier: int
    depth: float | None = Field(description="How far into its own tier that is.")
    own_w: float = Field(description="Its own schedule, as far as that can be held.")
    asked_w: float | None = Field(description="What the level asks of it; null: to be left alone.")
    setpoint_w: float | None = Field(description="What it was last told; null: nothing.")
    headroom_up_w: float
    headroom_down_w: float
    used: float = Field(description="Part of its headroom that is asked of it, 0-1.")
    reasons: list[ReasonTold]
