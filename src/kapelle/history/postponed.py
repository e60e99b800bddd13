"""Merges that could not be done, and when each is tried again."""

from collections.abc import Iterable
from dataclasses import dataclass

from kapelle.history.compaction import Job
from kapelle.history.store import Span
from kapelle.model.ids import NS_PER_S

_PAUSE_S = 60.0
_PAUSE_S_MAX = 6 * 3600.0
_HOPELESS_NS = 86_400 * NS_PER_S
"""What fails for a shorter time may be a full disk."""


@dataclass(slots=True)
class _Failed:
    job: Job
    reason: str
    pause_s: float
    since_ns: int
    again_at_ns: int


class Postponed:
    """A file that cannot be read stays so, and a full disk does not: both are tried again, ever
    more seldom. What is to be merged may have grown by then; it is told by what it is of."""

    def __init__(self) -> None:
        self._failed: dict[Span, _Failed] = {}

    def __len__(self) -> int:
        return len(self._failed)

    @property
    def reason(self) -> str:
        """Why the first of them cannot be done; empty without any."""
        return next((failed.reason for failed in self._failed.values()), "")

    def due(self, jobs: Iterable[Job], now_ns: int) -> list[Job]:
        """Return those of all there is to merge that are tried now; forget those that are not
        there any more."""
        found = list(jobs)
        spans = {job.span for job in found}
        self._failed = {span: each for span, each in self._failed.items() if span in spans}
        return [
            job
            for job in found
            if (failed := self._failed.get(job.span)) is None or now_ns >= failed.again_at_ns
        ]

    def failed(self, job: Job, reason: str, now_ns: int) -> None:
        """Try a merge again after twice the pause of the last time, from a minute to six hours."""
        known = self._failed.get(job.span)
        pause_s = _PAUSE_S if known is None else min(2 * known.pause_s, _PAUSE_S_MAX)
        again_at_ns = now_ns + round(pause_s * NS_PER_S)
        since_ns = now_ns if known is None else known.since_ns
        self._failed[job.span] = _Failed(job, reason, pause_s, since_ns, again_at_ns)

    def done(self, job: Job) -> None:
        """Say that a merge was done."""
        self._failed.pop(job.span, None)

    def hopeless(self, now_ns: int) -> set[int]:
        """Return the numbers of the files that have waited in vain for a day and more."""
        return {
            file.file_no
            for failed in self._failed.values()
            if now_ns - failed.since_ns >= _HOPELESS_NS
            for file in failed.job.files
        }
