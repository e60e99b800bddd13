"""What the owner of a partition tells the plant about its devices, once a second."""

import msgspec

from kapelle.model.signals import Rationing


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


class Silence(msgspec.Struct, frozen=True):
    """How long ago the devices of a group were last heard, but for those never heard, or lost."""

    late: int = 0
    """Those that are `Freshness.LATE`."""
    due: int = 0
    """Those silent for longer than they take to report, be they late yet or not."""
    ages: list[int] = []
    """By the age of their last word (`fleet.silence.SINCE_S`)."""


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
    providers: dict[str, list[int]] = {}
    """As `vendors`, per internet provider; empty where none is named, or too many are."""
    silences: dict[str, Silence] = {}
    """By `vendor/NAME`, `provider/NAME`. Of resource `all` only."""
    sites_up_w: dict[str, float] = {}
    """What the envelopes of those sites that lose most keep from it; "" for all others. [W]"""
    sites_down_w: dict[str, float] = {}


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
