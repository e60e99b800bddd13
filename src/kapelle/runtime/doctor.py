"""What this machine lacks to run a plant: findings with a verdict and a remedy, no repairs."""

import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_FILES_ADVISED = 65_536
_FILES_LEAST = 1_024
_MEMORY_ADVISED = 2 << 30
_DISK_ADVISED = 10 << 30
_DISK_LEAST = 1 << 30


class Verdict(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    WARN = "warn"
    """Works, with a limit that is named."""
    BAD = "bad"
    """Unsafe, or will not start."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine(directory: Path, ports: Mapping[str, tuple[str, int]]) -> list[Finding]:
    """Look at the machine as a place for the plant's data and ports.

    Args:
        directory: Of the data; need not exist yet.
        ports: What for -> (host, port) that must be free or ours.
    """
    place = existing(directory)
    return [
        python(),
        open_files(),
        memory(),
        free_disk(place),
        clock(),
        *(port(use, *address) for use, address in ports.items()),
        tool("mosquitto", "compare rates with it, and run the interoperability tests"),
    ]


def existing(directory: Path) -> Path:
    """Return the directory, or the nearest one above it that exists."""
    place = directory.expanduser().absolute()
    return next(path for path in (place, *place.parents) if path.is_dir())


def python() -> Finding:
    """Check the interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.flags.optimize:
        remedy = "run without -O: assertions guard the plant's state"
        return Finding("python", Verdict.BAD, f"{version} with -O", remedy)
    return Finding("python", Verdict.OK, version)


def open_files() -> Finding:
    """Check how many connections the process may hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Python reports "unlimited" as -1.
    most = hard if hard != resource.RLIM_INFINITY else sys.maxsize
    usable = most if soft == resource.RLIM_INFINITY else max(soft, most)
    found = f"{soft:,} open files (up to {usable:,} without root)"
    remedy = "ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit"
    if usable < _FILES_LEAST:
        return Finding("open files", Verdict.BAD, found, remedy)
    verdict = Verdict.OK if usable >= _FILES_ADVISED else Verdict.WARN
    return Finding("open files", verdict, found, "" if verdict is Verdict.OK else remedy)


def memory() -> Finding:
    """Check what memory is left."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration, ValueError):
        return Finding("memory", Verdict.WARN, "cannot be seen here", "leave 2 GiB free")
    found = f"{free / (1 << 30):.1f} GiB available"
    if free < _MEMORY_ADVISED:
        return Finding("memory", Verdict.WARN, found, "leave 2 GiB free for 1M devices")
    return Finding("memory", Verdict.OK, found)


def free_disk(place: Path) -> Finding:
    """Check what space the journal has to grow into."""
    free = shutil.disk_usage(place).free
    found = f"{free / (1 << 30):.1f} GiB free at {place}"
    if free < _DISK_LEAST:
        remedy = "free space or move plant.data_dir: a full disk refuses readings"
        return Finding("free disk", Verdict.BAD, found, remedy)
    if free < _DISK_ADVISED:
        return Finding("free disk", Verdict.WARN, found, "leave 10 GiB for the journal")
    return Finding("free disk", Verdict.OK, found)


def clock() -> Finding:
    """Check whether the wall clock is kept by somebody."""
    for command, wanted in (
        (["timedatectl", "show", "--property=NTPSynchronized", "--value"], "yes"),
        (["chronyc", "-n", "tracking"], "Leap status     : Normal"),
    ):
        answer = _ask(command)
        if answer is not None and wanted in answer:
            return Finding("clock", Verdict.OK, f"synchronised ({command[0]})")
        if answer is not None:
            remedy = "run chrony or systemd-timesyncd: device times are held against this clock"
            return Finding("clock", Verdict.WARN, f"not synchronised ({command[0]})", remedy)
    remedy = "make sure the host keeps NTP time"
    return Finding("clock", Verdict.WARN, "synchronisation cannot be seen from here", remedy)


def port(use: str, host: str, number: int) -> Finding:
    """Check that a port can be listened on."""
    subject = f"port {number}"
    if number == 0:
        return Finding(f"port for {use}", Verdict.OK, "chosen when it starts")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            remedy = f"stop what uses it (a running plant?), or set another port for {use}"
            return Finding(subject, Verdict.WARN, f"{use}: {error.strerror}", remedy)
    return Finding(subject, Verdict.OK, f"free for {use} on {host}")


def tool(name: str, purpose: str) -> Finding:
    """Check for an optional program."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path:
        return Finding(name, Verdict.OK, path)
    return Finding(name, Verdict.OK, "not installed (optional)", f"install it to {purpose}")


def _ask(command: list[str]) -> str | None:
    """Return what a program prints; None where it is missing or fails."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603  # the two commands written above, nothing else
            [program, *command[1:]], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
