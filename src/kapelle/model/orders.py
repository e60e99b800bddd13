"""What is ordered, and what the plant promises and does about it."""

import msgspec

from kapelle.model.signals import Signal


class Interval(msgspec.Struct, frozen=True):
    """One part of an order whose target changes; it ends where the next begins."""

    starts_at_ns: int
    target_w: float


class Order(msgspec.Struct, frozen=True, tag=True):
    """A target for a resource: change its power by this much against its baseline."""

    order_no: int
    resource: str
    target_w: float
    """Change against the baseline, positive towards export. [W]"""
    starts_at_ns: int
    ends_at_ns: int
    issued_at_ns: int
    tolerance: float = 0.02
    """Accepted deviation as a fraction of the target."""
    product: str = "manual"
    issued_by: str = ""
    key: str = ""
    """Idempotency key of the request that made it."""
    operated_by: str = ""
    """A second person who let it go ahead, where it is so large that it takes two."""
    profile: tuple[Interval, ...] = ()
    """Targets by interval, the first from the order's start; `target_w` is the largest in size, so
    that whoever guards against large orders guards against each part. Empty: one target."""
    why: str = ""
    """What it is for, in the words of who issued it."""
    staged: bool = False
    """Whether it begins with a few of its devices (S-22), however small it is."""
    randomise_s: float = 0.0
    """Each device begins and ends at a moment of its own within this time (S-21). [s]"""


class Amend(msgspec.Struct, frozen=True, tag=True):
    """A new target or end for an order."""

    order_no: int
    target_w: float
    ends_at_ns: int
    at_ns: int
    issued_by: str = ""
    profile: tuple[Interval, ...] = ()
    """The whole profile as it is from now on, what is past included. Empty: one target."""


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """The end of an order before its time; its devices are released."""

    order_no: int
    at_ns: int
    issued_by: str = ""


class Hold(msgspec.Struct, frozen=True, tag=True):
    """Stop (or allow again) every command of the plant."""

    held: bool
    at_ns: int
    reason: str = ""
    issued_by: str = ""


class Promised(msgspec.Struct, frozen=True):
    """What is promised of one interval of a profile."""

    starts_at_ns: int
    target_w: float
    committed_w: float


class Stage(msgspec.Struct, frozen=True):
    """One step of a roll-out, with what its devices had come to when the next one began."""

    share: float
    at_ns: int
    asked: int = 0
    verified: int = 0
    failed: int = 0


class RollOut(msgspec.Struct, frozen=True):
    """How an order is handed to its devices by and by (`dispatch.rollout`)."""

    signal: Signal
    """What is in force meanwhile, levels included."""
    stages: tuple[Stage, ...] = ()
    """Oldest first; none where each device only begins at its own moment."""
    complete_at_ns: int = 0
    """From then on the promise counts; 0 before."""
    is_lessened: bool = False
    """Whether it was amended to less meanwhile."""


class Plan(msgspec.Struct, frozen=True, tag=True):
    """What dispatch made of an order: written when it starts and whenever the promise changes."""

    order_no: int
    at_ns: int
    epoch: int
    status: int
    """`OrderStatus`."""
    baseline_w: float
    """Power of the resource when the order started; the target counts from here. [W]"""
    committed_w: float
    """The part of the target the plant promises. [W]"""
    declined_w: float
    reason: str
    """What binds where something was declined; empty otherwise."""
    profile: tuple[Promised, ...] = ()
    """What is promised of each interval; `committed_w` is that of the largest target."""
    firm_w: float | None = None
    """What is 95 % sure (`dispatch.firm`) for the order's time, as a change against the baseline;
    None where nobody could say. [W]"""
    rank: int = 0
    """When its order began to claim devices; the same in every plan of an order."""
    rollout: RollOut | None = None
    """How it begins, where that takes stages or a while."""


class Prospect(msgspec.Struct, frozen=True, tag=True):
    """What could be promised for one window of an order's delivery, said as the window begins."""

    order_no: int
    at_ns: int
    ends_at_ns: int
    asked_w: float
    """Change against the baseline that counts as kept, positive towards export. [W]"""
    promise_w: list[float]
    """P50, P90, P95 and P99 of the least power, in the direction of `asked_w`; >= 0. [W]"""
    odds: list[float]
    """By level, how probably less comes than the promise, or than is asked where that is less."""
