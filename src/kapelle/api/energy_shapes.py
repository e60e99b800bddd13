"""What is asked and told of corrections of energy."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

from kapelle.api.shapes import Name
from kapelle.errors import Invalid, Problem

Register = Literal["export", "import"]
Why = Annotated[str, Field(min_length=1, max_length=500)]
Who = Annotated[str, Field(max_length=128)]
INTERVALS_TOLD = 1_000
_REVISIONS = "write latest, all, 0 as first told, or a number"


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class CorrectionAsked(_Asked):
    """What shall count instead of what was measured, over some quarter-hours of one register."""

    device_id: Name
    register_: Register = Field(alias="register")
    starts_at: AwareDatetime = Field(
        alias="from", strict=False, description="On a quarter-hour; RFC 3339 with zone."
    )
    ends_at: AwareDatetime = Field(alias="to", strict=False, description="Exclusive.")
    method: Literal["set", "scale", "interpolate"] = Field(
        description="set: `value` Wh over the whole period, shaped like what was measured; scale: "
        "what was measured times `value`; interpolate: evenly between the quarter-hours around."
    )
    value: FiniteFloat | None = Field(default=None, ge=0, description="For set [Wh] and scale.")
    reason: Why
    author: Who = Field(default="", description="Yourself, as your token says; or left out.")
    dry_run: bool = Field(default=False, description="Say what would change; change nothing.")


class UndoAsked(_Asked):
    """Take a correction back: what was there before counts again."""

    reason: Why
    author: Who = ""
    dry_run: bool = False


class IntervalChanged(BaseModel):
    """One quarter-hour, before and after."""

    starts_at: datetime
    before_mwh: int | None = Field(description="Null: nobody knows.")
    after_mwh: int | None
    before_quality: str
    after_quality: str


class CorrectionTold(BaseModel):
    """One correction, or the taking back of one."""

    correction_no: int
    device_id: str | None = Field(description="Null where the device was removed.")
    device_no: int
    register_: Register = Field(serialization_alias="register", validation_alias="register")
    starts_at: datetime = Field(serialization_alias="from", validation_alias="from")
    ends_at: datetime = Field(serialization_alias="to", validation_alias="to")
    method: str = Field(description="set, scale, interpolate or undo.")
    value: float | None
    author: str
    reason: str
    at: datetime
    applied: bool = Field(description="Whether the ledger has it; if not yet, soon.")
    undoes: int | None = None
    undone_by: int | None = None


class RepairTold(BaseModel):
    """What a correction does, or would do."""

    dry_run: bool
    correction: CorrectionTold | None = Field(description="Null where nothing was changed.")
    intervals: int = Field(description="Quarter-hours that change.")
    before_mwh: int = Field(description="Their sum before, as far as it was known.")
    after_mwh: int
    changes: list[IntervalChanged] = Field(description=f"The first {INTERVALS_TOLD:,} of them.")


class CorrectionsTold(BaseModel):
    """Newest first."""

    corrections: list[CorrectionTold]
    next_before: int | None = Field(
        default=None, description="Ask again with `before` set to this; null at the end."
    )


def revision_of(text: str) -> Literal["latest", "all"] | int:
    """Return which revision of the ledger is meant. Raises Invalid where none is."""
    match text:
        case "latest" | "all":
            return text
    if text.isdecimal():
        return int(text)
    raise Invalid("which revision is meant?", [Problem("revision", repr(text), _REVISIONS)])
