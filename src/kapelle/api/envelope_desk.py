"""The desk of envelopes: checks what is asked, writes it to every partition, tells what counts."""

from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite

from kapelle.adapters.http.problems import Fault, Refused
from kapelle.api.desk import WRITER
from kapelle.api.envelope_shapes import (
    EnvelopeAsked,
    EnvelopesTold,
    EnvelopeTold,
    StandingTold,
)
from kapelle.api.times import to_datetime, to_ns
from kapelle.api.watch import Watch
from kapelle.errors import JournalFull
from kapelle.fleet.columns import Fleet
from kapelle.fleet.envelopes import WINDOWS_MAX, Book, StandingCap, Window
from kapelle.model.ids import NS_PER_S, PLANT, partition_topic
from kapelle.model.plant import Envelopes
from kapelle.ports import Clock, Journal

FOREVER_NS = 1 << 62
_SEEN_S = 5.0
_UNKNOWN_TOLD = 20


class EnvelopeDesk:
    """Writes envelopes to every partition's topic, and then to the plant's."""

    def __init__(
        self,
        *,
        journal: Journal,
        watch: Watch,
        clock: Clock,
        standing: Sequence[StandingCap] = (),
        fleets: Callable[[], Mapping[int, Fleet]] = dict,
    ) -> None:
        self._journal = journal
        self._watch = watch
        self._clock = clock
        self._standing = tuple(standing)
        self._fleets = fleets

    async def write(self, asked: EnvelopeAsked, issued_by: str) -> EnvelopesTold:
        """Write limits, or take them away where none is given; return what counts of them now.

        Partitions keep them from then on. A request that failed half-way is sent again: what was
        told last counts, so telling it twice is telling it once.
        """
        body = self._body(asked, issued_by)
        self._check_windows(body)
        view = self._watch.view
        try:
            for partition in range(view.partitions):
                await self._journal.append(partition_topic(partition), [body], writer=WRITER)
            written = await self._journal.append(PLANT, [body], writer=WRITER)
        except JournalFull as error:
            raise Refused(
                507, "journal-full", f"no envelope was set: {error}", headers={"Retry-After": "30"}
            ) from error
        # It is durable, so a view that is late is no error.
        await self._watch.wait_for(lambda now: now.position >= written or None, _SEEN_S)
        told = self.told(asked.level, set(asked.names))
        unknown = self._unknown(asked.level, asked.names)
        return told.model_copy(update={"unknown": unknown})

    def told(self, level: str | None = None, names: set[str] | None = None) -> EnvelopesTold:
        """Return what was told and is not over, and what is configured."""
        now_ns = self._clock.now_ns()
        book = self._watch.view.envelopes
        found = []
        for key, windows in sorted(book.windows.items()):
            of, _, name = key.partition("/")
            if (level is None or of == level) and (names is None or name in names):
                found += [
                    _tell(of, name, window, _counts(windows, place, now_ns))
                    for place, window in enumerate(windows)
                    if window.ends_at_ns > now_ns
                ]
        standing = [
            StandingTold(
                level=cap.level,
                name=cap.name,
                export_limit_w=_known(cap.export_limit_w),
                import_limit_w=_known(cap.import_limit_w),
            )
            for cap in self._standing
            if level is None or cap.level == level
        ]
        return EnvelopesTold(envelopes=found, standing=standing)

    def _body(self, asked: EnvelopeAsked, issued_by: str) -> Envelopes:
        now_ns = self._clock.now_ns()
        starts_at_ns = now_ns if asked.starts_at is None else to_ns(asked.starts_at)
        ends_at_ns = FOREVER_NS
        if asked.ends_at is not None and asked.duration_s is not None:
            raise _refused("/duration_s", "give one of duration_s and ends_at")
        if asked.ends_at is not None:
            ends_at_ns = to_ns(asked.ends_at)
        elif asked.duration_s is not None:
            ends_at_ns = starts_at_ns + int(min(asked.duration_s, 1e9) * NS_PER_S)
        if ends_at_ns <= max(starts_at_ns, now_ns):
            raise _refused("/ends_at", "it ends before it starts, or in the past")
        clears = asked.export_limit_w is None and asked.import_limit_w is None
        if clears and asked.starts_at is None:
            # What was to begin later goes too.
            starts_at_ns = 0
        return Envelopes(
            level=asked.level,
            names=sorted(set(asked.names)),
            export_w=inf if asked.export_limit_w is None else asked.export_limit_w,
            import_w=inf if asked.import_limit_w is None else asked.import_limit_w,
            starts_at_ns=starts_at_ns,
            ends_at_ns=ends_at_ns,
            issued_by=issued_by,
            at_ns=now_ns,
        )

    def _check_windows(self, body: Envelopes) -> None:
        """Refuse what would push earlier windows of a group out."""
        after = Book(windows={k: list(w) for k, w in self._watch.view.envelopes.windows.items()})
        for place, name in enumerate(body.names):
            known = after.windows.get(f"{body.level}/{name}", [])
            if len(known) >= WINDOWS_MAX:
                after.apply(body)
                if len(after.windows.get(f"{body.level}/{name}", [])) >= WINDOWS_MAX:
                    raise _refused(
                        f"/names/{place}",
                        f"{name} has {WINDOWS_MAX} envelopes already: clear what is not needed",
                    )

    def _unknown(self, level: str, names: Sequence[str]) -> list[str]:
        """Return names no device here has: typing errors, or devices that are yet to come."""
        fleets = self._fleets()
        if not fleets:
            return []
        known = {name for fleet in fleets.values() for name in fleet.names[level]}
        return sorted(set(names) - known)[:_UNKNOWN_TOLD]


def _refused(pointer: str, what: str) -> Refused:
    return Refused(422, "envelope-unusable", what, faults=[Fault(pointer, what)])


def _counts(windows: Sequence[Window], place: int, now_ns: int) -> bool:
    """Tell whether it is the latest of those that cover this moment."""
    covers = [n for n, w in enumerate(windows) if w.starts_at_ns <= now_ns < w.ends_at_ns]
    return bool(covers) and covers[-1] == place


def _tell(level: str, name: str, window: Window, in_force: bool) -> EnvelopeTold:
    return EnvelopeTold(
        level=level,
        name=name,
        export_limit_w=_known(window.export_w),
        import_limit_w=_known(window.import_w),
        starts_at=to_datetime(window.starts_at_ns),
        ends_at=to_datetime(window.ends_at_ns) if window.ends_at_ns < FOREVER_NS else None,
        issued_by=window.issued_by,
        issued_at=to_datetime(window.at_ns),
        in_force=in_force,
    )


def _known(power_w: float) -> float | None:
    return power_w if isfinite(power_w) else None
