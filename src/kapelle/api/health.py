"""Says how the plant is, and why: every reason with what to do and since when."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Literal

from kapelle.api.sources import Disk, Sources
from kapelle.fleet.plant import PlantView
from kapelle.model.ids import NS_PER_S
from kapelle.words import counted

State = Literal["ok", "degraded", "failing"]
STATES: tuple[State, ...] = ("ok", "degraded", "failing")

_LAG_S = (5.0, 30.0)
"""A partition that has said nothing for so long is behind, or stands still. [s]"""
_RECORDER_LAG_S = 900.0
_SNAPSHOT_AGE_S = 6 * 3_600.0
_BACKUP_AGE_S = 8 * 86_400.0
_CLOCK_S = 1.0
_FLUSH_S = 0.25
"""Flushes that take longer on average slow down everything. [s]"""
_FLUSHES_NS = 180 * NS_PER_S
"""How far back the average goes."""
_QUARANTINE_S = 300.0
_QUARANTINE_ROWS = 100
_FREE: tuple[tuple[State, float, int], ...] = (
    ("failing", 0.02, 256 << 20),
    ("degraded", 0.10, 2 << 30),
)
"""With less free than both this share and so many bytes."""
_FLUSHES_MIN = 10


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is not as it should be."""

    code: str
    state: State
    """How bad it is alone: degraded or failing."""
    text: str
    remedy: str
    since_ns: int = 0
    """0: now."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the process is."""

    state: State = "ok"
    reasons: tuple[Reason, ...] = ()
    """The worst first."""
    is_ready: bool = True
    """Whether requests are answered from the whole picture."""


def judge(
    view: PlantView,
    now_ns: int,
    sources: Sources,
    damage: Sequence[str],
    flush_s: float = nan,
) -> Health:
    """Return how the plant is at this moment, from what this process knows.

    Args:
        view: The plant.
        now_ns: The time.
        sources: What else this process knows.
        damage: What was found damaged in the journal.
        flush_s: How long flushes took lately, on average; NaN where there were few. [s]
    """
    reasons = [
        *_partitions(view, now_ns),
        *_journal(sources, damage, now_ns, flush_s),
        *_links(sources),
        *_record(sources, now_ns),
        *_unusable(sources, now_ns),
    ]
    if view.held:
        why = f": {view.hold_reason}" if view.hold_reason else ""
        reasons.append(
            Reason(
                "commands-held",
                "degraded",
                f"every command is held{why}",
                "kapelle release",
                view.held_at_ns,
            )
        )
    reasons.sort(key=lambda r: (-STATES.index(r.state), r.code))
    worst = reasons[0].state if reasons else "ok"
    return Health(worst, tuple(reasons), len(view.summaries) >= view.partitions)


@dataclass(slots=True)
class Watchman:
    """Remembers since when each reason holds, and how long flushes took lately."""

    since_ns: dict[str, int] = field(default_factory=dict)
    flushes: deque[tuple[int, int, float]] = field(default_factory=lambda: deque(maxlen=256))
    """Moment, flushes so far, time they took so far. [UTC ns, 1, s]"""

    def flush_s(self, now_ns: int, count: int, sum_s: float) -> float:
        """Return how long flushes took in the last minutes, on average; NaN for too few. [s]"""
        self.flushes.append((now_ns, count, sum_s))
        while len(self.flushes) > 2 and self.flushes[1][0] <= now_ns - _FLUSHES_NS:
            self.flushes.popleft()
        _, count_then, sum_then_s = self.flushes[0] if len(self.flushes) > 1 else (0, 0, 0.0)
        flushes = count - count_then
        return (sum_s - sum_then_s) / flushes if flushes >= _FLUSHES_MIN else nan

    def step(self, health: Health, now_ns: int) -> Health:
        """Return the same with the moment each reason was first found."""
        keys = {_key(reason) for reason in health.reasons}
        self.since_ns = {key: at for key, at in self.since_ns.items() if key in keys}
        told = []
        for reason in health.reasons:
            found_ns = self.since_ns.setdefault(_key(reason), reason.since_ns or now_ns)
            told.append(Reason(reason.code, reason.state, reason.text, reason.remedy, found_ns))
        return Health(health.state, tuple(told), health.is_ready)


def _key(reason: Reason) -> str:
    # The text counts: one partition's lag is not another's. Numbers in it do not.
    words = "".join(letter for letter in reason.text if not letter.isdigit())
    return f"{reason.code} {words}"


def _partitions(view: PlantView, now_ns: int) -> Iterator[Reason]:
    silent = [k for k in range(view.partitions) if k not in view.summaries]
    if silent:
        yield Reason(
            "partition-silent",
            "failing",
            f"{_some('partition', silent)} not heard yet: the picture is not whole",
            "wait for the start to end; if it lasts, look into the log for its owner",
        )
    lags_s = {k: (now_ns - s.tick_ns) / NS_PER_S for k, s in view.summaries.items()}
    behind = sorted(k for k, lag_s in lags_s.items() if lag_s > _LAG_S[0])
    if behind:
        worst_s = max(lags_s[k] for k in behind)
        yield Reason(
            "partition-behind",
            "failing" if worst_s > _LAG_S[1] else "degraded",
            f"{_some('partition', behind)} behind by up to {worst_s:.0f} s",
            "look for a busy processor or a slow disk; the log names an owner that stopped",
            min(view.summaries[k].tick_ns for k in behind),
        )


def _journal(
    sources: Sources, damage: Sequence[str], now_ns: int, flush_s: float
) -> Iterator[Reason]:
    if damage:
        yield Reason(
            "journal-damaged",
            "degraded",
            f"{len(damage)} places in the journal are damaged, first: {damage[0]}",
            "check the disk; compare with a backup: kapelle verify",
        )
    told = sources.journal() if sources.journal is not None else None
    # A plant may be set up without a reserve.
    if told is not None and told.reserve_bytes == 0 and told.free_bytes < _FREE[0][2]:
        yield Reason(
            "journal-full",
            "failing",
            "no space for the journal: readings are refused, reading and holding still work",
            "free space; it resumes by itself",
        )
    if flush_s > _FLUSH_S:
        yield Reason(
            "journal-slow",
            "degraded",
            f"a flush took {flush_s * 1e3:.0f} ms on average in the last minutes",
            "give the journal a disk of its own: kapelle doctor measures one",
        )
    if sources.disk is not None:
        yield from _space(sources.disk())
    ahead_s = sources.clock_ahead_s() if sources.clock_ahead_s is not None else 0.0
    if ahead_s > _CLOCK_S:
        yield Reason(
            "clock-set-back",
            "degraded",
            f"the host's clock is {ahead_s:.0f} s behind the plant's time, which never goes back",
            "set the clock right; while no order runs the plant approaches it by 3 min an hour",
        )
    if ahead_s < -_CLOCK_S:
        yield Reason(
            "clock-set-forward",
            "degraded",
            f"the host's clock was set {-ahead_s:.0f} s ahead of the plant's time",
            "see that the clock is right; the plant follows it five minutes after the last order",
        )
    if sources.snapshot_at_ns is not None:
        at_ns = sources.snapshot_at_ns()
        if at_ns is not None and now_ns - at_ns > _SNAPSHOT_AGE_S * NS_PER_S:
            yield Reason(
                "snapshot-old",
                "degraded",
                f"a snapshot is {_long((now_ns - at_ns) / NS_PER_S)} old: a start takes longer",
                "look into the log for why none was saved; free space if the disk is full",
                at_ns,
            )
    if sources.backup_at_ns is not None and sources.backup_age_s_max:
        yield from _backup(sources.backup_at_ns(), sources.backup_age_s_max, now_ns)


def _backup(at_ns: int | None, age_s_max: float, now_ns: int) -> Iterator[Reason]:
    if at_ns is None:
        yield Reason("backup-old", "degraded", "no backup was made yet", "kapelle backup")
    elif now_ns - at_ns > age_s_max * NS_PER_S:
        age = _long((now_ns - at_ns) / NS_PER_S)
        text = f"the newest backup is {age} old, more than [plant] backup_age_s_max"
        yield Reason("backup-old", "degraded", text, "kapelle backup", at_ns)


def _space(disk: Disk) -> Iterator[Reason]:
    for state, share, free in _FREE:
        if disk.free < share * disk.total and disk.free < free:
            yield Reason(
                "disk-low",
                state,
                f"{disk.free / 1e9:.1f} GB free under the data directory",
                "free space, or shorten [history] retention; a full journal refuses readings",
            )
            return


def _links(sources: Sources) -> Iterator[Reason]:
    down = sorted(name for name, link in sources.links.items() if not link.is_open)
    if down:
        every = all(not link.is_open for link in sources.links.values())
        yield Reason(
            "adapter-down",
            "failing" if every else "degraded",
            f"not connected: {', '.join(down)}",
            "the log says why; it is tried again by itself",
            min(sources.links[name].since_ns for name in down),
        )
    outages = sources.outages() if sources.outages is not None else {}
    for name, why in sorted(outages.items()):
        yield Reason(
            "cloud-out",
            "degraded",
            f"the cloud {name} does not answer, and its devices are unreachable: {why}",
            "look at its base_url and credentials, or ask the vendor; it is tried again by itself",
        )
    unserved = sources.unserved() if sources.unserved is not None else {}
    for name, count in sorted(unserved.items()):
        yield Reason(
            "adapter-missing",
            "degraded",
            f"{counted(count, 'device')} under the adapter {name}, which this plant does not have",
            "add it to the configuration, or mend their adapter: kapelle devices import",
        )


def _record(sources: Sources, now_ns: int) -> Iterator[Reason]:
    history = sources.history
    if history is None:
        return
    if history.reason:
        yield Reason(
            "recorder-stopped",
            "degraded",
            f"the history is not written: {history.reason}",
            "mend its disk; the journal keeps for it what it has not taken over",
        )
    if history.ledger_reason:
        yield Reason(
            "ledger-failing",
            "degraded",
            f"the energy ledger stands still: {history.ledger_reason}",
            "kapelle verify finds damaged files; readings are kept, and it is tried again",
        )
    if history.merge_reason:
        yield Reason(
            "merges-failing",
            "degraded",
            f"{history.unmerged} merges of the history wait: {history.merge_reason}",
            "kapelle verify finds damaged files, a backup may have them; it is tried again",
        )
    lag_s = history.lag_s(now_ns)
    if lag_s > _RECORDER_LAG_S:
        yield Reason(
            "recorder-behind",
            "degraded",
            f"the history is {_long(lag_s)} behind",
            "look for a slow disk; until it has caught up the journal grows",
            history.oldest_ns,
        )


def _unusable(sources: Sources, now_ns: int) -> Iterator[Reason]:
    muted = [mute for b in sources.breakers.values() for mute in b.muted(now_ns)]
    if muted:
        rows = sum(mute.not_kept for mute in muted)
        yield Reason(
            "devices-muted",
            "degraded",
            f"{len(muted)} muted for sending rubbish; {rows:,} rows were counted only",
            "kapelle dlq muted names them; mend them as kapelle dlq ls says",
            min(mute.since_ns for mute in muted),
        )
    if sources.quarantine is None:
        return
    if sources.quarantine.trouble:
        yield Reason(
            "quarantine-stopped",
            "degraded",
            f"the quarantine is not kept: {sources.quarantine.trouble}",
            "mend its disk; the journal keeps for it what it has not taken over",
        )
    rows = sources.quarantine.quarantine.seen_since(now_ns - int(_QUARANTINE_S * NS_PER_S))
    if rows >= _QUARANTINE_ROWS:
        yield Reason(
            "quarantine-rising",
            "degraded",
            f"{rows:,} rows could not be used in the last five minutes",
            "kapelle dlq counts names reasons and sources",
        )


def _some(noun: str, numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:8])
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"{noun}{'s' if len(numbers) > 1 else ''} {shown}{more}"


def _long(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
