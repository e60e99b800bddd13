"""How durable a directory is: what `kapelle doctor` says about the journal's disk."""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from kapelle.runtime.clock import SystemClock

_VOLATILE = {"tmpfs": "memory", "ramfs": "memory", "devtmpfs": "memory"}
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "virtiofs"}
_LAYERED = {"overlay", "overlayfs", "aufs"}
_UNSAFE_OPTIONS = {"nobarrier", "barrier=0", "data=writeback"}
_TRIES = 9
_QUICK_MS = 0.02


@dataclass(frozen=True, slots=True)
class Durability:
    """One sentence on what survives a power cut."""

    ok: bool
    text: str
    fsync_ms: float
    """Median time of a 4 KiB write with fdatasync; NaN where it could not be measured. [ms]"""


def durability(directory: Path) -> Durability:
    """Look at the file system under a directory and time it. The directory need not exist."""
    place = directory.resolve()
    while not place.exists():
        place = place.parent
    point, kind, options = _mount(place)
    try:
        fsync_ms = _fsync_ms(place)
    except OSError as error:
        text = f"{directory} cannot be written ({error.strerror}): no journal can be kept there."
        return Durability(False, text, float("nan"))
    timing = f"a durable write takes {fsync_ms:.2f} ms"
    where = f"{directory} is on {kind} mounted at {point}"
    unsafe = sorted(_UNSAFE_OPTIONS & set(options))
    if kind in _VOLATILE:
        return Durability(False, f"{where}: in memory, gone after a restart; use a disk.", fsync_ms)
    if kind in _LAYERED:
        text = f"{where}: a container layer, gone with the container; mount a volume there."
        return Durability(False, text, fsync_ms)
    if kind in _REMOTE or kind.startswith("fuse"):
        text = (
            f"{where}: locks and fsync of remote file systems cannot be trusted; use a local disk."
        )
        return Durability(False, text, fsync_ms)
    if unsafe:
        text = f"{where} with {', '.join(unsafe)}: a power cut can lose what was acknowledged."
        return Durability(False, text, fsync_ms)
    if fsync_ms < _QUICK_MS:
        text = f"{where}; {timing}, too quick for a disk: something in between may only pretend."
        return Durability(False, text, fsync_ms)
    text = (
        f"{where}; {timing}; what is acknowledged survives a power cut if the disk keeps its word."
    )
    return Durability(True, text, fsync_ms)


def _mount(place: Path) -> tuple[str, str, list[str]]:
    """Return mount point, file system and options of the mount a path is on."""
    best = ("?", "unknown", list[str]())
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return best
    depth = -1
    for line in lines:
        _, point, kind, options, *_ = line.split(" ")
        # Blanks and the like stand there as octal numbers: \\040.
        point = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), point)
        parts = len(Path(point).parts)
        # The later of two mounts on one point hides the earlier.
        if place.is_relative_to(point) and parts >= depth:
            depth, best = parts, (point, kind, options.split(","))
    return best


def _fsync_ms(directory: Path) -> float:
    clock, took_ns = SystemClock(), list[int]()
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(_TRIES):
            started_ns = clock.now_ns()
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
            took_ns.append(clock.now_ns() - started_ns)
    return median(took_ns) / 1e6
