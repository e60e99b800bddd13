"""Is what the plant keeps sound, and does it fit together."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from kapelle.config import Config
from kapelle.errors import Invalid
from kapelle.fleet.rehearsal import PartitionRehearsal, PlantRehearsal
from kapelle.history.upkeep import examine_history
from kapelle.journal.store import NAME
from kapelle.journal.verify import JournalExamination, is_held
from kapelle.model.ids import PLANT, Ints, partition_topic
from kapelle.registry.examination import compare, examine_registry
from kapelle.runtime.doctor import Finding, Verdict


def examine(config: Config, data: Path | None = None) -> Iterator[Finding]:
    """Yield what is found in a plant's data directory, or in a copy of it elsewhere.

    Raises:
        Invalid: There is no journal.
        JournalNewer, JournalDamaged: It cannot be looked at by this version, or at all.
    """
    directory = config.journal_directory if data is None else data / "journal"
    if not (directory / NAME).exists():
        raise Invalid(f"{directory} holds no journal: check [plant] data_dir, or --config")
    url = config.registry.database_url(data or config.plant.data_dir)
    history = config.history_directory if data is None else data / "history"
    # Before the journal: what the registry has settled by now, the journal has.
    found, known = examine_registry(url, config.plant.partitions)
    yield from found
    running = is_held(directory)
    with closing(JournalExamination(directory)) as examination:
        if not running:
            examination.look_at_file()
        heard = _look_at_topics(examination, config)
        yield from examination.findings
        yield from examine_history(history, examination.ends)
    if known is not None and len(heard) == config.plant.partitions:
        _, later = examine_registry(url, config.plant.partitions)
        settled = later is not None and later.revision == known.revision
        yield compare(known, heard, settled=settled)


def _look_at_topics(examination: JournalExamination, config: Config) -> list[Ints]:
    """Return the active devices of each partition whose topic could be replayed to its end."""
    partitions, heard = config.plant.partitions, list[Ints]()
    own = [partition_topic(partition) for partition in range(partitions)]
    for partition, topic in enumerate(own):
        rehearsal = PartitionRehearsal(partition, partitions, config.fleet)
        if examination.look_at_topic(topic, rehearsal):
            fleet = rehearsal.fleet
            heard.append(
                fleet.device_nos(np.flatnonzero(fleet.active[: fleet.size]).astype(np.int32))
            )
    examination.look_at_topic(PLANT, PlantRehearsal(partitions))
    for topic in sorted(examination.topics.keys() - {*own, PLANT}):
        found = f"of no partition of a plant with {partitions}"
        remedy = "set [plant] partitions to what it was when the plant was made"
        examination.findings.append(Finding(topic, Verdict.BAD, found, remedy))
    return heard
