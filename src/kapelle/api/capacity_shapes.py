"""What is told of firm capacity."""

from datetime import datetime

from pydantic import BaseModel, Field


class LevelTold(BaseModel):
    """One degree of certainty."""

    level: float = Field(description="How often the promise is kept: 0.95 is P95. 0-1")
    promise_w: float = Field(description="The least power over the window. [W]")
    alone_w: float = Field(
        description="The answer if every device failed by itself: what common causes hide. [W]"
    )
    without_worst_w: float | None = Field(
        description="What could be promised without the vendor whose loss costs most. [W]"
    )


class DirectionTold(BaseModel):
    """What can be promised in one direction. Every power is a size: >= 0."""

    headroom_w: float = Field(description="If everybody followed. [W]")
    reserve_w: float = Field(
        default=0.0, description="Of it, never promised: no promise here is more than the rest. [W]"
    )
    expected_w: float
    levels: list[LevelTold] = Field(description="The least certain first.")
    worst_vendor: str | None
    worst_vendor_odds: float | None = Field(
        description="How probably it is lost within the window. 0-1"
    )


class CapacityTold(BaseModel):
    """What a resource can promise from now on over a window."""

    resource: str
    at: datetime = Field(description="The tick of the oldest part of it.")
    age_s: float
    complete: bool = Field(description="Whether every partition has told its part.")
    window_s: float
    notice_s: float
    up: DirectionTold | None = Field(description="Towards export.")
    down: DirectionTold | None = Field(description="Towards consumption.")
