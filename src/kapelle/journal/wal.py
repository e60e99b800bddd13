"""SQLite's write-ahead log after a crash: was its end torn, or was something acknowledged lost?

SQLite reads a log up to the first frame whose checksum is wrong and drops the rest in silence. A
power cut leaves such a frame at the end, in the transaction that was being written and that nobody
was told of. With an fsync per transaction the next one begins only after it; so frames *beyond*
the transaction that was dropped first prove that it had been durable, and is damaged now.

Source: SQLite, "Database File Format", section 4 (The Write-Ahead Log).
"""

import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct(">IIIIIIII")
"""Mark · version · page size · checkpoint number · salt 1 · salt 2 · checksum (2)."""
_FRAME = struct.Struct(">IIII")
"""Page number · pages of the database after a commit, else 0 · salt 1 · salt 2."""
_FRAME_BYTES = 24
_FRAMES_MAX = 4_000_000


@dataclass(frozen=True, slots=True)
class LeftLog:
    """What a log holds by its frames' own words, before SQLite looks at it."""

    frames: tuple[bool, ...]
    """For each frame of the newest generation, from the first on, whether it ends a transaction."""


def scan(path: Path, page_size: int) -> LeftLog:
    """Read the frame headers of a log that was left behind; none where there is no log."""
    frames: list[tuple[int, int, int]] = []
    if page_size >= 512 and path.exists():
        with path.open("rb") as file:
            file.seek(_HEADER.size)
            while len(frames) < _FRAMES_MAX:
                head = file.read(_FRAME_BYTES)
                if len(head) < _FRAME_BYTES:
                    break
                _, commit, salt1, salt2 = _FRAME.unpack_from(head)
                frames.append((commit, salt1, salt2))
                file.seek(page_size, 1)
    return LeftLog(_newest(frames, _salts(path, frames)))


def lost(log: LeftLog, accepted: int) -> int:
    """Return how many transactions were durable and are unreadable, at least.

    Args:
        log: The log as it was before it was opened.
        accepted: Frames that SQLite took from it.
    """
    left = log.frames[accepted:]
    if True not in left:
        return 0
    beyond = left[left.index(True) + 1 :]
    # Whatever follows the first dropped transaction was begun after it had become durable.
    return 1 + max(0, sum(beyond) - 1) if beyond else 0


def sound_frames(path: Path, page_size: int) -> int:
    """Return how many frames SQLite would take from a log nobody writes to: its checksums' run."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size:
            return 0
        mark, *_, salt1, salt2, sum1, sum2 = _HEADER.unpack(head)
        if _sums(mark, head[:24]) != (sum1, sum2):
            return 0
        frames, sums, size = 0, (sum1, sum2), _FRAME_BYTES + page_size
        while len(frame := file.read(size)) == size:
            told = struct.unpack_from(">4I", frame, 8)
            sums = _sums(mark, frame[:8] + frame[_FRAME_BYTES:], sums)
            if told != (salt1, salt2, *sums):
                break
            frames += 1
    return frames


def _salts(path: Path, frames: list[tuple[int, int, int]]) -> tuple[int, int]:
    """Return the salts of the newest generation.

    A sound header tells, even where no frame bears them yet: then the log was just begun anew and
    what follows is old. The header is synced before the first frame is written, so that a header
    that is not sound was damaged later; then the first frame tells.
    """
    if not frames:
        return (0, 0)
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    mark, *_, salt1, salt2, sum1, sum2 = _HEADER.unpack(head)
    return (salt1, salt2) if _sums(mark, head[:24]) == (sum1, sum2) else frames[0][1:]


def _sums(mark: int, head: bytes, before: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    sum1, sum2 = before
    words = struct.unpack(f"{'>' if mark & 1 else '<'}{len(head) // 4}I", head)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        sum1 = (sum1 + even + sum2) & 0xFFFFFFFF
        sum2 = (sum2 + odd + sum1) & 0xFFFFFFFF
    return sum1, sum2


def _newest(frames: list[tuple[int, int, int]], salts: tuple[int, int]) -> tuple[bool, ...]:
    ours = [frame[1:] == salts for frame in frames]
    if True not in ours:
        return ()
    # A damaged salt is one of ours in between; what follows the last of ours is older.
    end = len(ours) - ours[::-1].index(True)
    return tuple(commit != 0 for commit, _, _ in frames[:end])
