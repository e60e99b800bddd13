"""No stream of orders, whatever it says and whenever, makes the gate let out what breaks a limit.

A slow, obvious referee judges from the emitted stream alone. It also judges each refusal: it has a
rule, and what fits passes.
"""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.safety.referee import Device, Referee, Told

from kapelle.model.blocks import Commands, Phases
from kapelle.model.enums import DeviceKind, Phase
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Amend, Cancel, Order
from kapelle.ports import Snapshot
from kapelle.registry.directory import Bearer, Directory
from kapelle.safety import gate
from kapelle.safety.accounts import restore, to_snapshot
from kapelle.safety.gate import PHASE_OF, RULES, check
from kapelle.safety.recharge import charge_again
from kapelle.safety.restart import Left, Line
from kapelle.safety.settings import GroupLimit, SafetySettings
from kapelle.safety.state import GateState, go_on, know, rearm

T0_S = 1_000_000
GRACE_S = 5.0
"""So long an order still counts after its end: it and its commands go different ways."""
PARTITIONS = 2
DEVICES = [
    Device(0, "a", 5000.0, 5000.0, zone="north", feeder="n1", site="s1"),
    Device(1, "b", 5000.0, 0.0, zone="north", feeder="n1", site="s1"),
    Device(2, "c", 0.0, 3000.0, True, zone="north", feeder="n2", site="s2"),
    Device(3, "d", 0.0, 3000.0, True, zone="south", feeder="n3", site="s3"),
    Device(4, "e", 0.0, 2000.0, True, zone="south", feeder="n3", site="s3"),
    Device(5, "f", 4000.0, 4000.0, zone="south", feeder="n3", site="s4"),
]
ISSUERS = {1: "alice", 2: "bob", 3: "alice"}
ABOVE_W = 1.2e6
"""Each of the first two orders keeps it alone, all of one person's together do not."""
FOREVER_NS = 1 << 61


def bearer(d: Device) -> Bearer:
    return Bearer(
        d.number, d.name, d.is_enrolled, d.up_w, d.down_w,
        kind=DeviceKind.WATER_HEATER if d.switched else DeviceKind.BATTERY,
        site=d.site, feeder=d.feeder, zone=d.zone,
    )  # fmt: skip


def directory() -> Directory:
    return Directory.build(PARTITIONS, map(bearer, DEVICES))


PLACES: list[dict[str, str]] = [
    {},
    {"zone": "north"},
    {"zone": "*"},
    {"feeder": "n3"},
    {"feeder": "*"},
    {"site": "*"},
    {"device": "*"},
    {"device": "a"},
]
limits = st.builds(
    lambda where, what: GroupLimit(**where, **what),
    st.sampled_from(PLACES),
    st.one_of(
        st.fixed_dictionaries({"power_w": st.sampled_from([5000.0, 10_000.0, 15_000.0])}),
        st.fixed_dictionaries(
            {
                "ramp_w_per_min": st.sampled_from([3000.0, 6000.0, 30_000.0]),
                "ramp_burst_s": st.sampled_from([60.0, 10.0]),
            }
        ),
        st.fixed_dictionaries({"switching_max": st.sampled_from([1.0, 2.0, 0.0])}),
        st.fixed_dictionaries({"switching_share": st.sampled_from([0.34, 0.5, 0.67])}),
    ),
)
plain = SafetySettings(
    commands_burst=3.0,
    dwell_s=0.0,
    # Trips are looked at elsewhere: a held gate lets out nothing that could be judged.
)
configured = st.builds(
    lambda limits, others: replace(plain, limits=tuple(limits), **others),
    st.lists(limits, max_size=2),
    st.sampled_from(
        [
            {},
            {},
            {},
            {"dwell_s": 60.0},
            {"commands_per_hour": 4.0},
            {"commands_per_day": 6.0},
            {"authority_w_per_hour": 12_000.0},
            {"operate_above_w": ABOVE_W},
        ]
    ),
)


@dataclass(frozen=True)
class Row:
    """One command; at most one thing in it is as it must not be."""

    device: int
    share: float
    revert_s: float
    order_no: int
    flaw: str = ""


FLAWS: dict[str, dict[str, float]] = {
    "stranger": {"device_no": 6},
    "huge": {"setpoint_w": 1e6},
    "endless": {"setpoint_w": np.inf},
    "no timer": {"revert_s": 0.0},
    "timer run backwards": {"revert_s": -1.0},
    "timer of years": {"revert_s": 1e9},
    "valid for days": {"ttl_s": 1e6},
    "late": {"not_after_ns": 0},
    "no order": {"order_no": 0},
    "order nobody gave": {"order_no": 9},
    "stale": {"epoch": -1},
    "usurper": {"epoch": 1},
}
rows = st.builds(
    Row,
    device=st.integers(0, len(DEVICES) - 1),
    share=st.sampled_from([1.0, -1.0, 0.0, -0.6, 0.3, np.nan]),
    revert_s=st.sampled_from([120.0, 30.0, 5.0, np.nan]),
    order_no=st.sampled_from([1, 2, 1, 2, 3]),
    flaw=st.integers(0, 12 * len(FLAWS)).map(lambda n: [*FLAWS][n] if n < len(FLAWS) else ""),
)
one_each = st.lists(rows, min_size=1, max_size=5, unique_by=lambda row: row.device)
pauses = st.sampled_from(
    [0.3, 1.1, 4.0, 9.9, 0.0, 31.0, 61.0, 130.0, 900.0, 3599.0, 80_000.0, -7.0]
)
blocks = st.tuples(
    pauses, st.one_of(one_each, one_each, one_each, st.lists(rows, min_size=2, max_size=4))
)
streams = st.lists(blocks, min_size=6, max_size=14)
MISHAPS = ("", "restart", "crash", "missed", "save", "move")
"""What becomes of the gate around a block: it restarts afterwards; before it could say what it had
sent; the block is written while it is down; its accounts are saved; a device moved before."""
DEEDS = ("remove", "return", "hold", "lift", "order", "amend", "turn", "extend", "cut", "cancel")
"""What somebody does before a block: to a device, the plant, or an order."""
eventful = st.lists(
    st.tuples(blocks, st.sampled_from(["", *MISHAPS, *DEEDS])), min_size=6, max_size=14
)
turbulent = st.lists(st.tuples(blocks, st.sampled_from(["", *MISHAPS])), min_size=6, max_size=14)


def block(asked: list[Row], now_ns: int, newest: int, revision: int = 1) -> Commands:
    """Return commands of an owner whose epoch is `newest`."""
    count = len(asked)
    devices = [DEVICES[row.device] for row in asked]
    made = Commands(
        device_no=np.array([row.device for row in asked], np.int32),
        order_no=np.array([row.order_no for row in asked], np.int32),
        revision=np.full(count, revision, np.int64),
        epoch=np.full(count, newest, np.int64),
        attempt=np.ones(count, np.int32),
        setpoint_w=np.array(
            [
                row.share * (device.up_w if row.share > 0 else device.down_w)
                for row, device in zip(asked, devices, strict=True)
            ]
        ),
        issued_at_ns=np.full(count, now_ns, np.int64),
        not_after_ns=np.full(count, now_ns + 10 * NS_PER_S, np.int64),
        ttl_s=np.full(count, 10.0),
        revert_s=np.array([row.revert_s for row in asked]),
    )
    for place, row in enumerate(asked):
        for name, value in FLAWS.get(row.flaw, {}).items():
            getattr(made, name)[place] = value + newest if name == "epoch" else value
    return made


def told(asked: Commands, row: int, now_s: float, devices: list[Device]) -> Told:
    revert_s = float(asked.revert_s[row])
    order_no = int(asked.order_no[row])
    return Told(
        at_s=now_s,
        device=devices[int(asked.device_no[row])],
        setpoint_w=float(asked.setpoint_w[row]),
        revert_s=np.inf if np.isnan(revert_s) else revert_s,
        ttl_s=float(asked.ttl_s[row]),
        issuer=ISSUERS.get(order_no, ""),
        order_no=order_no,
    )


TOGETHER = {
    gate.RATE, gate.RATE_DAY, gate.DWELL, gate.SWITCHING, gate.POWER, gate.RAMP, gate.AUTHORITY,
}  # fmt: skip


class Hop:
    """A gate that restarts as the last hop does, over a journal that is a list."""

    def __init__(self, limits_: SafetySettings) -> None:
        self.settings, self.book = limits_, directory()
        self.journal: list[Commands | Phases] = []
        self.plant: list[Order | Amend | Cancel] = []
        self._saved: tuple[Snapshot, int, int] | None = None
        self.state = GateState.of(limits_)
        for number in (1, 2):
            self.order(Order(number, "all", 1e6, 0, FOREVER_NS, 0, issued_by=ISSUERS[number]))

    def order(self, body: Order | Amend | Cancel) -> None:
        """Have the gate hear of an order."""
        self.plant.append(body)
        self.state.orders.apply(body)

    def send(self, asked: Commands, now_s: float, *, said: bool = True) -> list[str]:
        known = know(self.state, self.book, asked.device_no)
        broken = check(self.state, asked, known, round(now_s * NS_PER_S), PARTITIONS, self.settings)
        self.journal.append(asked)
        verdicts = [RULES[place] for place in broken.tolist()]
        phase = [Phase.SENT if not rule else PHASE_OF.get(rule, Phase.NONE) for rule in verdicts]
        found = np.flatnonzero(phase)
        if said and len(found):
            self.journal.append(
                Phases(
                    device_no=asked.device_no[found],
                    revision=asked.revision[found],
                    phase=np.array(phase, np.uint8)[found],
                    at_ns=np.full(len(found), self.state.now_ns, np.int64),
                )
            )
        return verdicts

    def save(self) -> None:
        self._saved = to_snapshot(self.state, {}), len(self.journal), len(self.plant)

    def restart(self, now_s: float) -> None:
        held, now_ns = self.state.held, round(now_s * NS_PER_S)
        self.state, after, heard = GateState.of(self.settings), 0, 0
        if self._saved is not None:
            saved, after, heard = self._saved
            restore(self.state, saved)
        self.state.held = held
        for order in self.plant[heard:]:
            self.state.orders.apply(order)
        line, left = Line(now_ns), list[Left]()
        for body in self.journal[after:]:
            left += line.take(body) if isinstance(body, Commands) else line.hear(body)
        for at_ns, commands, sure in [*left, *line.end()]:
            known = know(self.state, self.book, commands.device_no)
            charge_again(self.state, commands, known, at_ns, PARTITIONS, self.settings, sure=sure)
        go_on(self.state, now_ns)


class Court:
    """A hop under the referee's eyes."""

    def __init__(self, limits_: SafetySettings) -> None:
        self.hop = Hop(limits_)
        self.referee = Referee(limits_, list(DEVICES))
        self.verdicts: list[str] = []
        self._epochs: dict[int, int] = {}
        self._held = False
        self.asked = {1: Standing("alice", 1e6), 2: Standing("bob", 1e6)}

    def do(self, deed: str, number: int, now_s: float) -> None:
        """Do something to a device, the plant or an order."""
        now_ns, state = round(now_s * NS_PER_S), self.hop.state
        if deed in ("remove", "return"):
            device = replace(self.referee.devices[number], is_enrolled=deed == "return")
            self.referee.devices[number] = device
            self.hop.book.apply([bearer(device)])
        elif deed == "hold":
            self._held = state.held = True
        elif deed == "lift":
            self._held = False
            rearm(state)
        elif deed == "order" and 3 not in self.asked:
            self.asked[3] = Standing("alice", 7e5)
            self.hop.order(Order(3, "all", 7e5, 0, FOREVER_NS, now_ns, issued_by="alice"))
        elif deed in ("amend", "turn", "extend", "cut", "cancel"):
            order_no = number % len(self.asked) + 1
            self.asked[order_no].change(deed, now_s)
            order = self.asked[order_no]
            if deed == "cancel":
                self.hop.order(Cancel(order_no, now_ns))
            else:
                ends_ns = round(min(order.said_s * NS_PER_S, FOREVER_NS))
                self.hop.order(Amend(order_no, order.target_w, ends_ns, now_ns, order.issuer))

    def move(self, number: int) -> None:
        """Enrol a device elsewhere."""
        device = self.referee.devices[number]
        north = device.zone == "north"
        moved = replace(device, zone="south" if north else "north", feeder="n3" if north else "n1")
        self.referee.devices[number] = moved
        self.hop.book.apply([bearer(moved)])

    def hear(
        self, asked: Commands, now_s: float, latest_s: float, *, fair: bool, said: bool
    ) -> None:
        """Have a block decided. `fair`: each refusal must be justified, too."""
        limits_, referee = self.hop.settings, self.referee
        earlier: list[Told] = []
        for row, rule in enumerate(self.hop.send(asked, now_s, said=said)):
            self.verdicts.append(rule)
            if rule and (rule not in TOGETHER or not fair):
                continue
            one = told(asked, row, latest_s, referee.devices)
            if rule:
                assert referee.may_refuse(rule, one, earlier), (rule, one, referee.sent, earlier)
            else:
                self._judge(one, int(asked.epoch[row]), limits_)
            if rule != gate.RATE:
                earlier.append(one)

    def _judge(self, one: Told, epoch: int, limits_: SafetySettings) -> None:
        referee, partition = self.referee, one.device.number % PARTITIONS
        assert not self._held
        assert referee.breaks(one) == set(), (one, referee.sent)
        assert one.ttl_s <= limits_.valid_s_max
        if one.is_setpoint:
            assert -one.device.down_w <= one.setpoint_w <= one.device.up_w
            assert one.device.is_enrolled
            order = self.asked[one.order_no]
            assert one.at_s < order.ends_s + GRACE_S
            assert abs(order.target_w) <= limits_.operate_above_w
            assert order.turned_w <= limits_.operate_above_w
            self._check_alone(one.order_no, limits_.operate_above_w)
            assert 0 < one.revert_s <= limits_.revert_s_max or one.revert_s == np.inf
        assert epoch >= self._epochs.get(partition, 0)
        self._epochs[partition] = epoch
        referee.sent.append(one)

    def _check_alone(self, order_no: int, above_w: float) -> None:
        """Whose orders have moved anything together ask for no more than one person may."""
        mine = self.asked[order_no]
        mine.has_moved = True
        now_s = self.hop.state.now_ns / NS_PER_S
        sum_w = sum(
            abs(order.target_w)
            for order in self.asked.values()
            if order.issuer == mine.issuer and order.has_moved and order.ends_s > now_s
        )
        assert sum_w <= above_w or mine.ends_s <= now_s


@dataclass
class Standing:
    """An order as a person would tell it."""

    issuer: str
    target_w: float
    ends_s: float = np.inf
    """When it is over; `said_s`: when it would be, had nobody cancelled it."""
    said_s: float = np.inf
    turned_w: float = 0.0
    has_moved: bool = False

    def change(self, deed: str, now_s: float) -> None:
        if deed == "cancel":
            self.ends_s = min(self.ends_s, now_s)
            return
        if self.ends_s != self.said_s:
            return
        was_w = self.target_w
        self.target_w *= {"amend": 0.8, "turn": -1.0}.get(deed, 1.0)
        self.said_s = self.ends_s = {"cut": now_s + 30.0, "extend": np.inf}.get(deed, self.said_s)
        if deed == "turn" and self.ends_s > now_s:
            self.turned_w = max(self.turned_w, abs(was_w - self.target_w))


def play(
    limits_: SafetySettings, stream: list[tuple[float, list[Row]]], mishaps: list[str] | None = None
) -> list[str]:
    """Run a stream through the gate under the referee's eyes; return what became of each row."""
    court, now_s, latest_s, newest = Court(limits_), float(T0_S), 0.0, 5
    whole = True
    for place, (elapsed_s, asked_rows) in enumerate(stream):
        mishap = mishaps[place] if mishaps else ""
        now_s += elapsed_s
        latest_s = max(latest_s, now_s)
        # Some are said again under the same number.
        asked = block(asked_rows, round(latest_s * NS_PER_S), newest, place // 3)
        newest = int(asked.epoch.max())
        if mishap == "move":
            court.move(place % len(DEVICES))
        if mishap in DEEDS:
            court.do(mishap, place % len(DEVICES), latest_s)
        if mishap == "missed":
            court.hop.journal.append(asked)
        else:
            court.hear(asked, now_s, latest_s, fair=whole, said=mishap != "crash")
        # Between two savings the journal does not tell where a device was (docs/safety.md).
        if mishap in ("save", "move", "remove", "return"):
            court.hop.save()
        if mishap in ("restart", "crash", "missed"):
            court.hop.restart(latest_s)
        whole &= mishap not in ("restart", "crash", "missed", "remove", "return")
    return court.verdicts


@given(configured, streams)
@settings(max_examples=100, deadline=None)
def test_no_emitted_stream_breaks_a_limit_and_what_fits_passes(
    limits_: SafetySettings, stream: list[tuple[float, list[Row]]]
) -> None:
    play(limits_, stream)


@given(configured, turbulent)
@settings(max_examples=100, deadline=None)
def test_no_restart_and_no_move_lets_more_through(
    limits_: SafetySettings, stream: list[tuple[tuple[float, list[Row]], str]]
) -> None:
    play(limits_, [each for each, _ in stream], [mishap for _, mishap in stream])


@given(configured, eventful)
@settings(max_examples=150, deadline=None)
def test_nothing_anybody_does_to_orders_devices_and_holds_lets_more_through(
    limits_: SafetySettings, stream: list[tuple[tuple[float, list[Row]], str]]
) -> None:
    play(limits_, [each for each, _ in stream], [deed for _, deed in stream])


@given(
    configured,
    st.lists(st.tuples(pauses, one_each), min_size=4, max_size=10),
    st.integers(0, 9),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_gate_that_said_everything_restarts_as_if_nothing_had_been(
    limits_: SafetySettings, stream: list[tuple[float, list[Row]]], at: int, is_saved: bool
) -> None:
    # What is refused as stale is not said: it never became anything.
    unsaid = ("stale", "usurper", "stranger")
    honest = [(s, [row for row in asked if row.flaw not in unsaid]) for s, asked in stream]
    honest = [(s, asked) for s, asked in honest if asked]
    mishaps = [""] * len(honest)
    whole = play(limits_, honest, mishaps)
    for place in range(min(at, len(honest))):
        mishaps[place] = "save" if is_saved and place % 3 == 0 else "restart"
    assert play(limits_, honest, mishaps) == whole
