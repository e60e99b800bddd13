"""What is told of one order when it has to be shown to somebody who doubts it."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

Verdict = Literal[
    "delivered", "promise-kept", "fell-short", "declined", "cancelled", "running", "unknown"
]


class RolledTold(BaseModel):
    """A step of a roll-out, with what had come of it when the next one began."""

    at: datetime
    share: float = Field(description="Of the devices.")
    asked: int
    verified: int
    failed: int


class PlanTold(BaseModel):
    """What dispatch promised at one moment, and why not more."""

    at: datetime
    status: str
    baseline_w: float | None = Field(description="Power as it began; the target counts from here.")
    committed_w: float
    firm_w: float | None = Field(
        default=None, description="What was 95 % sure for its time; null: not known."
    )
    declined_w: float
    reason: str = Field(description="What binds; empty where nothing was declined.")
    stages: list[RolledTold] = Field(
        default=[], description="How it was handed to its devices by and by; the last is present."
    )
    complete_at: datetime | None = Field(
        default=None, description="When it had come to all; null: not yet, or it began so."
    )


class AmendTold(BaseModel):
    """A new target or end."""

    at: datetime
    target_w: float
    ends_at: datetime
    issued_by: str


class CancelTold(BaseModel):
    """The end before its time."""

    at: datetime
    issued_by: str


class StageTold(BaseModel):
    """How many commands there was evidence of one phase for."""

    stage: str = Field(description="planned, sent, received, … or how it ended otherwise.")
    is_exit: bool = Field(description="Whether it leads away from delivery.")
    commands: int = Field(description="Commands, each with all its tries; refreshes are new ones.")
    devices: int
    first_at: datetime | None
    last_at: datetime | None
    p50_s: float | None = Field(description="Half of them came this soon after sending. [s]")
    p95_s: float | None


class GoneTold(BaseModel):
    """A device that dropped out while the order ran."""

    device_id: str
    vendor: str
    at: datetime
    cause: str
    setpoint_w: float | None = Field(description="What it was asked for then.")
    back_at: datetime | None = Field(description="When it was seen to follow again.")


class ReplacedTold(BaseModel):
    """Who dropped out and who did their part, as far as commands tell."""

    gone: int
    by_cause: dict[str, int]
    back: int = Field(description="Of those gone, how many were seen to follow again.")
    devices: list[GoneTold] = Field(description="The first 200 of them.")
    joined: int = Field(description="Devices that were asked for the first time after that.")
    joined_at: datetime | None
    joined_w: float = Field(description="Sum of their last setpoints.")
    raised: int = Field(description="Devices whose setpoint was raised after that.")
    raised_w: float
    lowered: int
    lowered_w: float


class OccurredTold(BaseModel):
    """A notice or a hold while it ran."""

    at: datetime
    kind: Literal["notice", "hold"]
    code: str
    text: str
    power_w: float | None = Field(default=None, description="Size of a shortfall.")
    by: str = ""


class PointTold(BaseModel):
    """Mean over one step. What was delivered is the change against the baseline, but for what
    devices did for other orders. [W]"""

    at: datetime
    target_w: float
    committed_w: float
    delivered_w: float
    low_w: float
    high_w: float
    corrected_w: float | None = Field(description="As the readings say by now; whole minutes only.")
    measured_share: float | None


class FiveMinutesTold(BaseModel):
    """The span in which most was missing."""

    starts_at: datetime
    ends_at: datetime
    delivered_w: float
    target_w: float
    missing_w: float = Field(description="Towards the target; what is too much counts as well.")


class QuarterTold(BaseModel):
    """One whole quarter-hour of the ledger. Integers, in thousandths of a Wh."""

    starts_at: datetime
    net_mwh: int | None = Field(description="Export less import; null: nobody knows.")
    baseline_mwh: int
    others_mwh: int = Field(
        default=0, description="What its devices did for other orders, as published at the time."
    )
    delivered_mwh: int | None
    asked_mwh: int
    devices: int
    known: int


class EnergyTold(BaseModel):
    """Energy over the window. The ledger knows whole quarter-hours only."""

    asked_mwh: int = Field(description="Target over the whole window.")
    promised_mwh: int
    published_mwh: int | None = Field(description="Delivered, as the plant said at the time.")
    published_s: float = Field(description="How much of the window that covers. [s]")
    published_asked_mwh: int = Field(description="Asked over just that time.")
    corrected_mwh: int | None = Field(description="Delivered, as the readings say by now.")
    corrected_s: float = Field(description="Of whole minutes in the window. [s]")
    corrected_asked_mwh: int = Field(description="Asked over just these minutes.")
    quarters: list[QuarterTold]
    ledger_mwh: int | None = Field(
        description="Delivered over these quarter-hours; null: none lies in the window as a whole, "
        "or one is not known."
    )
    ledger_asked_mwh: int


class JudgedTold(BaseModel):
    """Whether it delivered. The first moments after each change are left out: devices need time."""

    verdict: Verdict
    text: str
    tolerance: float
    settle_s: float = Field(description="Left out after the start and after each amendment. [s]")
    judged_s: float
    target_w: float | None
    delivered_w: float | None
    low_w: float | None = Field(description="Mean of the published interval.")
    high_w: float | None
    deviation: float | None = Field(description="Of the mean from the target, as a fraction of it.")
    within_share: float | None = Field(description="Of that time, within the tolerance. 0-1")


class IntervalJudgedTold(BaseModel):
    """One interval of an order whose target changes."""

    starts_at: datetime
    ends_at: datetime
    asked_mwh: int
    promised_mwh: int
    published_mwh: int | None = Field(description="Delivered, as the plant said at the time.")
    judged: JudgedTold


class ReportTold(BaseModel):
    """An order as the long record knows it."""

    order_no: int
    resource: str
    product: str
    issued_by: str
    operated_by: str
    why: str = Field(default="", description="What it was for, in the words of who issued it.")
    issued_at: datetime
    starts_at: datetime
    planned_end_at: datetime = Field(description="As first ordered.")
    ends_at: datetime = Field(description="When it was over, or is to be.")
    target_w: float = Field(description="As first ordered.")
    tolerance: float
    status: str
    is_over: bool
    is_complete: bool = Field(description="Whether it is over and the record has all of it.")
    recorded_through: datetime | None = Field(description="Last tick of the window on record.")
    judged: JudgedTold = Field(description="Of a profile as its worst interval.")
    intervals: list[IntervalJudgedTold] = Field(
        default=[], description="Where its target changed, each by itself."
    )
    plans: list[PlanTold]
    amends: list[AmendTold]
    cancelled: CancelTold | None
    held_before: bool = Field(description="Whether the plant was held when it began.")
    funnel: list[StageTold]
    replaced: ReplacedTold
    occurred: list[OccurredTold]
    shortfalls: int
    energy: EnergyTold
    measured_share: float | None = Field(
        description="Of the nameplate, the share whose reports were live; the rest was estimated."
    )
    worst: FiveMinutesTold | None
    points: list[PointTold]
