"""Bodies of what is asked and told of envelopes."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

from kapelle.api.shapes import Name, Positive

Limit = Annotated[FiniteFloat, Field(ge=0)]


class EnvelopeAsked(BaseModel):
    """Limits for one or many groups; neither limit: theirs are taken away."""

    model_config = ConfigDict(extra="forbid", strict=True)

    level: Literal["site", "feeder", "zone"]
    names: Annotated[list[Name], Field(min_length=1, max_length=10_000)]
    export_limit_w: Limit | None = Field(
        default=None, description="The sum of power of each is at most this. [W]"
    )
    import_limit_w: Limit | None = Field(
        default=None, description="The sum of power of each is at least minus this. [W]"
    )
    starts_at: AwareDatetime | None = Field(
        default=None, strict=False, description="RFC 3339 with zone; absent: now."
    )
    ends_at: AwareDatetime | None = Field(
        default=None, strict=False, description="Absent, like duration_s: until changed."
    )
    duration_s: Positive | None = Field(default=None, description="Instead of `ends_at`. [s]")


class EnvelopeTold(BaseModel):
    """One envelope of one group."""

    level: str
    name: str
    export_limit_w: float | None = Field(description="null: no limit. [W]")
    import_limit_w: float | None
    starts_at: datetime
    ends_at: datetime | None = Field(description="null: until changed.")
    issued_by: str
    issued_at: datetime
    in_force: bool = Field(description="Whether it is the one that counts now.")


class StandingTold(BaseModel):
    """A cap from the configuration."""

    level: str
    name: str = Field(description='"*": each of them.')
    export_limit_w: float | None
    import_limit_w: float | None


class EnvelopesTold(BaseModel):
    """Envelopes that are not over, by level and name, and what is configured."""

    envelopes: list[EnvelopeTold]
    standing: list[StandingTold]
    unknown: list[str] = Field(
        default=[], description="Names that were asked about and no device here has."
    )
