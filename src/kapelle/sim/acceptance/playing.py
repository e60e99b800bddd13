"""Plays lines, seed by seed, in one process or several, and keeps what was seen."""

import gc
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from hashlib import blake2b
from pathlib import Path

import msgspec
import numpy as np

import kapelle
from kapelle.errors import Invalid
from kapelle.model.enums import Exclusion, Freshness
from kapelle.model.ids import Flags
from kapelle.sim.acceptance.lines import Line
from kapelle.sim.acceptance.seen import Seen, measure
from kapelle.sim.faults import GroupLoss
from kapelle.sim.hush import hushed
from kapelle.sim.play import Play
from kapelle.sim.run import perform
from kapelle.sim.stage import Stage

_THOROUGH_EVERY = 10
"""Of so many seeds one is audited reading by reading; the others for their commands only."""
_LOOK_S = 0.5


@cache
def _code() -> bytes:
    """Return a digest of every source file: results of other code are not of this table."""
    hashed = blake2b(digest_size=16)
    root = Path(kapelle.__file__).parent
    for path in sorted(root.rglob("*.py")):
        hashed.update(path.relative_to(root).as_posix().encode())
        hashed.update(path.read_bytes())
    return hashed.digest()


def fingerprint(line: Line) -> str:
    """Return what tells the code and the scenario of a run from those of others."""
    return blake2b(_code() + repr(line.scenario).encode(), digest_size=8).hexdigest()


def play_line(line: Line, seed: int) -> Seen:
    """Play one seed of a line."""
    detected_s: list[float] = []
    made_by = fingerprint(line)

    async def act(play: Play, _: Stage) -> None:
        losses = line.scenario.faults.group_loss
        if losses:
            await _detect(play, losses[0], detected_s)

    # A run is over before its garbage is worth a search, which would take a fifth of its time.
    gc.disable()
    try:
        with hushed():
            done = perform(line.scenario, seed, act=act, thorough=seed % _THOROUGH_EVERY == 1)
        return measure(line, done, min(detected_s, default=None), made_by)
    finally:
        gc.enable()
        gc.collect()


async def _detect(play: Play, loss: GroupLoss, detected_s: list[float]) -> None:
    """Note when the plant has classed every lost device as one that does not answer."""
    await play.wait_until(loss.at_s)
    members = np.array([name == loss.name for name in play.devices.groups(loss.by)], np.bool_)
    while not _is_silent(play, members):
        await play.clock.sleep(_LOOK_S)
    detected_s.append(play.elapsed_s() - loss.at_s)


def _is_silent(play: Play, members: Flags) -> bool:
    lost_no = play.devices.enrolled.device_no[members]
    for owner in play.doors.owners.values():
        fleet = owner.fleet
        rows = fleet.rows(lost_no[lost_no % fleet.partitions == fleet.partition])
        heard = np.isin(fleet.freshness[rows], (Freshness.LIVE, Freshness.LATE))
        if (heard & (fleet.excluded[rows] == Exclusion.NONE)).any():
            return False
    return True


def play_all(jobs: Sequence[tuple[Line, int]], processes: int) -> Iterator[Seen]:
    """Play lines with their seeds, and yield each result as it comes, in this order."""
    if processes <= 1 or len(jobs) <= 1:
        yield from (play_line(line, seed) for line, seed in jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(play_line, *zip(*jobs, strict=True))


def read_kept(path: Path, wanted: Iterable[Line]) -> list[Seen]:
    """Return what a file keeps of these lines as they are now, played by the present code.

    What a crash left of its last line is cut off, so that the next result begins a line.

    Raises:
        Invalid: A line of the file is not a result.
    """
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        path.write_bytes(whole)
    made_by = {line.name: fingerprint(line) for line in wanted}
    kept: list[Seen] = []
    for number, each in enumerate(whole.splitlines(), 1):
        try:
            seen = msgspec.json.decode(each, type=Seen)
        except msgspec.MsgspecError as error:
            raise Invalid(
                f"{path}: line {number} is no result of this version ({error}); "
                "name another file, or remove this one"
            ) from error
        if made_by.get(seen.line) == seen.made_by:
            kept.append(seen)
    return kept


def keep(path: Path, seen: Seen) -> None:
    """Add one result to a file."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(seen) + b"\n")
