"""No stream of orders, whatever it says and whenever, makes the gate let out what breaks a limit.

A slow, obvious referee judges from the emitted stream alone. It also judges each refusal: it has a
rule, and what fits passes.
"""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.safety.referee import Device, Referee, Told

from kapelle.model.blocks import Commands
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Order
from kapelle.registry.directory import Bearer, Directory
from kapelle.safety import gate
from kapelle.safety.gate import RULES, GateState, check, know
from kapelle.safety.settings import GroupLimit, SafetySettings

T0_S = 1_000_000
PARTITIONS = 2
DEVICES = [
    Device(0, "a", 5000.0, 5000.0, zone="north", feeder="n1", site="s1"),
    Device(1, "b", 5000.0, 0.0, zone="north", feeder="n1", site="s1"),
    Device(2, "c", 0.0, 3000.0, True, zone="north", feeder="n2", site="s2"),
    Device(3, "d", 0.0, 3000.0, True, zone="south", feeder="n3", site="s3"),
    Device(4, "e", 0.0, 2000.0, True, zone="south", feeder="n3", site="s3"),
    Device(5, "f", 4000.0, 4000.0, zone="south", feeder="n3", site="s4"),
]
ISSUERS = {1: "alice", 2: "bob"}


def directory() -> Directory:
    return Directory.build(
        PARTITIONS,
        [
            Bearer(
                d.number, d.name, True, d.up_w, d.down_w,
                kind=DeviceKind.WATER_HEATER if d.switched else DeviceKind.BATTERY,
                site=d.site, feeder=d.feeder, zone=d.zone,
            )
            for d in DEVICES
        ],
    )  # fmt: skip


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
    order_no=st.sampled_from([1, 2]),
    flaw=st.integers(0, 12 * len(FLAWS)).map(lambda n: [*FLAWS][n] if n < len(FLAWS) else ""),
)
one_each = st.lists(rows, min_size=1, max_size=5, unique_by=lambda row: row.device)
blocks = st.tuples(
    st.sampled_from([0.3, 1.1, 4.0, 9.9, 0.0, 31.0, 61.0, 130.0, 900.0, 3599.0, 80_000.0, -7.0]),
    st.one_of(one_each, one_each, one_each, st.lists(rows, min_size=2, max_size=4)),
)
streams = st.lists(blocks, min_size=6, max_size=14)


def block(asked: list[Row], now_ns: int, newest: int) -> Commands:
    """Return commands of an owner whose epoch is `newest`."""
    count = len(asked)
    devices = [DEVICES[row.device] for row in asked]
    made = Commands(
        device_no=np.array([row.device for row in asked], np.int32),
        order_no=np.array([row.order_no for row in asked], np.int32),
        revision=np.ones(count, np.int64),
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


def told(asked: Commands, row: int, now_s: float) -> Told:
    revert_s = float(asked.revert_s[row])
    order_no = int(asked.order_no[row])
    return Told(
        at_s=now_s,
        device=DEVICES[int(asked.device_no[row])],
        setpoint_w=float(asked.setpoint_w[row]),
        revert_s=SafetySettings().revert_s_max if np.isnan(revert_s) else revert_s,
        ttl_s=float(asked.ttl_s[row]),
        issuer=ISSUERS.get(order_no, ""),
    )


TOGETHER = {
    gate.RATE, gate.RATE_DAY, gate.DWELL, gate.SWITCHING, gate.POWER, gate.RAMP, gate.AUTHORITY,
}  # fmt: skip


def play(limits_: SafetySettings, stream: list[tuple[float, list[Row]]]) -> list[str]:
    """Run a stream through the gate under the referee's eyes; return what became of each row."""
    state, book = GateState.of(limits_), directory()
    referee = Referee(limits_, DEVICES)
    for number, issuer in ISSUERS.items():
        state.orders.apply(Order(number, "all", 1e6, 0, 1 << 61, 0, issued_by=issuer))
    now_s, latest_s, verdicts = float(T0_S), 0.0, list[str]()
    epochs, newest = dict[int, int](), 5
    for elapsed_s, asked_rows in stream:
        now_s += elapsed_s
        latest_s = max(latest_s, now_s)
        asked = block(asked_rows, round(latest_s * NS_PER_S), newest)
        newest = int(asked.epoch.max())
        known = know(state, book, asked.device_no)
        broken = check(state, asked, known, round(now_s * NS_PER_S), PARTITIONS, limits_)
        earlier: list[Told] = []
        for row, place in enumerate(broken.tolist()):
            rule = RULES[place]
            verdicts.append(rule)
            device_no = int(asked.device_no[row])
            if rule and rule not in TOGETHER:
                continue
            one = told(asked, row, latest_s)
            if rule:
                assert referee.may_refuse(rule, one, earlier), (rule, one, referee.sent, earlier)
            else:
                assert referee.breaks(one) == set(), (one, referee.sent)
                assert one.ttl_s <= limits_.valid_s_max
                if one.is_setpoint:
                    assert -one.device.down_w <= one.setpoint_w <= one.device.up_w
                    assert one.issuer
                    assert 0 < one.revert_s <= limits_.revert_s_max
                assert asked.epoch[row] >= epochs.get(device_no % PARTITIONS, 0)
                epochs[device_no % PARTITIONS] = int(asked.epoch[row])
                referee.sent.append(one)
            if rule != gate.RATE:
                earlier.append(one)
    return verdicts


@given(configured, streams)
@settings(max_examples=250, deadline=None)
def test_no_emitted_stream_breaks_a_limit_and_what_fits_passes(
    limits_: SafetySettings, stream: list[tuple[float, list[Row]]]
) -> None:
    play(limits_, stream)
