"""What the quarantine routes take and answer."""

import json
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

from kapelle.adapters.replay.fix import METRICS, Fix
from kapelle.api.shapes import Name

_COUNTERS = ("boot", "seq")
FIELDS = (*METRICS, "device", "at", "at_ns", *_COUNTERS)


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class FilterAsked(_Asked):
    """Which open rows; what is not said does not restrict, but something has to be said."""

    code: str = ""
    source: str = Field(default="", description="Whole, or its beginning up to a slash: `mqtt`.")
    device: str = ""
    since: AwareDatetime | None = Field(default=None, strict=False)
    until: AwareDatetime | None = Field(default=None, strict=False)


class FixAsked(_Asked):
    """What is changed in every row before it is decoded again."""

    scale: dict[str, FiniteFloat] = Field(
        default={}, description='Field and factor: `{"power_w": 0.001}`.'
    )
    negate_power: bool = False
    device: str = Field(default="", max_length=128, description="Whose row it is.")
    drop: list[Annotated[str, Field(min_length=1, max_length=128)]] = Field(
        default=[], max_length=32, description="Fields left out."
    )
    payload: str = Field(
        default="", max_length=65_536, description="The whole row anew; only for one row."
    )

    def to_fix(self) -> Fix:
        """Return it as the replay takes it."""
        return Fix(
            scale=dict(self.scale),
            negate_power=self.negate_power,
            device=self.device,
            drop=list(self.drop),
            payload=self.payload,
        )


class DropAsked(_Asked):
    """Rows to be dropped: by id, or by a filter."""

    ids: list[str] | None = Field(default=None, max_length=10_000)
    filter: FilterAsked | None = None
    reason: str = Field(default="", max_length=500, description="Kept in the journal.")
    author: Name | None = Field(
        default=None, description="Yourself, as your token says; or left out."
    )
    dry_run: bool = Field(default=False, description="Say what would happen; change nothing.")


class ReplayAsked(DropAsked):
    """Rows to be decoded again, mended first where a fix is given."""

    fix: FixAsked | None = None


class UnmuteAsked(_Asked):
    """Devices to be listened to again at once."""

    devices: list[Name] = Field(min_length=1, max_length=1_000)


class QuarantinedTold(BaseModel):
    """One row, with its identical repeats."""

    id: str = Field(description="`partition:position:row` of its first occurrence.")
    device: str | None = Field(description="Null where the sender could not be resolved.")
    device_no: int | None
    source: str
    code: str
    reason: str
    raw: str = Field(description="What was sent; bytes that are no UTF-8 as `\\xff`.")
    raw_base64: str | None = Field(description="The same exactly, where it is no UTF-8.")
    received_at: datetime = Field(description="First arrival.")
    first_seen: datetime
    last_seen: datetime
    count: int = Field(description="How often the same came.")
    state: str = Field(description="open, replayed or dropped; open again where it came again.")
    verdict: str | None
    decided_at: datetime | None
    decided_by: str | None
    decision_reason: str | None
    fix: dict[str, object] | None = Field(description="What was changed before it was replayed.")


class QuarantineTold(BaseModel):
    """Newest rows first."""

    rows: list[QuarantinedTold]
    cursor: str | None = Field(default=None, description="Ask again with this; null at the end.")


class ReasonCounted(BaseModel):
    """Occurrences with one code, since the quarantine was made."""

    code: str
    open: int
    replayed: int
    dropped: int
    pushed_out: int = Field(description="Older than the newest that are kept; counted only.")


class SourceCounted(BaseModel):
    """Open occurrences of one source."""

    source: str
    open: int


class MutedTold(BaseModel):
    """A device that is not listened to where it cannot be read; what can be read is taken."""

    device: str | None = Field(description="Null: all senders together that are not enrolled.")
    protocol: str
    since: datetime
    until: datetime
    not_kept: int = Field(description="Unusable rows of this episode: counted, not kept.")


class QuarantineCounted(BaseModel):
    """How much there is, why and from whom."""

    open: int
    rows: int = Field(description="Rows held; identical repeats are one.")
    bytes: int
    reasons: list[ReasonCounted]
    sources: list[SourceCounted] = Field(description="The largest fifty.")
    muted: list[MutedTold]


class RowDecided(BaseModel):
    """What would become, or became, of one row."""

    id: str
    device: str | None
    outcome: Literal["stored", "dropped", "refused"]
    reason: str = Field(default="", description="Why it was refused.")
    before: str = Field(description="What was sent.")
    after: str | None = Field(default=None, description="The same as mended; null: unchanged.")
    values: dict[str, float] = Field(default={}, description="As read, the first report of it.")


class ActionTold(BaseModel):
    """What would be done, or was done."""

    dry_run: bool
    action: Literal["replay", "drop"]
    matched: int = Field(description="Open rows that were meant.")
    taken: int = Field(description="As many were looked at in this request.")
    stored: int
    dropped: int
    refused: dict[str, int] = Field(description="Still unusable, and so still open, by code.")
    skipped: int = Field(description="Ids that are unknown or not open any more.")
    rows: list[RowDecided] = Field(description="The first twenty.")


class MutedList(BaseModel):
    """Every muted device."""

    muted: list[MutedTold]


class UnmutedTold(BaseModel):
    """Who is listened to again."""

    unmuted: list[str]


def fix_of(text: str) -> dict[str, object] | None:
    """Return a recorded fix as an object; None where there was none."""
    if not text:
        return None
    try:
        told = msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return {"text": text}
    return told if isinstance(told, dict) else {"text": json.dumps(told)}
