"""Bodies of requests and answers. Unknown fields are refused; units stand in the names."""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

Positive = Annotated[FiniteFloat, Field(gt=0)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class IntervalAsked(_Asked):
    """One part of an order whose target changes."""

    duration_s: Annotated[FiniteFloat, Field(ge=1)]
    target_w: FiniteFloat = Field(description="As of an order; 0 and both signs may occur. [W]")


Profile = Annotated[list[IntervalAsked], Field(min_length=1, max_length=96)]


class OrderAsked(_Asked):
    """A target for a resource: change its power by this much against its baseline."""

    target_w: FiniteFloat | None = Field(
        default=None, description="Change against the baseline, positive towards the grid. [W]"
    )
    profile: Profile | None = Field(
        default=None, description="Instead of `target_w` and an end: intervals, one after another."
    )
    resource: Name = Field(default="all", description="Named set of enrolled devices.")
    starts_at: AwareDatetime | None = Field(
        default=None, strict=False, description="RFC 3339 with zone; absent: now."
    )
    ends_at: AwareDatetime | None = Field(default=None, strict=False)
    duration_s: Positive | None = Field(default=None, description="Instead of `ends_at`. [s]")
    tolerance: FiniteFloat = Field(
        default=0.02, gt=0, le=1, description="Accepted deviation as a fraction of the target."
    )
    product: Annotated[str, Field(max_length=64)] = "manual"
    why: Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f]*$")] = Field(
        default="", description="What it is for, in the words of who issues it."
    )
    dry_run: bool = Field(default=False, description="Say what would be promised; order nothing.")
    staged: bool = Field(
        default=False,
        description="Begin with a few devices, and go on only as their meters show what was asked.",
    )
    randomise_s: FiniteFloat = Field(
        default=0.0,
        ge=0,
        le=600,
        description="Each device begins, and ends, at a moment of its own within this time. [s]",
    )


class AmendAsked(_Asked):
    """A new target, a new end, or both."""

    target_w: FiniteFloat | None = None
    ends_at: AwareDatetime | None = Field(default=None, strict=False)
    duration_s: Positive | None = Field(default=None, description="From now. [s]")
    profile: Profile | None = Field(
        default=None, description="From now; instead of all that is not over yet."
    )


class HoldAsked(_Asked):
    """Why every command is stopped, or allowed again."""

    reason: Annotated[str, Field(max_length=500)] = ""


class IntervalTold(BaseModel):
    """One part of an order whose target changes."""

    starts_at: datetime
    ends_at: datetime
    target_w: float
    committed_w: float | None = Field(description="What is promised of it; null: nothing said yet.")


class OrderTold(BaseModel):
    """An order as it stands."""

    order_no: int
    resource: str
    target_w: float = Field(description="Of a profile the largest in size. [W]")
    starts_at: datetime
    ends_at: datetime
    issued_at: datetime
    issued_by: str
    operated_by: str = Field(default="", description="The second person, where it took two.")
    why: str = Field(default="", description="What it is for, in the words of who issued it.")
    tolerance: float
    product: str
    status: str = Field(description="pending, active, completed, cancelled or declined.")
    planned: bool = Field(
        description="Whether dispatch has spoken; until then nothing is promised."
    )
    baseline_w: float | None = Field(description="The target counts from here. [W]")
    committed_w: float | None = Field(description="The part of the target that is promised. [W]")
    firm_w: float | None = Field(
        default=None,
        description="What was 95 % sure for its time when it was promised; null: not known. [W]",
    )
    declined_w: float | None = None
    reason: str = Field(default="", description="What binds where something was declined.")
    binding: list[str] = Field(
        default=[], description="Caps that keep its devices from more now, the dearest first."
    )
    randomise_s: float = Field(
        default=0.0, description="Each device begins and ends at its own moment within this. [s]"
    )
    stage: float | None = Field(
        default=None, description="Share of the devices it has come to; null: not in stages."
    )
    complete_at: datetime | None = Field(
        default=None, description="When it had come to all devices; from then the promise counts."
    )
    profile: list[IntervalTold] = Field(
        default=[], description="Where its target changes; empty: it has one."
    )


class PreviewTold(BaseModel):
    """What an order would be promised now."""

    dry_run: bool = True
    resource: str
    target_w: float
    feasible: bool = Field(description="Whether all of it would be promised.")
    committed_w: float = Field(description="The nearest feasible target. [W]")
    firm_w: float | None = Field(
        default=None, description="What is 95 % sure for its time; null: not known yet. [W]"
    )
    declined_w: float
    reason: str = Field(description="What binds; empty where it is feasible.")
    baseline_w: float
    baseline_std_w: float
    headroom_up_w: float
    headroom_down_w: float
    devices: int
    excluded: dict[str, int]
    held_s: float = Field(description="How long the published headroom holds. [s]")
    profile: list[IntervalTold] = []


class SelectionTold(BaseModel):
    """An order that waits for a second person."""

    selection_no: int
    selected_by: str
    valid_until: datetime
    impact: PreviewTold


class OrdersTold(BaseModel):
    """Newest orders first."""

    orders: list[OrderTold]
    next_before: int | None = Field(
        default=None, description="Ask again with `before` set to this; null at the end."
    )


class ResourceTold(BaseModel):
    """One resource now: never a bare number."""

    resource: str
    at: datetime | None = Field(description="Time of the oldest part of this answer.")
    age_s: float | None
    computed_at: datetime | None = Field(
        default=None, description="When the parts were added up; null where there are none."
    )
    complete: bool = Field(description="Whether every partition has spoken.")
    devices: int
    coverage: float | None = Field(
        default=None, description="Share of the devices whose reports are live or late. 0-1"
    )
    power_w: float = Field(description="Best estimate, positive towards the grid. [W]")
    low_w: float = Field(description="The true power lies in low_w to high_w in 95 % of cases.")
    high_w: float
    std_w: float
    measured_w: float
    measured_share: float | None
    oldest_age_s: float | None
    freshness: dict[str, int]
    nameplate_w: float
    uncontrolled_w: float
    headroom_up_w: float
    headroom_down_w: float
    commanded_w: float
    others_w: float = Field(
        default=0.0,
        description="What its devices do beyond their own schedule for orders on other resources; "
        "an order on this one is judged without it. [W]",
    )
    claimed: dict[int, int] = Field(
        default={}, description="By order number: devices that follow an order on another resource."
    )
    phases: dict[str, int]
    excluded: dict[str, int]
    by_kind_w: dict[str, float]
    vendors: dict[str, tuple[int, int]]
    standings: dict[str, int] = Field(
        default={}, description="How the devices under an order stand to what is asked of them."
    )
    conditions: dict[str, int] = Field(
        default={}, description="What is wrong with devices for longer than a moment."
    )


class ResourcesTold(BaseModel):
    """Every resource of the plant."""

    resources: list[ResourceTold]


class NoticeTold(BaseModel):
    """Something an operator should know."""

    at: datetime
    code: str
    text: str
    order_no: int
    power_w: float
    device_no: int | None = Field(default=None, description="The one device it is about.")
    devices: int = Field(default=0, description="How many devices it is about.")


class ReasonTold(BaseModel):
    """One thing that is not as it should be."""

    code: str = Field(description="Stable; docs/operating.md lists all.")
    state: str = Field(description="How bad it is alone: degraded or failing.")
    text: str
    remedy: str
    since: datetime


class ReadyTold(BaseModel):
    """Whether requests are answered from the whole picture."""

    ready: bool
    state: str = Field(description="ok, degraded or failing.")
    reasons: list[ReasonTold]


class StatusTold(BaseModel):
    """The plant in one answer."""

    version: str
    now: datetime
    held: bool
    hold_reason: str
    position: int = Field(
        description="Of the plant's topic in the journal, as far as applied here."
    )
    partitions: int
    partitions_heard: int
    plant: ResourceTold
    orders: list[OrderTold] = Field(description="Those that are not over.")
    ingest: dict[str, int]
    notices: list[NoticeTold] = Field(description="Newest first.")
    journal_damage: int = Field(
        default=0, description="Places found damaged in the journal since the start."
    )
    damage: list[str] = Field(default=[], description="The first of them, and what is affected.")
    state: str = Field(default="ok", description="ok, degraded or failing.")
    reasons: list[ReasonTold] = Field(default=[], description="Why; the worst first.")
    quarantine: dict[str, int] = Field(
        default={}, description="Occurrences nobody has decided on: the most frequent codes."
    )


class HoldTold(BaseModel):
    """Whether every command is stopped."""

    held: bool
    reason: str
    at: datetime
