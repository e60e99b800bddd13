"""Small bodies of journal entries: what is said about the plant, a resource or an order."""

from typing import Literal

import msgspec

Direction = Literal["up", "down"]
"""up: towards export; down: towards consumption."""


class Tick(msgspec.Struct, frozen=True, tag=True):
    """The time, as data. Written by the partition's owner at 1 Hz; never goes back."""

    now_ns: int


class Members(msgspec.Struct, frozen=True, tag=True):
    """The devices of one resource in one partition; replaces what was said before."""

    resource: str
    device_nos: list[int]


class Interval(msgspec.Struct, frozen=True):
    """One part of an order whose target changes; it ends where the next begins."""

    starts_at_ns: int
    target_w: float


class Rationing(msgspec.Struct, frozen=True):
    """The largest part of its power each device with a store may move, by how long it could hold
    all of it (`fleet.curve.rations`). Beyond the end of a list: all of it."""

    until_ns: int
    """Setpoints must be possible until then: the end of the present interval of a profile."""
    ends_at_ns: int
    """The end of the order: what own schedules need until then is no one else's."""
    up: tuple[float, ...] = ()
    down: tuple[float, ...] = ()


class Signal(msgspec.Struct, frozen=True, tag=True):
    """One number per resource that tells every device its setpoint (see `fleet.curve`)."""

    resource: str
    order_no: int
    """0: no order; devices are released."""
    level: float
    """λ: how far up the merit order the resource is driven; negative towards consumption."""
    block_level: float
    """λ for devices that are on or off; moved only when a whole block is due."""
    epoch: int
    ends_at_ns: int
    stores: Literal["", "up", "down", "both"] = ""
    """Which energy partitions tell by group (`fleet.stores`), for who plans a profile with it."""
    rations: Rationing | None = None
    """In force for setpoints. None: each must be possible to the order's end."""
    announced: Rationing | None = None
    """What comes next: curves are told for it before it is in force."""
    rank: int = 0
    """When its order began to claim devices: of orders that share some, the earlier has them."""
    beside: list[int] = []
    """Orders of earlier rank whose devices its levels were solved without."""
    ended_no: int = 0
    """Of a release: the order that is over; `ends_at_ns` is since when."""
    prices: dict[str, float] = {}
    """By group (`feeder/f-12`): how far below λ its devices are driven, so that it keeps its cap.
    Those above 0 only; a device pays for each of its groups."""
    stage: float = 1.0
    """The share of the devices it is for, by a fixed hash of device and order; others wait."""
    randomise_s: float = 0.0
    """Each device begins within this after `rank` and ends within this before `ends_at_ns`. [s]"""


class Curve(msgspec.Struct, frozen=True):
    """Summed response of a partition's controllable devices to λ, as knots.

    Exact at the knots; linear between them. `level` rises strictly and spans negative to positive;
    `power_w` never falls.
    """

    level: list[float]
    power_w: list[float]


class Evidence(msgspec.Struct, frozen=True):
    """Sums from which the plant learns how well it estimates; bounded, whatever the fleet's size.

    A cell is `kind * 16 + octave of the age`; see `fleet.estimation.evidence` for what is summed.
    """

    steady: dict[int, list[float]] = {}
    """By octave of cadence: what devices that report regularly said since the tick before."""
    silent: dict[int, list[float]] = {}
    """By cell: what is estimated for the silent."""
    silent_groups: dict[str, float] = {}
    """Nameplate of the silent by kind and what they share: a vendor, a cluster of feeders. [W]"""
    levels: dict[int, list[float]] = {}
    """By kind: where devices on their own schedule are. Of resource `all` only, as what follows."""
    anchors: dict[int, list[float]] = {}
    """By cell: readings now against those of some time ago."""
    groups: dict[str, list[float]] = {}
    """Readings by kind and what devices share."""
    moves: dict[int, list[float]] = {}
    """By kind: how far devices on their own schedule moved from report to report."""
    fourths: dict[int, float] = {}
    """By cell: fourth powers of what devices moved since the anchor."""
    heard: dict[str, float] = {}
    """Nameplate times time reported for, by kind and what devices share. [W s]"""


class Room(msgspec.Struct, frozen=True):
    """How far the controllable devices of a resource can move and hold it for a window, and how
    surely, as sums (see `fleet.capacity.room`)."""

    window_s: float
    cells: dict[str, list[float]]
    """By `kind/vendor`: devices; then up, then down: headroom [W], the part of it that counts with
    what is known of such devices [W], what their own records add [W], headroom squared [W2]."""
    places: dict[str, dict[int, list[float]]]
    """By vendor and group of feeders: headroom up and down. [W]"""
    providers: dict[str, dict[int, list[float]]] = {}
    """The same by vendor and group of internet providers."""


class Reach(msgspec.Struct, frozen=True):
    """Who is heard in a partition, and what became of commands (see `fleet.capacity.room`)."""

    heard: dict[str, dict[int, list[float]]]
    """By vendor and group of feeders: devices that were ever heard, and those heard now."""
    trials: dict[str, list[int]]
    """By `kind/vendor`: commands followed and not followed, since the beginning."""
    delays: list[int]
    """Answers since the last telling, by octave of their delay; empty for none."""
    providers: dict[str, dict[int, list[float]]] = {}
    """As `heard`, by vendor and group of internet providers."""


class CellCorners(msgspec.Struct, frozen=True):
    """What cells gain along their level, as ramps; columns as little-endian bytes."""

    cell: bytes
    """Whose it is; int32."""
    begins: bytes
    """Level at which a ramp begins …; float64."""
    at: bytes
    """… and ends; float64."""
    head_w: bytes
    """What is gained over it, > 0; float64. [W]"""


class Cells(msgspec.Struct, frozen=True):
    """A resource's controllable devices by the capped groups they are in (`fleet.curve.cells`).

    Nowhere less than what the devices do, and exact at their present level.
    """

    groups: list[str]
    """`feeder/f-12`, `zone/north`, `vendor/acme`: those with a cap in force, or a largest share."""
    up_w: list[float]
    """By group: what all its devices give, those of the resource that count on their own schedule,
    all others as far towards export as they may be. [W]"""
    down_w: list[float]
    """The same towards consumption, positive towards the grid as ever. [W]"""
    export_w: list[float]
    """What the group may export; infinite for no limit. [W]"""
    import_w: list[float]
    of: bytes
    """Feeder, zone and vendor of each cell as places in `groups`, -1 for none; int32, by rows."""
    up: CellCorners
    down: CellCorners
    blocks_up: CellCorners
    """Of devices that are on or off."""
    blocks_down: CellCorners
    prices: list[float]
    """By group: what its devices pay now."""
    vendor_share: float = 1.0
    """Devices of one vendor carry at most this part of what an order commits. 0-1"""


class ResourceSummary(msgspec.Struct, frozen=True):
    """One resource in one partition at one tick."""

    resource: str
    devices: int
    power_w: float
    """Estimated power of all its devices: the mean. [W]"""
    variance_w2: float
    """Variance of the estimate from errors that are independent between devices. [W2]"""
    shared_std_w: dict[str, float]
    """Per vendor, standard deviation of the error its silent devices share. [W]"""
    measured_w: float
    """The part of `power_w` that rests on live readings. [W]"""
    freshness: list[int]
    """Number of devices in each `Freshness`, by its number."""
    oldest_age_s: float
    """Age of the oldest reading counted as live or late; NaN without any. [s]"""
    nameplate_w: float
    """Sum of the larger of nameplate up and down. [W]"""
    uncontrolled_w: float
    """Estimated power of the devices no setpoint will reach now. [W]"""
    headroom_up_w: float
    """How far controllable devices can move towards export and hold it for 15 minutes. [W]"""
    headroom_down_w: float
    commanded_w: float
    """Sum of the setpoints in force or on their way. [W]"""
    continuous: Curve
    blocks: Curve
    """The same for devices that are on or off: a staircase given by its upper corners."""
    phases: list[int]
    """Number of devices with a current command in each `Phase`, by its number (18 places)."""
    excluded: dict[str, int]
    """Why devices are not counted on (`Exclusion`, lower case), and how many."""
    by_kind_w: dict[str, float]
    vendors: dict[str, list[int]]
    """Per vendor: [devices, devices live or late]."""
    measured_nameplate_w: float = 0.0
    """The part of `nameplate_w` whose readings are live. [W]"""
    fading_w: float = 0.0
    """What silent devices do beyond their own schedule and give up when their timers end. [W]"""
    fading_up_w: float = 0.0
    """Headroom still counted, of devices whose vendor is falling silent as a whole. [W]"""
    fading_down_w: float = 0.0
    steady_variance_w2: float = 0.0
    """Variance presumed of those who report regularly, until it has been learned. [W2]"""
    steady_std_w: float = 0.0
    """Sum of their standard deviations, of which they share a part. [W]"""
    evidence: Evidence = Evidence()
    export_mwh: int = 0
    """What the registers of its devices have counted towards the grid since each was first heard,
    as published: the ledger knows better later. [mWh]"""
    import_mwh: int = 0
    standings: list[int] = []
    """Number of devices in each `Standing`, by its number; empty where nothing is asked."""
    conditions: dict[str, int] = {}
    """What is wrong with devices (`Condition`, lower case), and how many have it."""
    received: int = 0
    """Reports that came since each device was first heard, repeats left out."""
    duplicates: int = 0
    """Repeats among all that came."""
    late: int = 0
    """Reports that filled a gap."""
    lost: int = 0
    """Reports that were numbered and have not come."""
    room: Room | None = None
    """Not at every tick."""
    doubt_up_w: float = 0.0
    """What devices no setpoint will reach may still do on top of `uncontrolled_w`, towards export:
    commands they may yet obey, timers that may still run (see `fleet.doubt`). [W]"""
    doubt_down_w: float = 0.0
    doubt_most_w: float = 0.0
    """The part of it, either way, of the one device that could do most. [W]"""
    stores: dict[str, list[float]] = {}
    """By group of like duration (`fleet.stores`): power up and down [W], energy that can be given
    and taken [Wh]. Only while a profile asks for it."""
    rationing: Rationing | None = None
    """What the curves were made for, where it is not the order's end."""
    claimed: dict[int, int] = {}
    """By order number: its devices that follow another order than its own, if it has any."""
    others_w: float = 0.0
    """What its devices do beyond their own schedule for other orders than its own. [W]"""
    leaving_w: float = 0.0
    """The part of it that devices do who are counted on for its own: they are about to stop. [W]"""
    cells: Cells | None = None
    """None where no group has a cap in force."""
    rollout: dict[str, int] = {}
    """Of an order in stages: devices asked, verified and failed, by cause (`fleet.stages`)."""


class Spread(msgspec.Struct, frozen=True):
    """How old the reports of a partition are and how far its clocks are off (`fleet.spread`)."""

    ages: list[int]
    """Devices by the age of their last report."""
    age_s: float
    """Sum of the ages. [s]"""
    ahead: list[int]
    """Devices by how far their clock is ahead of ours, at least."""
    ahead_s: float
    behind: list[int]
    """The same behind; the way here counts as that."""
    behind_s: float
    states: dict[str, list[int]]
    """By kind, devices in each `Freshness`."""


class Summary(msgspec.Struct, frozen=True, tag=True):
    """What a partition's owner knows at a tick: coordination costs one of these per partition."""

    partition: int
    tick_ns: int
    position: int
    """Position in the partition's topic up to which this is true."""
    resources: list[ResourceSummary]
    spread: Spread | None = None
    """Not at every tick."""
    reach: Reach | None = None
    """The same."""
    following: list[int] | None = None
    """Numbers of the orders whose signals were in force; None: not told."""


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


class Notice(msgspec.Struct, frozen=True, tag=True):
    """Something an operator should know: a shortfall, a common outage, a recovery."""

    at_ns: int
    code: str
    """`shortfall`, `group-lost`, `group-back`, …"""
    text: str
    order_no: int = 0
    power_w: float = 0.0
    device_no: int = -1
    """The one device it is about; -1 where it is about several or none."""
    devices: int = 0
    """How many devices it is about; 0 where it is not about devices."""
    group: str = ""
    """What they share. Every partition tells of its own: notices of one moment, code and group are
    one notice, see `fleet.reconciliation.alarms.merged`."""


class Envelopes(msgspec.Struct, frozen=True, tag=True):
    """What sites, feeders or zones may export and import together, for a time.

    At each moment the latest that was said of a group and covers the moment counts. It is written
    to every partition's topic and to the plant's.
    """

    level: Literal["site", "feeder", "zone"]
    names: list[str]
    export_w: float
    """The sum of power of each is at most this; infinite for no limit. [W]"""
    import_w: float
    """… and at least minus this. [W]"""
    starts_at_ns: int
    ends_at_ns: int
    issued_by: str
    at_ns: int


class Correction(msgspec.Struct, frozen=True, tag=True):
    """A person's correction of the energy of one device over a period; the readings stay as they
    came. A later correction of the same intervals counts instead of an earlier one."""

    correction_no: int
    device_no: int
    register: Literal["export", "import"]
    starts_at_ns: int
    """[starts_at_ns, ends_at_ns), both on quarter-hours."""
    ends_at_ns: int
    method: Literal["set", "scale", "interpolate", "undo"]
    """set: `value` Wh over the period; scale: what was found times `value`; interpolate: evenly
    between what came before and after; undo: take back correction number `undoes`."""
    value: float
    at_ns: int
    issued_by: str
    reason: str
    undoes: int = 0
    key: str = ""
    """Idempotency key of the request that made it."""


class Verdict(msgspec.Struct, frozen=True, tag=True):
    """What a person decided about rows in quarantine: where they lie, and what became of them."""

    partition: int
    position: int
    """Of the `Quarantined` entry in the partition's topic."""
    rows: list[int]
    verdict: Literal["replayed", "dropped"]
    at_ns: int
    """Repeats that come later than this are open again."""
    issued_by: str
    reason: str
    fix: str = ""
    """What was changed in the rows before they were replayed, as JSON; empty for nothing."""


Small = (
    Tick
    | Members
    | Signal
    | Summary
    | Order
    | Amend
    | Cancel
    | Hold
    | Plan
    | Prospect
    | Notice
    | Correction
    | Verdict
    | Envelopes
)
