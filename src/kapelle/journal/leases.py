"""Who may write as the owner of what: the rules of leases. Pure."""

from dataclasses import dataclass, replace

from kapelle.errors import JournalConflict
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Lease


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as stored; it outlives its holder, so that epochs never repeat."""

    holder: str = ""
    epoch: int = 0
    until_ns: int = 0


def step_acquire(held: Held, name: str, holder: str, ttl_s: float, now_ns: int) -> Held:
    """Return the lease in the hands of `holder`, with the next epoch.

    A holder that lost its memory takes its own lease over at once: the epoch fences what it was.
    Epochs are no lower than the time in seconds: devices remember the highest they have heard, and
    would obey nobody who starts again from 1 with an empty journal.

    Raises:
        JournalConflict: Somebody else holds it.
    """
    if held.until_ns > now_ns and held.holder != holder:
        left_s = (held.until_ns - now_ns) / NS_PER_S
        raise JournalConflict(
            f"lease {name} is held by {held.holder} (epoch {held.epoch}) for another {left_s:.1f} s"
        )
    epoch = max(held.epoch + 1, now_ns // NS_PER_S)
    return Held(holder, epoch, now_ns + round(ttl_s * NS_PER_S))


def step_renew(held: Held, lease: Lease, ttl_s: float, now_ns: int) -> Held:
    """Return the lease held for longer; one that expired and nobody took is kept.

    Raises:
        JournalConflict: It was given back, or somebody else took it.
    """
    if (held.holder, held.epoch) != (lease.holder, lease.epoch):
        raise JournalConflict(
            f"lease {lease.name} (epoch {lease.epoch}) was lost to "
            f"{held.holder or 'nobody'} (epoch {held.epoch})"
        )
    return replace(held, until_ns=now_ns + round(ttl_s * NS_PER_S))


def step_release(held: Held, lease: Lease) -> Held:
    """Return the lease free, or unchanged where it is no longer this one."""
    if (held.holder, held.epoch) != (lease.holder, lease.epoch):
        return held
    return replace(held, holder="", until_ns=0)
