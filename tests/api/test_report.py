"""An order's report says what the record holds: no more, no less, and the same wherever it is read.

The slow version goes through the rows one by one, as somebody who doubts the report would.
"""

import asyncio
import tempfile
from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.api.record_worlds import make_record, ns, rows_of, serving
from tests.history.conftest import HastyFiles

from kapelle.api.report import make_report
from kapelle.api.report_shapes import IntervalJudgedTold, ReportTold, RolledTold
from kapelle.api.times import to_datetime
from kapelle.cli.report_page import page
from kapelle.cli.report_words import said
from kapelle.errors import NotFound
from kapelle.history.evidence import GONE, evidence
from kapelle.history.reader import Reader
from kapelle.history.store import Rows, Store
from kapelle.history.tables import QUARTER_NS
from kapelle.model.entries import Body
from kapelle.model.enums import AckStatus, OrderStatus, Phase
from kapelle.model.ids import NS_PER_S
from kapelle.model.orders import Amend, Cancel, Hold, Order, Plan
from kapelle.model.plant import Notice

START_NS = ns("2025-03-30T10:00:00+00:00")
MINUTE_NS = 60 * NS_PER_S
END_NS = START_NS + 40 * MINUTE_NS
SAID = {
    AckStatus.RECEIVED: Phase.RECEIVED, AckStatus.ACCEPTED: Phase.ACCEPTED,
    AckStatus.APPLIED: Phase.APPLIED, AckStatus.COMPLETED: Phase.COMPLETED,
    AckStatus.REJECTED: Phase.REJECTED, AckStatus.OPTED_OUT: Phase.OPTED_OUT,
    AckStatus.EXPIRED: Phase.EXPIRED,
}  # fmt: skip
Row = dict[str, object]


def order(number: int = 1, target_w: float = 1_000.0) -> Order:
    return Order(number, "all", target_w, START_NS, END_NS, START_NS - NS_PER_S, issued_by="ada")


def plan(at_ns: int, status: OrderStatus, committed_w: float, declined_w: float = 0.0) -> Plan:
    reason = "headroom" if declined_w else ""
    return Plan(1, at_ns, 1, status, 800.0, committed_w, declined_w, reason)


def events(bodies: list[tuple[int, str, Body]]) -> Rows:
    """Return rows of `events`: what was said, in its order."""
    made: list[Row] = []
    for position, (at_ns, kind, body) in enumerate(bodies):
        code = {"hold": "held"}.get(kind, getattr(body, "code", ""))
        if isinstance(body, Hold) and not body.held:
            code = "released"
        number = getattr(body, "order_no", None)
        text = msgspec.json.encode(body).decode()
        told: Row = {"at_ns": at_ns, "written_at_ns": at_ns, "position": position, "kind": kind}
        made.append(told | {"code": code, "order_no": number, "body": text})
    return rows_of("events", made)


def record(directory: Path, rows: list[Rows]) -> None:
    store = Store(directory, files=HastyFiles())
    store.commit(rows, now_ns=END_NS)
    store.close()


def report(directory: Path, order_no: int = 1) -> ReportTold:
    reader = Reader(directory)
    try:
        return make_report(evidence(reader, order_no))
    finally:
        reader.close()


seconds = st.integers(0, 2_000)
# Few of each: what is told twice must count once.
devices = st.integers(0, 2)
revisions = st.integers(1, 2)
commands = st.dictionaries(
    st.tuples(devices, revisions),
    st.tuples(seconds, st.integers(1, 2), st.sampled_from([-500.0, 0.0, 700.0, 900.0])),
    min_size=1,
    max_size=12,
)
phases = st.lists(
    st.tuples(devices, revisions, st.sampled_from([Phase.SENT, Phase.VERIFIED, *GONE]), seconds),
    max_size=25,
)
acks = st.lists(st.tuples(devices, revisions, st.sampled_from(AckStatus), seconds), max_size=25)


@given(commands, phases, acks)
@settings(max_examples=15, deadline=None)
def test_the_funnel_counts_what_the_tables_hold(commands, phases, acks) -> None:
    entered: dict[tuple[int, int, Phase], int] = {}
    own = {key for key, (_, number, _) in commands.items() if number == 1}
    told = [(d, r, p, at) for d, r, p, at in phases]
    told += [(d, r, SAID[status], at) for d, r, status, at in acks]
    told += [(*key, Phase.PLANNED, commands[key][0]) for key in own]
    for device, revision, phase, at in told:
        if (device, revision) in own:
            key = device, revision, phase
            entered[key] = min(entered.get(key, at), at)
    with tempfile.TemporaryDirectory() as name:
        record(Path(name), _world(commands, phases, acks))
        found = report(Path(name))

    by_phase = defaultdict(list)
    for (device, revision, phase), at in entered.items():
        by_phase[phase.name.lower()].append((device, revision, at))
    for stage in found.funnel:
        rows = by_phase[stage.stage]
        assert stage.commands == len(rows)
        assert stage.devices == len({device for device, _, _ in rows})
        if rows:
            assert stage.first_at == to_datetime(START_NS + min(r[2] for r in rows) * NS_PER_S)
            assert stage.last_at == to_datetime(START_NS + max(r[2] for r in rows) * NS_PER_S)
        after = [
            at - entered[device, revision, Phase.SENT]
            for device, revision, at in rows
            if (device, revision, Phase.SENT) in entered
        ]
        if stage.stage not in ("planned", "sent") and after:
            assert stage.p50_s == pytest.approx(np.quantile(after, 0.5))
            assert stage.p95_s == pytest.approx(np.quantile(after, 0.95))
    shown = {stage.stage for stage in found.funnel}
    assert shown >= set(by_phase), "nothing that was recorded is left out"

    gone: dict[int, int] = {}
    for (device, _, phase), at in entered.items():
        if phase in GONE:
            gone[device] = min(gone.get(device, at), at)
    assert found.replaced.gone == len(gone)
    assert sum(found.replaced.by_cause.values()) == len(gone)
    back = {
        device
        for (device, _, phase), at in entered.items()
        if phase in (Phase.APPLIED, Phase.VERIFIED) and device in gone and at > gone[device]
    }
    assert found.replaced.back == len(back)
    first = {d: min(c[0] for k, c in commands.items() if k in own and k[0] == d) for d, _ in own}
    joined = [d for d, at in first.items() if gone and at > min(gone.values())]
    assert found.replaced.joined == len(joined)


def _world(commands, phases, acks) -> list[Rows]:
    asked = [
        {"device_no": d, "order_no": number, "revision": r, "epoch": 1, "attempt": 1,
         "setpoint_w": watts, "issued_at_ns": START_NS + at * NS_PER_S, "not_after_ns": END_NS,
         "ttl_s": 60.0, "revert_s": 60.0}
        for (d, r), (at, number, watts) in commands.items()
    ]  # fmt: skip
    entered = [
        {"device_no": d, "revision": r, "phase": p, "at_ns": START_NS + at * NS_PER_S}
        for d, r, p, at in phases
    ]
    said = [
        {"device_no": d, "revision": r, "epoch": 1, "status": s, "reason": "",
         "at_ns": START_NS + at * NS_PER_S}
        for d, r, s, at in acks
    ]  # fmt: skip
    told = events([(START_NS - NS_PER_S, "order", order())])
    tables = (("commands", asked), ("phases", entered), ("acks", said))
    return [told, *(rows_of(name, rows) for name, rows in tables if rows)]


AMENDED_NS = START_NS + 15 * MINUTE_NS
CANCELLED_NS = START_NS + 35 * MINUTE_NS


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record 1.8 kW for three days, of which an order wanted 1 kW above 0.8 kW for a while."""
    directory = tmp_path_factory.mktemp("eventful")
    make_record(directory)
    active = OrderStatus.ACTIVE
    short_ns, held_ns = START_NS + 20 * MINUTE_NS, START_NS + 21 * MINUTE_NS
    text = "order 1 misses 150 W of 900 W: <script>vendor</script>"
    told: list[tuple[int, str, Body]] = [
        (START_NS - NS_PER_S, "order", order()),
        (START_NS, "plan", plan(START_NS, active, 1_000.0)),
        (AMENDED_NS, "amend", Amend(1, 1_200.0, END_NS, AMENDED_NS, "bob")),
        (AMENDED_NS, "plan", plan(AMENDED_NS, active, 900.0, 300.0)),
        (short_ns, "notice", Notice(short_ns, "shortfall", text, 1, 150.0)),
        (held_ns, "hold", Hold(True, held_ns, "drill", "ada")),
        (held_ns + MINUTE_NS, "hold", Hold(False, held_ns + MINUTE_NS, "", "ada")),
        (CANCELLED_NS, "cancel", Cancel(1, CANCELLED_NS, "eve")),
        (CANCELLED_NS + 1, "plan", plan(CANCELLED_NS + 1, OrderStatus.CANCELLED, 900.0, 300.0)),
    ]
    said: list[Row] = [
        {"resource": "all", "at_ns": at, "computed_at_ns": at, "complete": True, "devices": 2,
         "power_w": power_w(at), "low_w": 1_700.0, "high_w": 1_900.0, "measured_share": 0.5}
        for at in range(START_NS + NS_PER_S, END_NS, 10 * NS_PER_S)
    ]  # fmt: skip
    record(directory, [events(told), rows_of("aggregates", said)])
    return directory


def power_w(at_ns: int) -> float:
    """Return what the plant said: for a minute it was 500 W less."""
    is_low = START_NS + 25 * MINUTE_NS <= at_ns < START_NS + 26 * MINUTE_NS
    return 1_300.0 if is_low else 1_800.0


def test_everything_said_of_an_order_is_told(eventful: Path) -> None:
    told = report(eventful)
    assert (told.issued_by, told.status, told.is_over, told.is_complete) == (
        "ada", "cancelled", True, True,
    )  # fmt: skip
    assert [(each.target_w, each.issued_by) for each in told.amends] == [(1_200.0, "bob")]
    assert told.cancelled is not None
    assert told.cancelled.issued_by == "eve"
    assert [p.declined_w for p in told.plans] == [0.0, 300.0, 300.0]
    assert told.plans[1].reason == "headroom"
    assert [each.code for each in told.occurred] == ["shortfall", "held", "released"]
    assert (told.shortfalls, told.occurred[0].power_w) == (1, 150.0)
    assert told.judged.verdict == "cancelled"


def test_energy_is_what_the_ledger_holds_over_whole_quarter_hours(eventful: Path) -> None:
    told, reader = report(eventful).energy, Reader(eventful)
    sums = reader.energy_sums("all", START_NS, START_NS + 2 * QUARTER_NS).to_pylist()
    reader.close()
    signed = [row["mwh"] * (1 if row["register"] == 0 else -1) for row in sums]
    baseline_mwh = 800 * 30 * 60 * 1_000 // 3_600
    assert told.ledger_mwh == sum(signed) - baseline_mwh == 500_000
    assert told.ledger_asked_mwh == 250_000 + 300_000
    assert [quarter.known for quarter in told.quarters] == [2, 2]
    assert told.asked_mwh == round((1_000 * 15 + 1_200 * 20) / 60 * 1_000)
    assert told.promised_mwh == round((1_000 * 15 + 900 * 20) / 60 * 1_000)
    # What the plant said for a while was wrong: the readings know better.
    assert told.corrected_mwh == round(1_000 * 35 / 60 * 1_000)


def test_published_power_adds_up_tick_by_tick(eventful: Path) -> None:
    told = report(eventful)
    half_past_ns = START_NS + 30 * MINUTE_NS
    every_ns = range(START_NS + NS_PER_S, CANCELLED_NS, 10 * NS_PER_S)
    # The other record said 1 kW at each half hour.
    power = {at: power_w(at) for at in every_ns} | {START_NS: 1_000.0, half_past_ns: 1_000.0}
    ticks = sorted(power)
    joules = 0.0
    for at, after in zip(ticks, [*ticks[1:], CANCELLED_NS], strict=True):
        joules += (power[at] - 800.0) * (after - at) / NS_PER_S
    assert told.energy.published_mwh == round(joules / 3.6)
    assert told.energy.published_s == 35 * 60
    assert told.worst is not None
    # Of 1,200 W there were 1,000, and in one of the five minutes 500.
    assert told.worst.missing_w == pytest.approx((4 * 200 + 700) / 5, rel=0.1)
    low_ns = START_NS + 25 * MINUTE_NS
    assert ns(told.worst.starts_at.isoformat()) <= low_ns + 10 * NS_PER_S
    assert low_ns + MINUTE_NS <= ns(told.worst.ends_at.isoformat()) + 10 * NS_PER_S
    assert 200 < len(told.points) <= 300


@pytest.mark.parametrize(
    ("delivered_w", "committed_w", "verdict"),
    [
        (1_000.0, 1_000.0, "delivered"),
        (985.0, 1_000.0, "delivered"),
        (970.0, 1_000.0, "fell-short"),
        (1_030.0, 1_000.0, "fell-short"),
        (700.0, 700.0, "promise-kept"),
        (None, 1_000.0, "unknown"),
    ],
)
def test_the_verdict_is_about_what_was_asked(
    tmp_path: Path, delivered_w: float | None, committed_w: float, verdict: str
) -> None:
    told: list[tuple[int, str, Body]] = [
        (START_NS - NS_PER_S, "order", order()),
        (START_NS, "plan", plan(START_NS, OrderStatus.ACTIVE, committed_w, 1_000 - committed_w)),
        (END_NS, "plan", plan(END_NS, OrderStatus.COMPLETED, committed_w, 1_000 - committed_w)),
    ]
    rows = [events(told)]
    if delivered_w is not None:
        rows.append(_steady(delivered_w))
    record(tmp_path, rows)
    found = report(tmp_path)
    assert found.judged.verdict == verdict
    assert found.judged.settle_s == 60.0
    assert found.energy.ledger_mwh is None


def _steady(delivered_w: float, others_w: float | None = None) -> Rows:
    said: list[Row] = []
    for at in range(START_NS, END_NS, 10 * NS_PER_S):
        # Devices need a moment: nothing of the first minute is judged.
        watts = 800.0 + (0.0 if at < START_NS + MINUTE_NS else delivered_w)
        times: Row = {"at_ns": at, "computed_at_ns": at, "others_w": others_w}
        watts += others_w or 0.0
        said.append({**times, "resource": "all", "complete": True, "power_w": watts})
    return rows_of("aggregates", said)


@pytest.mark.parametrize("others_w", [500.0, -300.0])
def test_what_devices_did_for_others_is_neither_credited_nor_debited(
    tmp_path: Path, others_w: float
) -> None:
    """In no account: the judgement, the published, the corrected, and the ledger's energy."""
    told: list[tuple[int, str, Body]] = [
        (START_NS - NS_PER_S, "order", order()),
        (START_NS, "plan", plan(START_NS, OrderStatus.ACTIVE, 1_000.0, 0.0)),
        (END_NS, "plan", plan(END_NS, OrderStatus.COMPLETED, 1_000.0, 0.0)),
    ]
    found = {}
    for name, watts in (("alone", None), ("beside", others_w)):
        make_record(tmp_path / name)
        record(tmp_path / name, [events(told), _steady(1_000.0, watts)])
        found[name] = report(tmp_path / name)
    alone, beside = found["alone"], found["beside"]
    assert beside.judged.verdict == alone.judged.verdict == "delivered"
    assert beside.judged.delivered_w == pytest.approx(1_000.0, rel=0.005)
    assert beside.energy.published_mwh == pytest.approx(alone.energy.published_mwh, rel=0.005)
    seconds = alone.energy.corrected_s
    assert alone.energy.corrected_mwh is not None
    assert beside.energy.corrected_mwh == pytest.approx(
        alone.energy.corrected_mwh - others_w * seconds / 3.6, rel=0.01
    )
    for quarter, was in zip(beside.energy.quarters, alone.energy.quarters, strict=True):
        assert quarter.net_mwh == was.net_mwh
        # At each half hour the other record said for ten seconds that there was nothing.
        assert quarter.others_mwh == pytest.approx(others_w * 900 / 3.6, rel=0.02)
        assert was.delivered_mwh is not None
        assert quarter.delivered_mwh == was.delivered_mwh - quarter.others_mwh


def test_an_order_nobody_knows_is_refused_with_a_remedy(eventful: Path) -> None:
    with pytest.raises(NotFound, match="order 9; kapelle order ls"):
        report(eventful, 9)


def test_the_api_tells_the_same(eventful: Path, tmp_path: Path) -> None:
    async def ask() -> None:
        async with serving(eventful) as http:
            answer = await http.get("/v1/orders/1/report")
            assert ReportTold.model_validate_json(answer.content) == report(eventful)
            missing = await http.get("/v1/orders/9/report")
            assert missing.status_code == 404
            assert "kapelle order ls" in missing.json()["detail"]
        async with serving(None) as http:
            assert (await http.get("/v1/orders/1/report")).status_code == 503

    asyncio.run(ask())


def test_the_page_needs_nothing_else_and_runs_nothing(eventful: Path) -> None:
    text = page(report(eventful))
    assert "<svg" in text
    assert "&lt;script&gt;vendor" in text
    for foreign in ("<script", "<link", "<img", "http:", "https:", "url(", "@import"):
        assert foreign not in text


def test_an_order_in_stages_tells_each_of_them_and_its_plan_once(eventful: Path) -> None:
    told = report(eventful)
    first = told.plans[0]
    stages = [
        RolledTold(at=told.starts_at, share=0.01, asked=1_283, verified=1_280, failed=3),
        RolledTold(at=told.ends_at, share=1.0, asked=0, verified=0, failed=0),
    ]
    last = first.model_copy(update={"stages": stages})
    rows = said(told.model_copy(update={"plans": [first, first, last]}))
    found = [(row["what"], row["text"]) for row in rows if row["what"] in ("plan", "stage")]
    assert [what for what, _ in found].count("plan") == 1
    assert ("stage", "1 % of its devices: 1,283 asked, 1,280 verified, 3 failed") in found
    assert found[-1] == ("stage", "100 % of its devices")


def test_the_page_has_a_row_for_each_interval(eventful: Path) -> None:
    told = report(eventful)
    each = IntervalJudgedTold(
        starts_at=told.starts_at,
        ends_at=told.ends_at,
        asked_mwh=250_000,
        promised_mwh=250_000,
        published_mwh=125_000,
        judged=told.judged.model_copy(update={"verdict": "fell-short", "delivered_w": 500.0}),
    )
    assert "<h2>Intervals</h2>" not in page(told)
    text = page(told.model_copy(update={"intervals": [each, each]}))
    rows = text.partition("<h2>Intervals</h2>")[2].partition("</table>")[0]
    assert rows.count("▲ fell short") == 2
    for text in ("500 W", "125.0 Wh", "250.0 Wh"):
        assert rows.count(text) == 2
