"""The whole plant in one directory, and back.

Why the copies fit together although the plant goes on meanwhile: whatever *reads* the journal is
copied before it (history, quarantine, snapshots, notes of adapters), so the journal in the backup
holds everything they have read; it is copied as of one moment; and the registry, which *feeds* the
journal, comes last, so no device in the journal is unknown to it. What the registry had told the
journal in between is told again after the restore: telling twice changes nothing.
"""

import logging
import os
import shutil
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from kapelle import __version__
from kapelle.adapters.keeping import NOTES
from kapelle.cli.upkeep import examine
from kapelle.config import API_TOKEN, Config
from kapelle.errors import (
    Conflict,
    DataDirectoryHeld,
    Invalid,
    JournalDamaged,
    RegistryUnavailable,
)
from kapelle.history.upkeep import copy_history
from kapelle.journal.backup import Copied, copy_journal, copy_snapshots, topics_of
from kapelle.journal.store import NAME
from kapelle.journal.verify import is_held
from kapelle.model.ids import NS_PER_S
from kapelle.registry.examination import examine_registry, sqlite_file
from kapelle.registry.settings import RegistrySettings
from kapelle.registry.store import Registry
from kapelle.runtime.archive import (
    MANIFEST,
    Manifest,
    Taken,
    check,
    check_empty,
    copy_database,
    copy_file,
    drafted,
    note_backup,
    seal,
)
from kapelle.runtime.clock import SystemClock
from kapelle.runtime.doctor import Finding, Verdict

_TRIES = 5
_JOURNAL, _REGISTRY, _HISTORY = "journal", "registry.db", "history"
_DUMP = (
    "the registry is in PostgreSQL and not in this backup: run pg_dump now, after it, and keep both"
)
log = logging.getLogger(__name__)

_SHARED = "it lies on the same disk as the plant, and does not survive that disk"


def take(config: Config, destination: Path) -> Manifest:
    """Make a backup and return what it says about itself.

    Raises:
        Invalid: There is no journal, or the destination holds something.
        JournalDamaged: The journal cannot be read at all.
        JournalFull, JournalFailed: The disk of the destination.
    """
    data = config.plant.data_dir
    journal = config.journal_directory
    if not (journal / NAME).exists():
        raise Invalid(f"{journal} holds no journal: check [plant] data_dir, or --config")
    url = config.registry.database_url(data)
    file = sqlite_file(url)
    check_empty(destination)
    notes = [data / name for name in NOTES]
    _check_room([journal / NAME, data / _REGISTRY, *notes], destination)
    with drafted(destination.absolute()) as draft:
        now_ns = SystemClock().now_ns()
        unread = _copy_notes(notes, draft)
        readers, copied, remarks = _copy_followers(config, draft)
        remarks += unread
        found, known = examine_registry(url, config.plant.partitions)
        kind = "postgresql"
        if file is not None:
            kind = "sqlite" if file.exists() else "none"
        if file is not None and kind == "sqlite":
            copy_database(file, draft / _REGISTRY)
        if kind == "postgresql":
            remarks.append(_DUMP)
        remarks += [f"registry: {f.found}" for f in found if f.verdict is Verdict.BAD]
        if config.token_file.exists():
            copy_file(config.token_file, draft / API_TOKEN)
        if draft.stat().st_dev in (data.stat().st_dev, journal.stat().st_dev):
            remarks.append(_SHARED)
        topics = {topic: (copied.trimmed[topic] + 1, copied.last[topic]) for topic in copied.last}
        taken = Taken(
            kapelle=__version__,
            plant=config.plant.name,
            partitions=config.plant.partitions,
            host=socket.gethostname(),
            taken_at_ns=now_ns,
            taken_at=_moment(now_ns),
            topics=topics,
            readers=readers,
            registry=kind,
            revision=known.revision if known is not None else 0,
            remarks=remarks + copied.remarks,
        )
        manifest = seal(draft, taken)
    try:
        # Status and metrics tell its age.
        note_backup(data, now_ns)
    except OSError as error:
        log.warning("the backup is whole, but was not noted", extra={"reason": str(error)})
    return manifest


def _copy_notes(files: Sequence[Path], draft: Path) -> list[str]:
    """Copy what adapters keep of their own; return a remark on each file that cannot be read.

    Nothing of the plant's state follows from them, so one that is damaged spoils no backup.
    """
    remarks = []
    for file in files:
        if not file.exists():
            continue
        try:
            copy_database(file, draft / file.name)
        except JournalDamaged as error:
            (draft / file.name).unlink(missing_ok=True)
            remarks.append(f"{file.name}: unreadable ({error}); not in the backup")
    return remarks


def _copy_followers(
    config: Config, draft: Path
) -> tuple[dict[str, dict[str, int]], Copied, list[str]]:
    """Copy what follows the journal, then the journal, so that nothing between them is missing."""
    journal = config.journal_directory
    topics = topics_of(journal)
    for _ in range(_TRIES):
        readers = copy_history(config.history_directory, draft / _HISTORY)
        newest = copy_snapshots(journal, draft / _JOURNAL, iter(topics))
        copied = copy_journal(journal, draft / _JOURNAL, readers)
        lacking = {
            topic
            for topic, trimmed in copied.trimmed.items()
            if trimmed > min(newest.get(topic, 0), copied.marks.get(topic, trimmed))
        }
        if not lacking:
            return readers, copied, []
        # Trimmed while we copied: what followed had come further by then.
    remark = f"{', '.join(sorted(lacking))}: the journal begins after what its readers have had"
    return readers, copied, [f"{remark}; kapelle verify says why"]


def put_back(config: Config, source: Path, target: Path) -> tuple[Manifest, list[Finding]]:
    """Make a data directory of a backup; return what it says, and what was found in it.

    Raises:
        Invalid, JournalDamaged: It is no backup, of another plant, or was changed since.
        DataDirectoryHeld: A plant runs in the target.
        RegistryUnavailable: The registry in PostgreSQL must be there first.
    """
    if is_held(target) or is_held(target / _JOURNAL):
        raise DataDirectoryHeld(f"data directory {target} is in use; stop the plant first")
    check_empty(target)
    manifest = check(source)
    taken = manifest.taken
    if taken.partitions != config.plant.partitions:
        raise Invalid(
            f"the backup is of a plant with {taken.partitions} partitions, the configuration says "
            f"{config.plant.partitions}: set [plant] partitions = {taken.partitions}"
        )
    _check_registry(config, taken, target)
    with drafted(target.absolute()) as draft:
        for name in manifest.files:
            copy_file(source / name, draft / name)
        # What arrived must be what was sent.
        shutil.copyfile(source / MANIFEST, draft / MANIFEST)
        check(draft)
        (draft / MANIFEST).unlink()
        findings = list(examine(config, draft))
        if taken.registry != "none":
            _tell_anew(_url(config, taken, draft), taken)
    now_ns = SystemClock().now_ns()
    if now_ns < taken.taken_at_ns:
        what = f"it is {_moment(now_ns)} here, before the backup was taken ({taken.taken_at})"
        remedy = "set the clock: devices refuse commands of an earlier time than they have heard"
        findings.append(Finding("clock", Verdict.BAD, what, remedy))
    return manifest, findings


def _url(config: Config, taken: Taken, target: Path) -> str:
    if taken.registry == "sqlite":
        return RegistrySettings().database_url(target)
    return config.registry.database_url(target)


def _check_registry(config: Config, taken: Taken, target: Path) -> None:
    if taken.registry == "sqlite" and config.registry.url:
        raise Invalid(
            "the backup holds a registry in SQLite, the configuration names another with "
            f"[registry] url; leave it out, and the one restored into {target} is used"
        )
    if taken.registry == "postgresql":
        if not config.registry.url.startswith("postgres"):
            raise Invalid("the registry was in PostgreSQL: set [registry] url to where it is now")
        found, known = examine_registry(config.registry.url, taken.partitions)
        if known is None:
            raise RegistryUnavailable(f"{found[0].found}; restore the dump with pg_restore first")
        if known.revision < taken.revision:
            raise Conflict(
                f"the registry is at revision {known.revision}, older than the backup "
                f"({taken.revision}): restore a dump taken after it"
            )


def _tell_anew(url: str, taken: Taken) -> None:
    """Let the registry tell the journal everything again at the next start."""
    with Registry(url, partitions=taken.partitions) as registry:
        registry.resend()


def steps_after(config: Config, manifest: Manifest, into: Path | None) -> list[str]:
    """Return what is left to do by hand after a restore."""
    steps = []
    if into is not None and into.absolute() != config.plant.data_dir.absolute():
        steps.append(f'set [plant] data_dir = "{into}" (or KAPELLE_PLANT__DATA_DIR)')
    if config.journal_directory != config.plant.data_dir / _JOURNAL:
        steps.append(f"set [journal] directory to where {_JOURNAL}/ lies now, or leave it out")
    if not config.history_directory.is_relative_to(config.plant.data_dir):
        steps.append(f"set [history] directory to where {_HISTORY}/ lies now, or leave it out")
    if config.api.token_file and API_TOKEN in manifest.files:
        kept = (into or config.plant.data_dir) / API_TOKEN
        steps.append(f"move {kept} to {config.token_file}, or leave [api] token_file out")
    steps.append(
        "put kapelle.toml, the TLS files and the files it takes secrets from in place: they are "
        "not part of a backup"
    )
    steps.append(
        f"kapelle up: what happened after {manifest.taken.taken_at} is gone; devices reconnect and "
        "follow within a minute, orders given since must be given again"
    )
    return steps


def _check_room(files: Sequence[Path], destination: Path) -> None:
    """Refuse where the disk has no room for the journal and the databases. Raises Invalid."""
    place = destination.absolute()
    while not place.exists():
        place = place.parent
    disk = os.statvfs(place)
    needed = sum(path.stat().st_size for path in files if path.exists())
    if disk.f_bavail * disk.f_frsize < needed:
        free, needs = disk.f_bavail * disk.f_frsize >> 20, needed >> 20
        raise Invalid(f"{place} has {free:,} MiB free, the backup needs {needs:,} MiB or more")


def told(place: Path, manifest: Manifest) -> dict[str, object]:
    """Return what JSON shows of a backup."""
    taken = manifest.taken
    return {
        "backup": str(place),
        "taken_at": taken.taken_at,
        "plant": taken.plant,
        "files": len(manifest.files),
        "bytes": manifest.bytes,
        "registry": taken.registry,
        "topics": {topic: last for topic, (_, last) in taken.topics.items()},
        "remarks": taken.remarks,
    }


def _moment(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // NS_PER_S, UTC).isoformat().replace("+00:00", "Z")
