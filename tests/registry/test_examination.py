"""A registry looked at from outside: what no code of ours would do to it is found."""

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text
from tests.registry.conftest import make_older

from kapelle.model.enums import DeviceKind
from kapelle.registry import schema
from kapelle.registry.device import Device
from kapelle.registry.examination import Known, compare, examine_registry
from kapelle.registry.store import Registry
from kapelle.runtime.doctor import Verdict


def some_devices(count: int) -> list[Device]:
    return [
        Device(
            f"dev-{n}",
            DeviceKind.BATTERY,
            f"site-{n // 2}",
            nameplate_up_w=5000.0,
            nameplate_down_w=4000.0,
            energy_wh=1e4,
        )
        for n in range(count)
    ]


def flaws(url: str, partitions: int = 3) -> list[str]:
    found, _ = examine_registry(url, partitions)
    return [f.found for f in found if f.verdict is not Verdict.OK]


def test_a_sound_registry_is_called_sound(registry: Registry, url: str) -> None:
    registry.put_devices(some_devices(10), 1)
    registry.remove_devices(["dev-3"], 2)
    found, known = examine_registry(url, 3)
    assert [f.verdict for f in found] == [Verdict.OK]
    assert known is not None
    assert (len(known.enrolled), len(known.given), known.revision) == (9, 10, 2)
    assert known.due > 0, "the journal has heard nothing yet"
    registry.settle(2)
    found, known = examine_registry(url, 3)
    assert known is not None
    assert known.due == 0


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("UPDATE sites SET partition = (partition + 1) % 3", "lie in another partition"),
        ("UPDATE partitions SET next_row = 0", "would be given out again"),
        ("UPDATE devices SET active = 0", "still have credentials"),
        ("UPDATE plant SET partitions = 5", "of a plant with 5 partitions, not 3"),
        ("DELETE FROM alembic_version", "does not say which schema"),
    ],
)
def test_what_does_not_fit_together_is_named(
    registry: Registry, url: str, harm: str, said: str
) -> None:
    registry.put_devices(some_devices(10), 1)
    engine = schema.connect(url)
    with engine.begin() as connection:
        connection.execute(text(harm))
    engine.dispose()
    (flaw,) = flaws(url)
    assert said in flaw


def test_a_registry_that_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    found, known = examine_registry(f"sqlite:///{tmp_path / 'no.db'}", 3)
    assert known is None
    assert found[0].verdict is Verdict.WARN
    assert not list(tmp_path.iterdir())
    found, known = examine_registry("postgresql://nobody@127.0.0.1:1/none", 3)
    assert known is None
    assert found[0].verdict is Verdict.BAD
    (tmp_path / "bad.db").write_bytes(b"no database at all " * 500)
    assert "not a database" in flaws(f"sqlite:///{tmp_path / 'bad.db'}")[0]


def test_a_registry_of_an_older_kapelle_is_sound_and_named_older(url: str) -> None:
    with Registry(url, 3) as registry:
        registry.put_devices(some_devices(10), 1)
    make_older(url)
    found, known = examine_registry(url, 3)
    assert [f.verdict for f in found] == [Verdict.WARN, Verdict.OK]
    assert found[0].found == f"its schema is 0001, older than this Kapelle's {schema.head()}"
    assert "at the next start" in found[0].remedy
    assert known is not None
    assert len(known.enrolled) == 10


def test_a_registry_of_a_newer_kapelle_is_not_taken_for_an_older(url: str) -> None:
    Registry(url, 3).close()
    engine = schema.connect(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    (found,), known = examine_registry(url, 3)
    assert (found.verdict, known) == (Verdict.BAD, None)
    assert "its schema is 9999, newer than" in found.found
    assert "install the version that wrote it" in found.remedy


NOS = np.arange(6, dtype=np.int32)


@pytest.mark.parametrize(
    ("told", "due", "settled", "verdict", "said"),
    [
        ([0, 1, 2, 3, 4], 0, True, Verdict.OK, "the same 5 devices"),
        ([0, 1, 2, 3], 0, True, Verdict.BAD, "about 1 devices: numbers 4"),
        ([0, 1, 2, 3, 4, 5], 0, True, Verdict.BAD, "about 1 devices: numbers 5"),
        ([0, 1, 2, 3, 4, 9], 0, True, Verdict.BAD, "never enrolled: numbers 9"),
        ([0, 1, 2, 3], 7, True, Verdict.OK, "not compared"),
        ([0, 1, 2, 3, 4, 9], 0, False, Verdict.OK, "not compared"),
    ],
)
def test_journal_and_registry_know_the_same_devices(
    told: list[int], due: int, settled: bool, verdict: Verdict, said: str
) -> None:
    known = Known(3, due, NOS[:5], NOS)
    heard = np.array(told, np.int32)
    found = compare(known, [heard[heard % 2 == 0], heard[heard % 2 == 1]], settled=settled)
    assert (found.verdict, said in found.found) == (verdict, True), found.found
