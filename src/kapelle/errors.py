"""The few exceptions, each named after what its one handler does."""

from collections.abc import Sequence
from dataclasses import dataclass


class KapelleError(Exception):
    """Everything the project raises on purpose."""


class LinkLost(KapelleError):
    """The connection behind one adapter is gone. `runtime.supervise` reopens it."""

    def __init__(self, adapter: str, reason: str) -> None:
        super().__init__(f"{adapter}: {reason}")
        self.adapter = adapter
        self.reason = reason


class JournalFailed(KapelleError):
    """The disk under the journal cannot be trusted. The process stops acknowledging and exits (74).

    After a failed fsync the next one may report success, so it is never retried.
    """


class JournalFull(KapelleError):
    """No space for new entries. Writers are refused until space returns; readers are served."""


class JournalConflict(KapelleError):
    """Another owner has written since `expected`, or holds the lease. The stale stands down."""


class JournalDamaged(KapelleError):
    """A stored file cannot be read; the message names file, place and what is affected."""


class DataDirectoryHeld(KapelleError):
    """Another process uses the data directory; the message names it. Start-up is refused."""


class HistoryFailed(KapelleError):
    """The long record cannot be written. `app` starts the recorder again; the plant goes on."""


class RegistryUnavailable(KapelleError):
    """The registry's database cannot be reached. The plant goes on with what it knows."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with what a person or a device sent, and how to mend it."""

    where: str
    """Line, row or field, as precise as it can be named: `line 7, nameplate_up_w`."""
    what: str
    remedy: str
    """Empty where `what` says it already."""

    def __str__(self) -> str:
        said = f"{self.where}: {self.what}"
        return f"{said}; {self.remedy}" if self.remedy else said


class Invalid(KapelleError):
    """Input that cannot be used. Nothing of it was kept unless the message says so."""

    def __init__(self, what: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__("\n".join([what, *(f"  {problem}" for problem in problems)]))
        self.what = what
        self.problems = tuple(problems)


class NotFound(KapelleError):
    """A name that nothing here bears."""


class Conflict(KapelleError):
    """The thing has changed since the caller looked at it, or the id was used for another."""


class Unreachable(KapelleError):
    """The plant does not answer, or not to us; the message says where and why."""


class TokenRefused(Unreachable):
    """The plant answers, and does not know the token. Who took it from somewhere says where."""


class Rejected(KapelleError):
    """A rule of safety refused what was asked."""
