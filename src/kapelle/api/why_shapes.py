"""What is told of why an order is as it is."""

from pydantic import BaseModel, Field

from kapelle.api.shapes import NoticeTold, OrderTold


class ExtentTold(BaseModel):
    """How far the devices that follow an order, and are counted on, are moved."""

    level: float = Field(description="λ: how far up the merit order it is driven.")
    tier: int = Field(description="The tier the level lies in, from 0.")
    at_limit: int
    between: int
    untouched: int


class OrderWhyTold(BaseModel):
    """What bound an order, now and over its life."""

    order: OrderTold
    bound: list[str] = Field(description="What binds it, a sentence each; the promise first.")
    delivered_w: float | None = Field(
        description="Change against the baseline now, but for what its devices do for other orders."
    )
    reserve_w: float = Field(description="Headroom in its direction that is never promised.")
    extent: ExtentTold | None = Field(
        description="null where it is not in force, or its devices are kept by another process."
    )
    excluded: dict[str, int] = Field(description="Why devices are not counted on, and how many.")
    claimed: dict[int, int] = Field(description="Devices that follow other orders, by number.")
    caps: list[str] = Field(description="Limits of groups that bind now.")
    shortfall: NoticeTold | None = Field(description="What is missing now, and why.")
    life: list[NoticeTold] = Field(description="What was said of it so far, oldest first.")
