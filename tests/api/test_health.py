"""The plant says how it is: each reason alone, the worst first, and since when."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest

from kapelle.api.health import Health, Watchman, judge
from kapelle.api.sources import Disk, LinkState, Sources
from kapelle.fleet.plant import PlantView
from kapelle.history.counters import Counters as HistoryCounters
from kapelle.ingest.breaker import Breaker
from kapelle.ingest.settings import IngestSettings
from kapelle.journal.metrics import JournalMetrics, Timings
from kapelle.model.ids import NS_PER_S
from kapelle.model.summaries import Summary

NOW = 1_790_000_000 * NS_PER_S
HOUR_NS = 3_600 * NS_PER_S


@dataclass
class Rows:
    recent: int = 0

    def seen_since(self, since_ns: int) -> int:
        return self.recent


@dataclass
class Follower:
    quarantine: Rows = field(default_factory=Rows)
    trouble: str = ""


def view(*, lag_s: float = 0.5, partitions: int = 2, heard: int = 2) -> PlantView:
    made = PlantView(partitions)
    for k in range(heard):
        at_ns = NOW - int((lag_s if k == 0 else 0.5) * NS_PER_S)
        made.summaries[k] = Summary(k, at_ns, 1, [])
    return made


def found(health: Health) -> dict[str, str]:
    return {reason.code: reason.state for reason in health.reasons}


def muted() -> Breaker:
    breaker = Breaker(IngestSettings(bad_per_minute=1))
    breaker.step(np.zeros(9, np.int32), NOW - 5 * NS_PER_S)
    return breaker


def full() -> JournalMetrics:
    return JournalMetrics(Timings(), 1, 1, 0, 0, 3, 99, 0, {}, 7)


CASES: list[tuple[str, str, Callable[[], Sources]]] = [
    ("adapter-down", "degraded", lambda: Sources(
        links={"mqtt": LinkState(True, 0), "broker": LinkState(False, NOW - HOUR_NS)})),
    ("adapter-down", "failing", lambda: Sources(links={"mqtt": LinkState(False, NOW)})),
    ("adapter-missing", "degraded", lambda: Sources(unserved=lambda: {"ocppp": 3})),
    ("cloud-out", "degraded", lambda: Sources(outages=lambda: {"acme": "/batteries: HTTP 401"})),
    ("disk-low", "failing", lambda: Sources(disk=lambda: Disk(1 << 20, 1 << 40))),
    ("disk-low", "degraded", lambda: Sources(disk=lambda: Disk(1 << 30, 1 << 40))),
    ("clock-set-back", "degraded", lambda: Sources(clock_ahead_s=lambda: 3600.0)),
    ("clock-set-forward", "degraded", lambda: Sources(clock_ahead_s=lambda: -3600.0)),
    ("recorder-stopped", "degraded", lambda: Sources(history=HistoryCounters(reason="no space"))),
    ("ledger-failing", "degraded", lambda: Sources(history=HistoryCounters(ledger_reason="a bug"))),
    ("merges-failing", "degraded", lambda: Sources(history=HistoryCounters(merge_reason="gone"))),
    ("recorder-behind", "degraded", lambda: Sources(
        history=HistoryCounters(oldest_ns=NOW - HOUR_NS))),
    ("devices-muted", "degraded", lambda: Sources(breakers={"mqtt": muted()})),
    ("quarantine-rising", "degraded", lambda: Sources(
        quarantine=cast("object", Follower(Rows(500))))),  # type: ignore[arg-type]  # what is asked
    ("quarantine-stopped", "degraded", lambda: Sources(
        quarantine=cast("object", Follower(trouble="disk")))),  # type: ignore[arg-type]  # is there
    ("journal-full", "failing", lambda: Sources(journal=full)),
    ("snapshot-old", "degraded", lambda: Sources(snapshot_at_ns=lambda: NOW - 9 * HOUR_NS)),
    (
        "backup-old",
        "degraded",
        lambda: Sources(backup_at_ns=lambda: NOW - 3 * HOUR_NS, backup_age_s_max=7200.0),
    ),
    ("backup-old", "degraded", lambda: Sources(backup_at_ns=lambda: None, backup_age_s_max=1.0)),
]  # fmt: skip


@pytest.mark.parametrize(("code", "state", "make"), CASES)
def test_each_reason_alone(code: str, state: str, make: Callable[[], Sources]) -> None:
    health = judge(view(), NOW, make(), [])
    assert found(health) == {code: state}
    assert health.state == state
    (reason,) = health.reasons
    assert reason.text
    assert reason.remedy
    assert len(reason.text) < 120


def test_a_sound_plant_is_ok() -> None:
    sources = Sources(
        links={"mqtt": LinkState(True, 0)},
        disk=lambda: Disk(1 << 39, 1 << 40),
        clock_ahead_s=lambda: -0.2,
        history=HistoryCounters(oldest_ns=NOW - 60 * NS_PER_S),
        snapshot_at_ns=lambda: NOW - HOUR_NS,
        backup_at_ns=lambda: None,
        breakers={"mqtt": Breaker(IngestSettings())},
    )
    assert judge(view(), NOW, sources, []) == Health("ok", (), is_ready=True)


def test_the_plants_own_topic_tells_of_partitions_holds_and_damage() -> None:
    nothing = Sources()
    silent = judge(view(heard=1), NOW, nothing, [])
    assert found(silent) == {"partition-silent": "failing"}
    assert not silent.is_ready
    assert found(judge(view(lag_s=10), NOW, nothing, [])) == {"partition-behind": "degraded"}
    assert found(judge(view(lag_s=60), NOW, nothing, [])) == {"partition-behind": "failing"}
    held = view(lag_s=60)
    held.held, held.hold_reason, held.held_at_ns = True, "storm", NOW - HOUR_NS
    health = judge(held, NOW, nothing, ["p/0 7: checksum"])
    assert list(found(health)) == ["partition-behind", "commands-held", "journal-damaged"]
    assert health.state == "failing"
    assert "storm" in health.reasons[1].text
    assert Watchman().step(health, NOW).reasons[1].since_ns == NOW - HOUR_NS


def test_since_when_is_remembered_until_it_is_over() -> None:
    watchman, sources = Watchman(), Sources(clock_ahead_s=lambda: 3600.0)

    def since(at_ns: int, *, ok: bool = False) -> list[int]:
        told = judge(view(), at_ns, Sources() if ok else sources, [])
        return [reason.since_ns for reason in watchman.step(told, at_ns).reasons if
                reason.code == "clock-set-back"]  # fmt: skip

    assert since(NOW) == since(NOW + NS_PER_S) == [NOW]
    sources.clock_ahead_s = lambda: 1800.0
    assert since(NOW + 2 * NS_PER_S) == [NOW], "another number is the same reason"
    assert since(NOW + 3 * NS_PER_S, ok=True) == []
    assert since(NOW + 4 * NS_PER_S) == [NOW + 4 * NS_PER_S]


def test_flushes_count_as_of_late() -> None:
    watchman = Watchman()
    assert watchman.flush_s(NOW, 100, 50.0) == 0.5, "since the start, at first"
    later_ns = NOW + 60 * NS_PER_S
    assert watchman.flush_s(later_ns, 200, 51.0) == 0.01
    assert np.isnan(watchman.flush_s(later_ns + 400 * NS_PER_S, 205, 60.0)), "too few to tell"
    assert found(judge(view(), NOW, Sources(), [], flush_s=0.3)) == {"journal-slow": "degraded"}
