"""What the system allows this process, raised as far as it goes; and memory given back to it."""

import ctypes
import resource

SPARE = 128
"""Files, pipes and sockets besides the devices' connections."""


def allow_files(count: int | None = None) -> int:
    """Raise the limit of open files and return what it is now.

    Args:
        count: Connections to be held, to which a reserve is added; None: as many as possible.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 1 << 20
    wanted = most if count is None else min(most, count + SPARE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft if soft != resource.RLIM_INFINITY else most


def give_back_memory() -> bool:
    """Return memory that was freed to the system, where its C library can (glibc); else do nothing.

    After a large restore it would stay with the process for ever: an eighth of it all.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    trim(0)
    return True
